"""`--batch-size auto`: the fastest batch within memory, and within what learning allows.

Documents a second alone would always take the largest: what counts is the time to accuracy, and
beyond some size a step teaches no more than one of half the size does. So the sizes that are
measured end where the training would have too few steps.

Imports nothing that is slow to import, like model.startup. Legend: B documents of a replica's
batch, T tokens.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from model.config import ModelConfig
from model.startup import warm_up

if TYPE_CHECKING:
    import tensorflow as tf

    from model.step import ChunkMetrics

MOST_ON_CPU, MOST_ON_GPU = 1024, 8192
"""Larger ones are not measured: the first few doublings are what makes a device busy."""
LEAST_STEPS = 1_500
"""Of the whole training. See bench/LOG.md: with fewer, the time to accuracy rises again."""
_LEAST_BATCHES = 200  # of an epoch: warm-up and early stopping go by epochs
_MEMORY_SHARE = 1 / 8  # for one step's activations; the rest is the run's, and the estimate rough
_CLOSE = 0.9  # of the fastest: a smaller batch makes more steps of the same documents
_WORTH = 1.05  # times the fastest so far: else larger sizes are not measured
_CHUNK_SECONDS, _NUM_CHUNKS, _MOST_STEPS = 0.2, 4, 64


def list_sizes(base: int, num_train: int, num_epochs: int, most: int) -> tuple[int, ...]:
    """`base` and its doublings up to `most`, as far as learning allows.

    Args:
      num_train: training documents, read `num_epochs` times.

    >>> list_sizes(128, 640_000, 5, 8192)
    (128, 256, 512, 1024, 2048)
    """
    most = min(most, num_train * num_epochs // LEAST_STEPS, num_train // _LEAST_BATCHES)
    sizes = [base]
    while sizes[-1] * 2 <= most:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes)


def keep_fitting(
    sizes: Sequence[int], model: ModelConfig, num_tokens: int, num_replicas: int, memory_bytes: int
) -> tuple[int, ...]:
    """The first of `sizes`, and those whose step fits a share of a replica's memory.

    On a CPU nothing says no in time: the system ends the process. On a GPU `measure_rates` goes
    back when it is full, but the run itself needs more than a step does.

    Args:
      num_tokens: of the longest text.
      memory_bytes: of a replica's device; 0 where it is not known.
    """
    directions = 2 if model.bidirectional else 1
    # float32 of a token: the embedding and its gradient, and four gates, two states and the output
    # of each layer, with their gradients
    token_bytes = 4 * (2 * model.embedding_dim + 16 * model.num_layers * directions * model.hidden)
    most = math.inf if memory_bytes == 0 else _MEMORY_SHARE * memory_bytes * num_replicas
    return tuple(sizes[:1]) + tuple(
        size for size in sizes[1:] if size * num_tokens * token_bytes <= most
    )


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
    import tensorflow as tf

    rates: dict[int, float] = {}
    for size in sizes:
        try:
            rate = size / _measure_step(build_step(size), variables)
        except tf.errors.ResourceExhaustedError:
            if not rates:
                raise
            break
        is_worth = rate > _WORTH * max(rates.values(), default=0.0)
        rates[size] = rate
        if not is_worth:
            break
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
    for _ in range(_NUM_CHUNKS):
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
    """What was measured and taken, in one line.

    Args:
      most: the largest size that learning and memory allow.
    """
    if rates:
        measured = ", ".join(f"{size:,} {rate:,.0f}" for size, rate in rates.items())
        why = f"docs/s measured: {measured}; at most {most:,} for {num_train:,} training documents"
    else:
        why = f"{num_train:,} training documents allow no larger one, nothing was measured"
    return f"batch size {size:,}, learning rate {learning_rate:.3g} ({why})"


def repeat_made_up(
    batch_type: Callable[..., Any], num_docs: int, num_tokens: int, vocab_size: int,
    num_classes: int,
) -> Iterator:  # fmt: skip
    """An endless iterator over one made-up batch (B, T): full-length texts, words by Zipf's law.

    Words matter on a CPU, where an embedding's work goes with the distinct ones. Call it under the
    strategy scope; every replica gets a batch of this size.

    Args:
      batch_type: tfdata.pipeline.Batch.
    """
    import numpy as np
    import tensorflow as tf

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
    dataset = tf.data.Dataset.from_tensors(make_batch(0, 0)).take(0)
    dataset = dataset.concatenate(
        tf.data.Dataset.from_tensors(make_batch(num_docs, num_tokens)).repeat()
    )
    strategy = tf.distribute.get_strategy()
    return iter(strategy.distribute_datasets_from_function(lambda _: dataset))
