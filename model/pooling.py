"""Sums and maxima over the tokens of a text, without its padding.

With gradients of their own: those of tf.reduce_sum and tf.reduce_max work out shapes on a GPU and
wait for them on the host, at every step, where a shape is only known when the graph runs.
Legend: T tokens, B documents, H features.
"""

from __future__ import annotations

import tensorflow as tf


@tf.custom_gradient
def sum_inside(x_TBH: tf.Tensor, inside_TB1: tf.Tensor):
    """float[T, B, H], bool[T, B, 1] → float[B, H]."""

    def backward(gradient_BH: tf.Tensor):
        return tf.where(inside_TB1, gradient_BH, tf.zeros([], x_TBH.dtype)), None

    return tf.reduce_sum(tf.where(inside_TB1, x_TBH, tf.zeros([], x_TBH.dtype)), axis=0), backward


@tf.custom_gradient
def max_inside(x_TBH: tf.Tensor, inside_TB1: tf.Tensor):
    """float[T, B, H], bool[T, B, 1] → float[B, H]; equal maxima share the gradient, as in
    tf.reduce_max.
    """
    largest_BH = tf.reduce_max(tf.where(inside_TB1, x_TBH, x_TBH.dtype.min), axis=0)

    def backward(gradient_BH: tf.Tensor):
        is_largest = tf.logical_and(inside_TB1, tf.equal(x_TBH, largest_BH))
        share = tf.cast(is_largest, x_TBH.dtype)
        return share * (gradient_BH / tf.reduce_sum(share, axis=0)), None

    return largest_BH, backward
