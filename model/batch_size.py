"""`--batch-size auto`: the fastest batch within memory, and within what learning allows.

What counts is the time to accuracy. The larger the batch, the more documents learning takes, so
documents a second are weighed by what each teaches, and the sizes that are measured end where the
whole training would have too few steps.

Legend: B documents of a replica's batch, T tokens.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.lstm import count_blocks
from model.made_up import list_pairs, make_batch, repeat_batches
from model.optimizer import Adam, choose_lazy
from model.startup import warm_up
from model.step import ChunkMetrics, build_train_chunk

LEAST_STEPS = 1_500
"""Of the whole training. With `default` on 36,000 generated documents, six times each, batches of
128, 256, 512 and 1,024 made 1,692, 846, 426 and 216 steps and ended at .726, .705, .670 and .654
macro-F1 (medians of three seeds), each with its scaled learning rate."""
LEAST_BATCHES = 200
"""Of an epoch: early stopping may end the training after a few."""
CRITICAL_SIZE = 600
"""Batches of this size need twice the documents that tiny ones do (the law is that of McCandlish et
al. 2018, "An Empirical Model of Large-Batch Training"). Fitted to the same trainings: 54, 63, 90
and 117 thousand documents to a validation accuracy of .95."""
_MOST_ON_CPU, _MOST_ON_GPU = 1024, 8192  # a few doublings keep a device busy
_MEMORY_SHARE = 1 / 8  # for a step's activations; the estimate is rough, and the run needs more
_CLOSE = 0.9  # of the best: a smaller batch is the safer one
_CHUNK_SECONDS, _NUM_CHUNKS, _MOST_STEPS = 0.15, 4, 64


def find_batch_size(
    model: ModelConfig, training: TrainConfig, build_network: Callable[[], tuple[Classifier, Adam]],
    batch_type: Callable[..., Any], *, base: int, num_train: int, num_tokens: int, gpu_bytes: int,
    has_gpu: bool,
) -> tuple[int, float]:  # fmt: skip
    """(batch size over all replicas, its learning rate); says in one line why.

    Call it under the strategy scope.

    Args:
      build_network: makes one to measure by; not called where only `base` is allowed.
      batch_type: tfdata.pipeline.Batch.
      base: the size that the learning rate is meant for.
      num_train: training documents.
      num_tokens: of the longest text.
      gpu_bytes: memory of the smallest GPU in use; 0 where it is not known.
    """
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    assert training.epochs is not None
    most = _MOST_ON_GPU if has_gpu else _MOST_ON_CPU
    learning = list_sizes(base, num_train, training.epochs, most)
    memory_bytes = gpu_bytes * num_replicas if has_gpu else _host_bytes()
    sizes = keep_fitting(learning, model, num_tokens, memory_bytes)
    if len(sizes) < len(learning):
        bound = "fits in memory"
    elif sizes[-1] * 2 > most:
        bound = "is tried here"
    else:
        bound = f"leaves enough steps with {num_train:,} training documents"
    rates: dict[int, float] = {}
    if len(sizes) > 1:
        classifier, optimizer = build_network()
        build_step = functools.partial(
            _build_step, classifier, optimizer, batch_type, training, num_tokens, has_gpu
        )
        variables = classifier.weights_by_name | optimizer.state_by_name
        rates = measure_rates(sizes, build_step, variables)
    size = choose_size(rates) if rates else base
    learning_rate = scale_learning_rate(training.learning_rate, size, base)
    print(_describe(rates, size, learning_rate, max(sizes), bound))
    return size, learning_rate


def list_sizes(base: int, num_train: int, num_epochs: int, most: int) -> tuple[int, ...]:
    """`base` and its doublings up to `most`, as far as learning allows.

    Args:
      num_train: training documents, read `num_epochs` times.

    >>> list_sizes(128, 640_000, 5, 8192)
    (128, 256, 512, 1024, 2048)
    """
    most = min(most, num_train * num_epochs // LEAST_STEPS, num_train // LEAST_BATCHES)
    sizes = [base]
    while sizes[-1] * 2 <= most:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes)


def keep_fitting(
    sizes: Sequence[int], model: ModelConfig, num_tokens: int, memory_bytes: int
) -> tuple[int, ...]:
    """The first of `sizes`, and those whose activations take a small share of the memory.

    On a CPU nothing says no in time: the system ends the process. On a GPU `measure_rates` would go
    back, but the run needs memory for more than a step.

    Args:
      num_tokens: of the longest text.
      memory_bytes: of all replicas' devices; 0 where it is not known.
    """
    if not memory_bytes:
        return tuple(sizes)
    directions = 2 if model.bidirectional else 1
    # float32 for each token: the embedding and its gradient; four gates, two states, the output
    # and their gradients of every layer
    floats = 2 * model.embedding_dim + 14 * model.num_layers * directions * model.hidden
    most = _MEMORY_SHARE * memory_bytes / (4 * floats * num_tokens)
    return tuple(size for size in sizes if size <= max(most, sizes[0]))


def _host_bytes() -> int:
    """Memory of this machine; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not Linux
        return 0


