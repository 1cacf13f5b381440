"""Scores of how familiar a text is, and how they are judged."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from model.scope import auroc, energy, log_odds


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40))
def test_auroc_counts_pairs(pairs):
    scores, is_out = np.array([s for s, _ in pairs]), np.array([out for _, out in pairs])
    if is_out.all() or not is_out.any():
        return
    inside, outside = scores[~is_out][:, np.newaxis], scores[is_out]
    expected = ((inside > outside) + (inside == outside) / 2).mean()
    assert auroc(scores, is_out) == pytest.approx(expected)
    assert auroc(-scores, is_out) == pytest.approx(1 - expected)


def test_energy_knows_probabilities_alone():
    logits = np.random.default_rng(0).normal(0, 3, (50, 7)).astype(np.float32)
    found = energy(tf.constant(logits), 2.0).numpy()
    log_p = tf.nn.log_softmax(logits / 2.0).numpy()
    np.testing.assert_allclose(found, -log_p.mean(axis=1), atol=1e-5)
    shifted = logits + np.arange(50, dtype=np.float32)[:, np.newaxis]
    np.testing.assert_allclose(energy(tf.constant(shifted), 2.0), found, atol=1e-4)
    assert energy(tf.zeros([1, 7]), 1.0).numpy() == pytest.approx(np.log(7))


def test_log_odds():
    logits = np.random.default_rng(0).normal(0, 3, (50, 7)).astype(np.float32)
    p = tf.nn.softmax(logits).numpy().astype(float)
    for number in (0, 3, 6):
        expected = np.log(p[:, number] / (1 - p[:, number]))
        found = log_odds(tf.constant(logits), number).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-3)
    sure = log_odds(tf.constant([[60.0, 0.0], [80.0, 0.0]]), 0).numpy()
    assert sure.tolist() == [60, 80]  # where both probabilities are 1
