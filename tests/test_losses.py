"""Class weights and the loss, against plain formulas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.losses import class_weights, cross_entropy

COUNTS = np.array([48_548, 12_000, 900, 3])


def test_seed_weights_are_the_seeds():
    weights = class_weights(COUNTS, "seed", normalize=False)
    expected = [max(1, np.log(0.5 * COUNTS.sum() / count)) for count in COUNTS]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights[0] == 1  # ln(0.5 · 61,451 / 48,548) is below the floor


@pytest.mark.parametrize("scheme", ["none", "seed", "balanced", "effective"])
def test_normalised_weights_have_mean_one_over_the_documents(scheme):
    weights = class_weights(COUNTS, scheme, normalize=True)
    assert weights @ COUNTS / COUNTS.sum() == pytest.approx(1, rel=1e-5)
    assert (np.diff(weights) >= 0).all()  # the rarer, the heavier


def test_balanced_classes_weigh_the_same_in_sum():
    totals = class_weights(COUNTS, "balanced", True) * COUNTS
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_keras(smoothing):
    logits = tf.constant(np.random.default_rng(0).normal(size=(5, 4)), tf.float32)
    labels = np.array([0, 3, 2, 1, 1], np.int32)
    oracle = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction="none"
    )
    expected = oracle(tf.one_hot(labels, 4), logits)
    np.testing.assert_allclose(cross_entropy(logits, labels, smoothing), expected, rtol=1e-5)


def test_labels_that_training_lacks_cost_nothing():
    losses = cross_entropy(tf.zeros([2, 3]), tf.constant([1, 3]), 0.1).numpy()
    assert losses[0] == pytest.approx(np.log(3))
    assert losses[1] == 0
