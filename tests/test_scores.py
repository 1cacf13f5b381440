"""Scores against scikit-learn's definitions, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.scores import score, surest_mistakes, typical_documents, worst_confusions
from model.step import Predictions


def _predictions(labels, predicted, losses=None):
    labels, predicted = np.array(labels, np.int32), np.array(predicted, np.int32)
    sure = np.linspace(0.5, 0.9, len(labels)).astype(np.float32)
    losses = np.ones(len(labels), np.float32) if losses is None else np.array(losses, np.float32)
    return Predictions(labels, predicted, sure, losses)


def _plain_f1(labels, predicted, number):
    hits = sum(a == b == number for a, b in zip(labels, predicted, strict=True))
    total = labels.count(number) + predicted.count(number)
    return 2 * hits / total if total else 0.0


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=60))
def test_against_a_plain_computation(pairs):
    labels, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    scores = score(_predictions(labels, predicted), np.array([9, 7, 5, 3, 1]))
    occur = sorted({*labels, *predicted})
    each = [_plain_f1(labels, predicted, number) for number in occur]
    assert scores.macro_f1 == pytest.approx(np.mean(each))
    weighted = sum(f * labels.count(n) for f, n in zip(each, occur, strict=True)) / len(labels)
    assert scores.weighted_f1 == pytest.approx(weighted)
    assert scores.accuracy == pytest.approx(np.mean(np.array(labels) == np.array(predicted)))
    assert scores.num_unseen == sum(label >= 5 for label in labels)
    assert sum(third["num_docs"] for third in scores.thirds.values()) == sum(scores.support)


def test_thirds_go_by_training_documents():
    labels = [0, 1, 2, 3, 4, 5]
    predicted = [0, 1, 2, 0, 4, 0]
    thirds = score(_predictions(labels, predicted), np.array([1, 60, 2, 50, 3, 40])).thirds
    assert thirds["head"]["accuracy"] == 0.5  # classes 1 and 3
    assert thirds["mid"]["accuracy"] == 0.5  # 5 and 4
    assert thirds["tail"]["accuracy"] == 1.0  # 2 and 0


def test_loss_is_the_mean_over_known_labels():
    scores = score(_predictions([0, 1, 9], [0, 0, 0], [1.0, 2.0, 0.0]), np.array([5, 5]))
    assert scores.loss == 1.5
    assert scores.num_unseen == 1
    assert scores.accuracy == pytest.approx(1 / 3)
    assert scores.summary()["loss"] == 1.5
    unknown = score(_predictions([8, 9], [0, 0], [0.0, 0.0]), np.array([5, 5]))
    assert np.isnan(unknown.loss)
    assert unknown.summary()["loss"] is None


def test_worst_confusions_first_with_the_surest_examples():
    labels = [0, 0, 0, 1, 1, 2, 7]
    predicted = [1, 1, 1, 0, 0, 2, 0]
    confusions = worst_confusions(_predictions(labels, predicted), 3, num_examples=2)
    assert [(c.label, c.predicted, c.num_docs) for c in confusions] == [
        (0, 1, 3),
        (1, 0, 2),
        (7, 0, 1),
    ]
    assert confusions[0].examples == (2, 1)
    assert worst_confusions(_predictions([1], [1]), 3) == []


def test_surest_mistakes_go_by_probability_one_of_a_pair_of_classes():
    predictions = _predictions([0, 0, 0, 1, 1, 2], [1, 1, 1, 0, 1, 0])  # ever surer
    confusions = worst_confusions(predictions, 3)
    assert surest_mistakes(predictions, confusions, 2) == [5, 3]
    assert surest_mistakes(predictions, confusions, 9) == [5, 3, 2]


def test_typical_documents_are_right_and_of_several_classes():
    labels = [0] * 5 + [1] * 3 + [2] * 4 + [3]
    predicted = [0] * 5 + [1] * 3 + [0] * 4 + [3]
    predictions = _predictions(labels, predicted)  # ever surer
    counts = np.array([10, 40, 30, 20])
    assert typical_documents(predictions, counts, 9) == [6, 12, 2]  # by size; the median of each
    assert typical_documents(predictions, counts, 2) == [6, 2]
    assert typical_documents(predictions, counts, 1) == [6]
    assert typical_documents(_predictions([1], [0]), counts, 3) == []
