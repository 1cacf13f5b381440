"""How much the linear classifier counts."""

from __future__ import annotations

import numpy as np

from model.calibration import fit_temperature, mean_loss
from model.mixture import choose_weight

CLASSES, DOCS = 5, 3000


def draw(strength: float, labels: np.ndarray, seed: int) -> np.ndarray:
    """float32[D, C]: noise, and something for the right class."""
    noise = np.random.default_rng(seed).normal(size=(len(labels), CLASSES))
    known = labels < CLASSES
    noise[np.flatnonzero(known), labels[known]] += strength
    return noise.astype(np.float32)


LABELS = np.random.default_rng(0).integers(0, CLASSES, DOCS)


def test_two_that_err_differently_are_better_together():
    found = choose_weight(draw(2, LABELS, 1), draw(2, LABELS, 2), LABELS)
    assert found is not None
    assert 1 <= found.weight <= 1.5
    assert found.after[0] > found.before[0] + 0.03
    assert found.after[1] > found.before[1] + 0.03


def test_one_that_knows_nothing_is_left_out():
    found = choose_weight(draw(2, LABELS, 1), draw(0, LABELS, 2), LABELS)
    assert found is not None
    assert found.weight == 0
    assert found.after == found.before
    assert found.alone[0] < 0.3


def test_one_that_a_few_documents_say_nothing_of_takes_part():
    """Of little, whether it is better or worse is chance; that two are better than one is not."""
    found = [
        choose_weight(draw(3, labels, seed), 0.3 * draw(1, labels, seed + 50), labels)
        for seed in range(8)
        for labels in [LABELS[seed * 300 : seed * 300 + 300]]
    ]
    assert all(one is not None and one.weight >= 1 for one in found)
    assert any(one is not None and sum(one.after) <= sum(one.before) for one in found)


def test_one_that_makes_answers_worse_is_left_out_whatever_cross_entropy_says():
    """It makes most answers surer, and one in ten wrong."""
    rows, right = np.arange(DOCS), LABELS
    wrong = (right + 1) % CLASSES
    logits, values = np.zeros((2, DOCS, CLASSES), np.float32)
    logits[rows, right], values[rows, right] = 1, 2
    is_spoiled, is_missed = rows % 10 == 0, rows % 10 < 3
    logits[is_missed, right[is_missed]], logits[is_missed, wrong[is_missed]] = 0, 1
    values[is_missed, right[is_missed]], values[is_missed, wrong[is_missed]] = 0, -0.5
    logits[is_spoiled], values[is_spoiled] = 0, 0
    logits[is_spoiled, right[is_spoiled]], values[is_spoiled, wrong[is_spoiled]] = 0.2, 0.4
    losses = [
        mean_loss(mixed / fit_temperature(mixed, right), right)
        for mixed in (logits, logits + values)
    ]
    assert losses[1] < losses[0]
    found = choose_weight(logits, values, right)
    assert found is not None
    assert found.weight == 0
    assert found.after == found.before


def test_a_better_one_counts_more_than_its_cross_entropy_says():
    """A hundredth of the size, but the sign always right: cross-entropy wants it at more than the
    largest weight, accuracy at no less; and one that answers rightly with poor probabilities."""
    logits = draw(1, LABELS, 1)
    values = draw(4, LABELS, 2)
    spoiled = np.random.default_rng(3).random(DOCS) < 0.2
    values[spoiled] = -20 * np.eye(CLASSES)[LABELS[spoiled]]  # a fifth: surely wrong
    found = choose_weight(logits, values, LABELS)
    assert found is not None
    assert found.weight >= 1
    assert found.after[0] > found.before[0] + 0.1


def test_labels_that_training_lacks_are_wrong_and_choose_nothing():
    labels = LABELS.copy()
    labels[:600] = CLASSES + 3
    found = choose_weight(draw(2, labels, 1), draw(2, labels, 2), labels)
    assert found is not None
    assert found.weight > 0
    assert found.before[0] < 0.81


def test_too_few_documents_or_classes_choose_nothing():
    few = LABELS[:99]
    assert choose_weight(draw(2, few, 1), draw(2, few, 2), few) is None
    ones = np.ones((DOCS, 1), np.float32)
    assert choose_weight(ones, ones, np.zeros(DOCS, int)) is None
