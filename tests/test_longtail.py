"""The power of the classes' shares that logits lose."""

from __future__ import annotations

import numpy as np
import pytest

from model.longtail import answer, choose_power, find_shift

COUNTS = np.array([10_000, 1_000, 100, 10])


def _draw(num_docs, power, seed=0):
    """Logits that lean to frequent classes by `power`, of documents of all classes alike."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, num_docs)
    logits = rng.normal(0, 1, (num_docs, 4)).astype(np.float32)
    logits[np.arange(num_docs), labels] += 3
    return logits - find_shift(COUNTS, power), labels


def test_finds_the_power_that_the_logits_have_too_much():
    logits, labels = _draw(4_000, 0.8)
    found = choose_power(logits, labels, COUNTS)
    assert found is not None
    assert found.power == pytest.approx(0.8, abs=0.15)
    assert found.after[1] > found.before[1] + 0.1


def test_leaves_alone_what_it_cannot_better():
    logits, labels = _draw(300, 0.0)
    found = choose_power(logits, labels, COUNTS)
    assert found is not None
    assert abs(found.power) <= 0.15
    assert found.after[1] >= found.before[1]


def test_gives_little_accuracy_for_macro_f1():
    """Where documents are as rare as their classes, what rare ones gain, frequent ones lose."""
    rng = np.random.default_rng(1)
    labels = rng.choice(4, 20_000, p=COUNTS / COUNTS.sum())
    logits = rng.normal(0, 1, (20_000, 4)).astype(np.float32)
    logits[np.arange(20_000), labels] += 2
    logits -= find_shift(COUNTS, 1.0)
    found = choose_power(logits, labels, COUNTS)
    assert found is not None
    accuracy = [np.mean(answer(logits, COUNTS, power) == labels) for power in (0.0, found.power)]
    assert accuracy[1] >= accuracy[0] - 0.0051
    best = max(np.mean(answer(logits, COUNTS, 1.0) == labels), 0)
    assert best < accuracy[0] - 0.02, "the bound was never near: the test shows nothing"


def test_too_few_documents_choose_nothing():
    logits, labels = _draw(99, 0.8)
    assert choose_power(logits, labels, COUNTS) is None
    assert choose_power(logits[:, :1], labels * 0, COUNTS[:1]) is None


def test_labels_that_training_lacks_are_wrong_under_every_power():
    logits, labels = _draw(2_000, 0.8)
    labels[:100] = 7
    found = choose_power(logits, labels, COUNTS)
    assert found is not None
    assert found.power == pytest.approx(0.8, abs=0.2)


def test_a_class_without_documents_has_a_finite_shift():
    assert np.isfinite(find_shift(np.array([5, 0]), 1.0)).all()
