"""Exact and near copies: what was planted is found, with plain Python as the reference."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkup import clean_parts, clean_rows, make_corpus
from tfdata.checkup.duplicates import check_contradictions, check_duplicates, check_leaks
from tfdata.checkup.near import SIMILAR, check_near, find_near, similarity
from tfdata.split import TRAIN

rows = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), min_size=2)


def count(findings, name=None):
    found = [f for f in findings if name in (None, f.name)]
    assert len(found) <= 1
    return found[0].count if found else 0


@settings(max_examples=200, deadline=None)
@given(rows, st.data())
def test_counts_are_those_of_plain_python(rows, data):
    parts = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    corpus = make_corpus(rows, parts)
    assert count(check_duplicates(corpus)) == len(rows) - len(set(rows))

    labels = defaultdict(Counter)
    for text, label in rows:
        labels[text][label] += 1
    contrary = [text for text, counter in labels.items() if len(counter) > 1]
    found = check_contradictions(corpus)
    assert count(found) == sum(labels[text].total() for text in contrary)
    if found:
        assert found[0].figures["texts"] == len(contrary)
        best = sum(max(counter.values()) for counter in labels.values())
        assert found[0].figures["best_accuracy"] == pytest.approx(best / len(rows))

    earliest = {}
    for (text, _), part in zip(rows, parts, strict=True):
        earliest[text] = min(part, earliest.get(text, 2))
    leaked = sum(earliest[text] < part for (text, _), part in zip(rows, parts, strict=True))
    assert count(check_leaks(corpus)) == leaked


def test_examples_show_what_is_meant():
    corpus = make_corpus(
        [("same text", "x")] * 3 + [("same text", "y"), ("alone", "y")], [0, 0, 0, 1, 0]
    )
    (found,) = check_duplicates(corpus)
    assert found.examples == ("3 times: x: same text",)
    (found,) = check_contradictions(corpus)
    assert found.examples == ("x x3, y x1: same text",)
    (found,) = check_leaks(corpus)
    assert found.examples == ("y: same text",)
    assert "1 of 1 rows of valid" in found.title


def test_clean_texts_have_no_copies():
    rows = clean_rows()
    corpus = make_corpus(rows, clean_parts(len(rows)))
    assert not check_duplicates(corpus) + check_contradictions(corpus) + check_leaks(corpus)
    assert not check_near(corpus, find_near(corpus))


def test_planted_near_copies_are_found_and_nothing_else():
    rows = clean_rows()
    planted = []
    for i, (text, label) in enumerate(rows[:60]):
        words = text.split()
        words[-1] = words[-1][:-1] + "x"  # one letter of some sixty
        other = label if i < 30 else {"red": "blue"}.get(label, "red")
        planted.append((" ".join(words), other))
    corpus = make_corpus(rows + planted, [TRAIN] * len(rows) + [1] * len(planted))
    found = check_near(corpus, find_near(corpus))
    assert 56 <= count(found, "near_duplicates") <= 60  # both of each pair
    assert 56 <= count(found, "near_contradictions") <= 60
    assert 56 <= count(found, "near_leaks") <= 60


def brute_force(corpus):
    """For each distinct text: is there a near copy (within, across, in training)?"""
    firsts = corpus.first_rows
    some = np.zeros((3, len(firsts)), bool)
    for i, row in enumerate(firsts):
        near = similarity(corpus, np.full(len(firsts), row), firsts) >= SIMILAR
        near[i] = False
        same = corpus.codes[firsts] == corpus.codes[row]
        some[:, i] = (
            (near & same).any(),
            (near & ~same).any(),
            corpus.parts[row] != TRAIN and (near & (corpus.parts[firsts] == TRAIN)).any(),
        )
    return some


def test_most_of_what_brute_force_finds_is_found(tmp_path):
    import pyarrow.parquet as pq

    from tfdata.synthetic import write_corpus

    write_corpus(tmp_path / "a.parquet", 1_500, num_classes=12, mean_length=15)
    table = pq.read_table(tmp_path / "a.parquet")
    pairs = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    corpus = make_corpus(pairs, clean_parts(len(pairs)))
    near = find_near(corpus)
    found = np.array([near.within, near.across, near.leaking]) >= 0
    expected = brute_force(corpus)
    assert not (found & ~expected).any()
    assert expected.sum(axis=1).min() > 20
    assert (found.sum(axis=1) >= 0.75 * expected.sum(axis=1)).all()


def test_texts_without_words_are_no_copies_of_each_other():
    corpus = make_corpus([("!!!", "x"), ("???", "y"), ("", "x"), ("a b c", "y")])
    assert not check_near(corpus, find_near(corpus))
