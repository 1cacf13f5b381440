"""Calibration error, coverage and thresholds, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import confidence
from model.confidence import (
    NUM_BINS,
    answered,
    bin_reliability,
    chance_error,
    check_threshold,
    coverage_curve,
    threshold_for,
)

documents = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=80
).map(lambda pairs: (np.array([p for p, _ in pairs], np.float32), np.array([r for _, r in pairs])))


@given(documents)
def test_error_against_a_plain_computation(found):
    probabilities, right = found
    total = 0.0
    for number in range(NUM_BINS):
        inside = [
            i for i, p in enumerate(probabilities)
            if min(int(p * np.float32(NUM_BINS)), NUM_BINS - 1) == number
        ]  # fmt: skip
        if inside:
            gap = np.mean(right[inside]) - np.mean(probabilities[inside].astype(float))
            total += len(inside) * abs(gap)
    reliability = bin_reliability(probabilities, right)
    assert reliability.error == pytest.approx(total / len(right), abs=1e-6)
    assert reliability.num_docs.sum() == len(right)


def test_error_of_nothing_and_of_the_edges():
    assert bin_reliability(np.zeros(0), np.zeros(0, bool)).error == 0
    assert bin_reliability(np.array([1.0, 1.0]), np.array([True, True])).error == 0
    assert bin_reliability(np.array([0.0]), np.array([True])).error == 1


def test_error_by_chance_is_that_of_honest_probabilities():
    rng = np.random.default_rng(5)
    probabilities = rng.beta(4, 1, 1_000)
    errors = [
        bin_reliability(probabilities, rng.random(1_000) < probabilities).error for _ in range(60)
    ]
    assert chance_error(probabilities) == pytest.approx(np.mean(errors), rel=0.15)
    assert chance_error(probabilities[:100]) > 2 * chance_error(np.tile(probabilities, 4))


def test_error_by_chance_does_not_go_by_the_order():
    """A shard set has a file's documents in another order."""
    rng = np.random.default_rng(5)
    probabilities = rng.beta(4, 1, 700)
    assert chance_error(probabilities) == chance_error(rng.permutation(probabilities))


def test_few_draws_are_enough_of_many_documents(monkeypatch):
    probabilities = np.random.default_rng(3).uniform(0.2, 1.0, 100_000)
    draw, num_draws = confidence.bin_reliability, []
    monkeypatch.setattr(
        confidence, "bin_reliability", lambda *of: num_draws.append(1) or draw(*of)
    )  # fmt: skip
    few = chance_error(probabilities)
    assert len(num_draws) == 50
    monkeypatch.setattr(confidence, "_DRAWN", 20_000_000)
    assert chance_error(probabilities) == pytest.approx(few, rel=0.05)
    assert len(num_draws) == 50 + 200


@given(documents, st.floats(0.01, 1))
def test_answered(found, threshold):
    probabilities, right = found
    kept = [r for p, r in zip(probabilities, right, strict=True) if p >= threshold]
    figures = answered(probabilities, right, threshold)
    assert figures["num_answered"] == len(kept)
    assert figures["coverage"] == len(kept) / len(right)
    assert figures["accuracy"] == (np.mean(kept) if kept else None)


@given(documents)
def test_the_curve_goes_through_every_threshold(found):
    probabilities, right = found
    coverage, accuracy = coverage_curve(probabilities, right)
    thresholds = np.unique(probabilities)[::-1]
    points = [answered(probabilities, right, float(t)) for t in thresholds]
    assert coverage.tolist() == pytest.approx([point["coverage"] for point in points])
    assert accuracy.tolist() == pytest.approx([point["accuracy"] for point in points])
    assert coverage[-1] == 1
    assert accuracy[-1] == pytest.approx(right.mean())


@given(documents)
def test_thresholds_for_an_accuracy_answer_as_many_as_can_be(found):
    probabilities, right = found
    points = [answered(probabilities, right, float(t)) for t in np.unique(probabilities)]
    for asked in (0.5, 0.9, 1.0):
        best = max((p["coverage"] for p in points if p["accuracy"] >= asked), default=None)
        for figures in threshold_for(probabilities, right, [asked]):
            assert figures["coverage"] == best
            assert figures["accuracy"] >= asked
        assert bool(threshold_for(probabilities, right, [asked])) == (best is not None)


def test_of_no_documents():
    nothing = np.zeros(0), np.zeros(0, bool)
    assert answered(*nothing, 0.5)["accuracy"] is None
    assert [len(values) for values in coverage_curve(*nothing)] == [0, 0]
    assert threshold_for(*nothing, [0.9]) == []


@pytest.mark.parametrize("wrong", [0, -0.1, 1.01, float("nan")])
def test_what_is_no_threshold(wrong):
    with pytest.raises(ValueError, match=r"--abstain .*: must be above 0, and at most 1"):
        check_threshold(wrong)
    check_threshold(1)
    check_threshold(None)
