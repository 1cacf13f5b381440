"""What the device could do at best, and how much of that a training step asks for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from model.config import ModelConfig
from model.lstm import num_usable_cores

_SECONDS = 0.5  # for each of the three
_CHAIN = 200  # ops


@dataclass(frozen=True)
class Ceiling:
    """The best of some trials."""

    dtype: str
    """Of the matrix product; on a GPU, float32 stands for TF32 where TensorFlow allows it."""
    matmul_gflop_per_s: float
    copy_gb_per_s: float
    """Bytes read and bytes written, together."""
    op_us: float
    """Time of a tiny op that waits for the one before it."""


def measure_ceiling(dtype: str, has_gpu: bool) -> Ceiling:
    """A large square matrix product, and `x + 1` over an array that no cache holds.

    On a CPU a product for each core, side by side, as training has the parts of a batch.
    """
    size = 8192 if has_gpu else 1024
    num_parts = 1 if has_gpu else num_usable_cores()
    matrix = tf.cast(tf.random.normal([size, size], stddev=size**-0.5), dtype)
    numbers = tf.zeros([2**28 if has_gpu else 2**26])

    @tf.function
    def multiply(count):
        products = [matrix * (part + 1) for part in range(num_parts)]
        for _ in tf.range(count):
            products = [tf.matmul(matrix, product) for product in products]
        return tf.add_n([product[0, 0] for product in products])

    @tf.function
    def copy(count):
        copied = numbers
        for _ in tf.range(count):
            copied = copied + 1.0
        return copied[0]

    @tf.function
    def chain(count):
        number = tf.random.stateless_uniform([8], [1, 2])
        for _ in tf.range(count):
            for _ in range(_CHAIN):
                number = tf.sin(number) + 0.5  # TensorFlow would make one op of sines alone
        return number[0]

    ops_per_s = _best_rate(chain) * _CHAIN * 2
    products_per_s = _best_rate(multiply)
    copies_per_s = _best_rate(copy)
    num_bytes = 2 * 4 * int(tf.size(numbers))
    flops = 2 * num_parts * size**3
    return Ceiling(
        dtype, products_per_s * flops / 1e9, copies_per_s * num_bytes / 1e9, 1e6 / ops_per_s
    )


def _best_rate(run: Callable[[tf.Tensor], tf.Tensor]) -> float:
    """Rounds a second; each trial ends with one number fetched, so that the device is done."""

    def seconds_of(count: int) -> float:
        started = time.perf_counter()
        run(tf.constant(count)).numpy()
        return time.perf_counter() - started

    seconds_of(1)
    count = max(1, int(_SECONDS / 5 / seconds_of(1)))
    seconds_of(count)
    return max(count / seconds_of(count) for _ in range(5))


def serial_ops(config: ModelConfig, length: float) -> float:
    """Ops of a training step that have to wait for each other: one for each token of a text and
    layer, forward and back. Times `op_us`, it is what an LSTM takes at least, however small, where
    every time step is a launch of its own; cuDNN's persistent kernels can go below it.
    """
    return 2 * config.num_layers * length


def step_flops(
    config: ModelConfig, num_tokens: float, num_docs: float, num_classes: int
) -> float:  # fmt: skip
    """Floating-point operations of one training step: those of its matrix products.

    Forward 2 · 4 · H · (D + H) for each token, layer and direction (D inputs, H units: four gates,
    each a product with the input and one with the state, a multiplication and an addition each)
    and 2 · F · C for each document (F features that the classifier sees, C classes); the backward
    pass takes twice the forward. Gathers, gates' functions, dropout and Adam count as nothing.

    Args:
      num_tokens: with the padding.

    >>> step_flops(ModelConfig(embedding_dim=3, hidden=2, bidirectional=False, pooling="last",
    ...            bag=False), num_tokens=10, num_docs=1, num_classes=5)
    2460.0
    """
    num_directions = 2 if config.bidirectional else 1
    per_token, inputs = 0, config.embedding_dim
    for _ in range(config.num_layers):
        per_token += num_directions * 2 * 4 * config.hidden * (inputs + config.hidden)
        inputs = config.hidden * num_directions
    features = 2 * inputs if config.pooling == "max_mean" else inputs
    features += config.embedding_dim * config.bag + config.pairs_dim * bool(config.pairs)
    return 3.0 * (num_tokens * per_token + num_docs * 2 * features * num_classes)
