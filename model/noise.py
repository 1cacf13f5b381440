"""Random numbers that are functions of (seed, row): the same on one replica or on many.

cuDNN's and Keras's dropout keep state inside; here the numbers of row r of the *global* batch do
not depend on which replica holds it, nor on what was drawn before, so that a resumed run and a run
on more devices repeat the straight run's.
"""

from __future__ import annotations

import tensorflow as tf

_PHILOX = 1
_PER_COUNTER = 4  # Philox makes four 32-bit numbers from one counter


def uniform_rows(num_rows, row_size, seed: tf.Tensor, first_row) -> tf.Tensor:
    """float32[num_rows, row_size] in [0, 1): rows `first_row` … of an endless table.

    Philox (Salmon et al. 2011) makes numbers 4i … 4i+3 from counter i alone, so the table can be
    entered anywhere; rows are padded to whole counters.

    Args:
      seed: int64[2].
    """
    counters_per_row = (row_size + _PER_COUNTER - 1) // _PER_COUNTER
    with tf.device("CPU:0"):  # where TensorFlow has the key and the counter
        key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
        offset = tf.cast(first_row, tf.int64) * tf.cast(counters_per_row, tf.int64)
        counter += tf.stack([tf.cast(offset, tf.uint64), tf.zeros([], tf.uint64)])
    padded = counters_per_row * _PER_COUNTER
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=tf.stack([num_rows, padded]), key=key, counter=counter, alg=_PHILOX, dtype=tf.float32
    )
    return numbers[:, :row_size]


def dropout(x: tf.Tensor, rate: float, seed: tf.Tensor, first_row) -> tf.Tensor:
    """Zeroes a share `rate` of x, float[B, H], and scales up the rest."""
    shape = tf.shape(x)
    return _drop(x, rate, uniform_rows(shape[0], shape[1], seed, first_row))


def dropout_tokens(x_TBH: tf.Tensor, rate: float, seed: tf.Tensor, first_row, row_tokens):
    """The same for float[T, B, H]; a row's noise is that of `row_tokens` tokens, T or more.

    So rows cut to their longest text keep the noise they have in the whole batch.
    """
    num_tokens, num_rows, size = tf.unstack(tf.shape(x_TBH))
    uniform = uniform_rows(num_rows, row_tokens * size, seed, first_row)
    uniform = tf.reshape(uniform, [num_rows, row_tokens, size])[:, :num_tokens]
    return _drop(x_TBH, rate, tf.transpose(uniform, [1, 0, 2]))


def _drop(x: tf.Tensor, rate: float, uniform: tf.Tensor) -> tf.Tensor:
    return tf.where(uniform >= rate, x / tf.cast(1.0 - rate, x.dtype), tf.zeros([], x.dtype))