def _build_step(
    classifier: Classifier, optimizer: Adam, batch_type: Callable[..., Any], training: TrainConfig,
    num_tokens: int, has_gpu: bool, size: int,
) -> Callable[[int, int], ChunkMetrics]:  # fmt: skip
    """The training step of batches of `size`, as train.py builds it, on made-up documents."""
    num_docs = -(-size // tf.distribute.get_strategy().num_replicas_in_sync)
    batch = make_batch(
        batch_type, num_docs, num_tokens,
        vocab_size=classifier.vocab_size, num_classes=classifier.num_classes,
    )  # fmt: skip
    list_pairs(classifier, [batch])
    weights = classifier.weights_by_name
    lazy_tables = () if has_gpu else choose_lazy(size * num_tokens, weights)
    optimizer.begin(0, lazy_tables)
    train_chunk = build_train_chunk(
        classifier, optimizer, repeat_batches([batch]),
        seed=training.seed, label_smoothing=training.label_smoothing or 0.0,
        num_blocks=count_blocks(classifier.route, num_docs),
    )  # fmt: skip

    def run(first_step: int, num_steps: int) -> ChunkMetrics:
        optimizer.begin(first_step, lazy_tables)  # the variables were put back since
        return train_chunk(first_step, num_steps)

    return run


def measure_rates(
    sizes: Sequence[int],
    build_step: Callable[[int], Callable[[int, int], ChunkMetrics]],
    variables: Mapping[str, tf.Variable],
) -> dict[int, float]:
    """Documents a second of a training step, by size, until a doubling would learn more slowly.

    All variables are put back bitwise.

    Args:
      sizes: rising; the first fits in memory.
      build_step: makes ready the training of batches of a size: (first step, number of steps).
      variables: all that training changes.
    """
    before = {name: variable.read_value() for name, variable in variables.items()}
    rates: dict[int, float] = {}
    try:
        for size in sizes:
            rates[size] = size / _measure_step(build_step(size), variables)
            teaching = weigh_rates(rates)
            if teaching[size] < max(teaching.values()):
                break
    except tf.errors.ResourceExhaustedError:
        if not rates:
            raise
    finally:
        for name, variable in variables.items():
            variable.assign(before[name])
    return rates


def _measure_step(
    train_chunk: Callable[[int, int], ChunkMetrics], variables: Mapping[str, tf.Variable]
) -> float:
    """Seconds of a step, in the least disturbed of a few chunks."""
    step_seconds: list[float] = []

    def timed(first_step: int, num_steps: int) -> ChunkMetrics:
        started = time.perf_counter()
        sums = train_chunk(first_step, num_steps)
        step_seconds.append((time.perf_counter() - started) / num_steps)
        return sums

    for _ in range(2):  # at the first, libraries and kernels are loaded
        warm_up(variables, timed, 1)
    num_steps = min(_MOST_STEPS, math.ceil(_CHUNK_SECONDS / step_seconds[-1]))
    for _ in range(_NUM_CHUNKS):  # from the same weights each time: no schedule ends meanwhile
        warm_up(variables, timed, num_steps)
    return min(step_seconds[-_NUM_CHUNKS:])


def weigh_rates(rates: Mapping[int, float]) -> dict[int, float]:
    """Documents a second, each counted as what it teaches in a batch of its size.

    >>> weigh_rates({CRITICAL_SIZE: 100.0})
    {600: 50.0}
    """
    return {size: rate / (1 + size / CRITICAL_SIZE) for size, rate in rates.items()}


def choose_size(rates: Mapping[int, float]) -> int:
    """The smallest size that learns about as fast as the one that learns fastest.

    >>> choose_size({128: 1_000.0, 256: 1_900.0, 512: 2_100.0})
    256
    """
    teaching = weigh_rates(rates)
    fastest = max(teaching.values())
    return min(size for size, rate in teaching.items() if rate >= _CLOSE * fastest)


def scale_learning_rate(learning_rate: float, size: int, base: int) -> float:
    """The learning rate of `base`, for batches of `size`: Adam's goes with the root of the size.

    Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms".

    >>> scale_learning_rate(0.001, 512, 128)
    0.002
    """
    return learning_rate * math.sqrt(size / base)


def _describe(
    rates: Mapping[int, float], size: int, learning_rate: float, most: int, bound: str
) -> str:
    """Args:
    bound: what the sizes above `most` do not do.
    """
    if rates:
        measured = ", ".join(f"{size:,} {rate:,.0f}" for size, rate in rates.items())
        why = f"docs/s by size: {measured}; none above {most:,} {bound}"
    else:
        why = f"not measured: none above {most:,} {bound}"
    return f"batch size {size:,}, learning rate {learning_rate:.3g} ({why})"
