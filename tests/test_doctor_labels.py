"""Planted label errors are found by confident learning, and clean labels are left alone."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.checkup import CLASSES, clean_rows, make_corpus
from tfdata.checkup.classifier import build_features, fit
from tfdata.checkup.network import fit_buffered
from tfdata.checkup.suspects import check_labels, find_suspects
from tfdata.synthetic import write_corpus


def test_planted_errors_are_found_and_hardly_anything_else():
    rows = clean_rows(4_000)
    planted = np.random.default_rng(3).choice(len(rows), 80, replace=False)
    for row in planted:
        text, label = rows[row]
        rows[row] = text, CLASSES[(CLASSES.index(label) + 1) % 4]
    corpus = make_corpus(rows)
    suspects = find_suspects(corpus)
    assert suspects is not None
    hits = np.isin(suspects.rows, planted).sum()
    assert hits >= 72
    assert hits >= 0.9 * len(suspects.rows)
    assert (np.diff(suspects.margins) <= 0).all()
    (found,) = check_labels(corpus, suspects)
    assert found.count == len(suspects.rows)


def test_clean_labels_are_left_alone():
    corpus = make_corpus(clean_rows())
    suspects = find_suspects(corpus)
    assert suspects is not None
    assert suspects.accuracy > 0.95
    assert len(suspects.rows) <= 2


def test_copies_do_not_vouch_for_each_other():
    rows = clean_rows()
    wrong = [(text, CLASSES[(CLASSES.index(label) + 1) % 4]) for text, label in rows[:20]]
    corpus = make_corpus(rows[20:] + wrong * 5)
    suspects = find_suspects(corpus)
    assert suspects is not None
    times = np.bincount(corpus.text_ids[suspects.rows])
    assert set(times[times > 0]) == {5}  # all copies or none
    assert (times > 0).sum() >= 15


def test_too_few_documents_or_classes_tell_nothing():
    assert find_suspects(make_corpus(clean_rows(100))) is None
    assert find_suspects(make_corpus([("a b", "x")] * 500)) is None


def test_the_classifier_repeats_and_learns():
    corpus = make_corpus(clean_rows())
    features = build_features(corpus.words, 4)
    norms = np.sqrt(features.multiply(features).sum(axis=1))
    assert norms == pytest.approx(1, abs=1e-5)
    rows = np.arange(1_600)
    one, two = (fit(features, corpus.codes, rows, 4) for _ in range(2))
    test = features[1_600:]
    assert np.array_equal(one.probabilities(test), two.probabilities(test))
    assert one.probabilities(test).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (one.predict(test) == corpus.codes[1_600:]).mean() > 0.95


def test_a_class_of_one_text_is_not_suspected():
    rows = clean_rows() + [(clean_rows(4, seed=7)[0][0], "alone")] * 8
    suspects = find_suspects(make_corpus(rows))
    assert suspects is not None
    assert not (suspects.rows >= 2_000).any()


def test_a_small_buffer_over_sorted_rows_costs_accuracy(tmp_path):
    write_corpus(tmp_path / "a.parquet", 12_000, num_classes=30, order="class")
    table = pq.read_table(tmp_path / "a.parquet")
    pairs = zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
    corpus = make_corpus(list(pairs))
    features = build_features(corpus.words, 30)
    rows = np.arange(len(corpus))
    train, test = rows[rows % 10 > 0], rows[rows % 10 == 0]
    small, whole = (
        (fit_buffered(features, corpus.codes, train, 30, size).predict(features[test]))
        == corpus.codes[test]
        for size in (100, 1_000_000)
    )
    assert whole.mean() > 0.9
    assert small.mean() < whole.mean() - 0.05
