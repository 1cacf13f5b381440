"""The order of the rows: sorted, clumped, drifting or shuffled, and what it would cost."""

import numpy as np
import pytest

from tests.checkup import clean_rows, make_corpus
from tfdata.checkup.order import check_order, measure_cost, measure_drift


def drifting(rows):
    """The same rows: of every class the chance to stand early differs, but all stand everywhere."""
    random = np.random.default_rng(1)
    late = np.array([len(label) for _, label in rows])
    return [rows[i] for i in np.argsort(late * 0.4 + random.random(len(rows)) * 2)]


def blocks(rows, size=50):
    """Rows of a class in blocks, which are in random order."""
    ordered = sorted(rows, key=lambda row: row[1])
    random = np.random.default_rng(1)
    starts = random.permutation(range(0, len(rows), size))
    return [row for start in starts for row in ordered[start : start + size]]


@pytest.mark.parametrize(
    ("arrange", "kind"),
    [
        (lambda rows: rows, None),
        (lambda rows: sorted(rows, key=lambda row: row[1]), "sorted"),
        (blocks, "clumped"),
        (drifting, "drifting"),
    ],
)
def test_kinds(arrange, kind):
    rows = arrange(clean_rows(4_000))
    assert measure_drift(make_corpus(rows).codes).kind == kind
    assert bool(check_order(make_corpus(rows), None)) == (kind is not None)


def test_alternating_labels_are_no_drift():
    assert measure_drift(np.tile(np.arange(2, dtype=np.int32), 1_000)).kind is None


def test_shuffled_rows_cost_nothing():
    corpus = make_corpus(clean_rows())
    cost = measure_cost(corpus)
    assert cost.shuffled > 0.95
    assert abs(cost.shuffled - cost.tail) < 0.05
    assert not check_order(corpus, cost)


def test_rows_sorted_by_class_cost_the_score_of_a_tail():
    corpus = make_corpus(sorted(clean_rows(), key=lambda row: row[1]))
    cost = measure_cost(corpus)
    # the last tenth is of one class, of which the head has three fifths
    assert cost.unseen == 0
    (found,) = check_order(corpus, cost)
    assert "sorted by class: 4 stretches" in found.title
    assert found.examples == ("first tenth: blue 100%", "last tenth: red 100%")


def test_a_class_that_only_the_tail_has_scores_nothing():
    rows = [row for row in clean_rows(3_000) if row[1] != "red"]
    tail = [row for row in clean_rows(3_000, seed=9) if row[1] == "red"][:250]
    corpus = make_corpus(rows + tail)
    cost = measure_cost(corpus)
    assert cost.unseen == pytest.approx(1, abs=0.01)
    assert cost.tail < 0.02
    (found,) = check_order(corpus, cost)
    assert found.severity == "high"
    assert found.figures["accuracy_tail"] == cost.tail


def test_texts_that_drift_under_steady_labels_are_found_by_their_cost():
    rows = clean_rows(2_000)
    renamed = [(text.replace("w", "v"), label) for text, label in rows[1_800:]]
    corpus = make_corpus(rows[:1_800] + renamed)
    assert not check_order(corpus, None)
    (found,) = check_order(corpus, measure_cost(corpus))
    assert "texts drift" in found.title
    assert found.severity == "high"


def test_rows_of_a_validation_file_are_no_part_of_the_order():
    rows = clean_rows() + [("x y z", "red")] * 200
    sources = [0] * 2_000 + [1] * 200
    assert not check_order(make_corpus(rows, sources, sources), None)


def test_a_sample_is_said_to_be_one():
    corpus = make_corpus(sorted(clean_rows(), key=lambda row: row[1]))
    (found,) = check_order(corpus, measure_cost(corpus, most=1_000))
    assert found.sample == 1_000
