"""`--batch-size auto`: the fastest batch within memory, and within what learning allows.

Documents a second alone would take the largest, but what counts is the time to accuracy, and from
some size on a step teaches no more than one of half the size did. So the sizes that are measured
end where the whole training would have too few steps.

Legend: B documents of a replica's batch, T tokens.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.lstm import count_blocks
from model.optimizer import Adam, is_lazy_faster
from model.startup import warm_up
from model.step import ChunkMetrics, build_train_chunk

LEAST_STEPS = 1_500
"""Of the whole training."""
LEAST_BATCHES = 200
"""Of an epoch: the best weights and early stopping go by epochs."""
_MOST_ON_CPU, _MOST_ON_GPU = 1024, 8192  # a few doublings keep a device busy
_MEMORY_SHARE = 1 / 8  # for a step's activations; the estimate is rough, and the run needs more
_CLOSE = 0.9  # of the fastest: a smaller batch makes more steps of the same documents
_WORTH = 1.05  # of the fastest so far: else larger sizes are not measured
_CHUNK_SECONDS, _NUM_CHUNKS, _MOST_STEPS = 0.2, 4, 64


def find_batch_size(
    model: ModelConfig,
    training: TrainConfig,
    build_network: Callable[[], tuple[Classifier, Adam]],
    batch_type: Callable[..., Any],
    *,
    base: int,
    num_train: int,
    num_tokens: int,
    gpu_bytes: int,
    has_gpu: bool,
) -> tuple[int, float]:
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
    sizes = list_sizes(base, num_train, training.epochs, _MOST_ON_GPU if has_gpu else _MOST_ON_CPU)
    memory_bytes = gpu_bytes * num_replicas if has_gpu else _host_bytes()
    sizes = keep_fitting(sizes, model, num_tokens, memory_bytes)
    rates: dict[int, float] = {}
    if len(sizes) > 1:
        classifier, optimizer = build_network()

        def build_step(size: int) -> Callable[[int, int], ChunkMetrics]:
            num_docs = -(-size // num_replicas)
            if classifier.route.startswith("cudnn") and model.route == "auto":
                classifier.choose_kernel([(num_docs, num_tokens)])
            is_lazy = not has_gpu and is_lazy_faster(size * num_tokens, classifier.vocab_size)
            batches = repeat_made_up(
                batch_type, num_docs, num_tokens, classifier.vocab_size, classifier.num_classes
            )
            return _build_step(classifier, optimizer, batches, training, is_lazy, num_docs)

        rates = measure_rates(
            sizes, build_step, classifier.weights_by_name | optimizer.state_by_name
        )
    size = choose_size(rates) if rates else base
    learning_rate = scale_learning_rate(training.learning_rate, size, base)
    print(describe_choice(rates, size, learning_rate, sizes[-1], num_train))
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
    classifier: Classifier, optimizer: Adam, batches: Iterator, training: TrainConfig,
    is_lazy: bool, num_docs: int,
) -> Callable[[int, int], ChunkMetrics]:  # fmt: skip
    """The training step of batches of `num_docs` a replica, as train.py builds it."""
    optimizer.begin(0, is_lazy)
    train_chunk = build_train_chunk(
        classifier, optimizer, batches,
        seed=training.seed, label_smoothing=training.label_smoothing,
        num_blocks=count_blocks(classifier.route, num_docs),
    )  # fmt: skip

    def run(first_step: int, num_steps: int) -> ChunkMetrics:
        optimizer.begin(first_step, is_lazy)  # the variables were put back since
        return train_chunk(first_step, num_steps)

    return run


def measure_rates(
    sizes: Sequence[int],
    build_step: Callable[[int], Callable[[int, int], ChunkMetrics]],
    variables: Mapping[str, tf.Variable],
) -> dict[int, float]:
    """Documents a second of a training step, by size, until a doubling gains next to nothing.

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
            fastest = max(rates.values(), default=0.0)
            rates[size] = size / _measure_step(build_step(size), variables)
            if rates[size] < _WORTH * fastest:
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

    for _ in range(2):  # at the first, cuDNN tries its algorithms
        warm_up(variables, timed, 1)
    num_steps = min(_MOST_STEPS, math.ceil(_CHUNK_SECONDS / step_seconds[-1]))
    for _ in range(_NUM_CHUNKS):  # from the same weights each time: no schedule ends meanwhile
        warm_up(variables, timed, num_steps)
    return min(step_seconds[-_NUM_CHUNKS:])


def choose_size(rates: Mapping[int, float]) -> int:
    """The smallest size that is about as fast as the fastest.

    >>> choose_size({128: 50.0, 256: 91.0, 512: 100.0})
    256
    """
    fastest = max(rates.values())
    return min(size for size, rate in rates.items() if rate >= _CLOSE * fastest)


def scale_learning_rate(learning_rate: float, size: int, base: int) -> float:
    """The learning rate of `base`, for batches of `size`: Adam's goes with the root of the size.

    Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms".

    >>> scale_learning_rate(0.001, 512, 128)
    0.002
    """
    return learning_rate * math.sqrt(size / base)


def describe_choice(
    rates: Mapping[int, float], size: int, learning_rate: float, most: int, num_train: int
) -> str:
    """What was measured and taken, in one line; `most` is the largest size allowed."""
    if rates:
        measured = ", ".join(f"{size:,} {rate:,.0f}" for size, rate in rates.items())
        why = f"docs/s: {measured}; at most {most:,} for {num_train:,} training documents"
    else:
        why = f"not measured: the largest allowed for {num_train:,} training documents"
    return f"batch size {size:,}, learning rate {learning_rate:.3g} ({why})"


def repeat_made_up(
    batch_type: Callable[..., Any], num_docs: int, num_tokens: int, vocab_size: int,
    num_classes: int,
) -> Iterator:  # fmt: skip
    """An endless iterator over one made-up batch (B, T): full-length texts, words by Zipf's law.

    The words matter on a CPU, where an embedding's work goes with the distinct ones. Call it under
    the strategy scope; every replica gets a batch of this size.
    """

    def make_batch(num_docs: int, num_tokens: int):
        random = np.random.default_rng(0)
        words = vocab_size ** random.random((num_docs, num_tokens))
        return batch_type(
            token_ids=tf.constant(np.minimum(words, vocab_size - 1).astype(np.int32)),
            lengths=tf.fill([num_docs], num_tokens),
            labels=tf.constant(random.integers(0, num_classes, num_docs), tf.int32),
            weights=tf.ones([num_docs]),
            docs=tf.range(num_docs, dtype=tf.int64),
            scale=tf.ones([]),
        )

    # the empty part keeps the graph from knowing B and T, as in model.startup.repeat_shapes
    same = tf.data.Dataset.from_tensors(make_batch(num_docs, num_tokens)).repeat()
    dataset = tf.data.Dataset.from_tensors(make_batch(0, 0)).take(0).concatenate(same)
    strategy = tf.distribute.get_strategy()
    return iter(strategy.distribute_datasets_from_function(lambda _: dataset))
