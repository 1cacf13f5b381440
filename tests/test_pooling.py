"""Pooling over a text's own tokens, against TensorFlow's reductions of the text alone."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from model.pooling import max_inside, sum_inside


@pytest.mark.parametrize(
    ("ours", "theirs"), [(sum_inside, tf.reduce_sum), (max_inside, tf.reduce_max)]
)
@pytest.mark.parametrize("in_graph", [False, True])
def test_equals_the_reduction_of_each_text_alone(ours, theirs, in_graph):
    rng = np.random.default_rng(0)
    lengths = np.array([1, 4, 7, 3])
    x = tf.constant(np.round(rng.normal(size=(7, 4, 5)), 1), tf.float32)  # some maxima are equal
    inside = tf.constant((np.arange(7)[:, None] < lengths)[:, :, None])
    mix = tf.constant(rng.normal(size=(4, 5)), tf.float32)

    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            pooled = ours(x, inside)
            loss = tf.reduce_sum(pooled * mix)
        return pooled, tape.gradient(loss, x)

    pooled, gradient = tf.function(run)() if in_graph else run()
    for row, length in enumerate(lengths):
        text = x[:length, row]
        with tf.GradientTape() as tape:
            tape.watch(text)
            expected = theirs(text, axis=0)
            loss = tf.reduce_sum(expected * mix[row])
        np.testing.assert_allclose(pooled[row], expected, rtol=1e-6)
        np.testing.assert_allclose(gradient[:length, row], tape.gradient(loss, text), rtol=1e-6)
        np.testing.assert_array_equal(gradient[length:, row], 0)
