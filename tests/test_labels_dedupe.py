"""Near copies: exactly those of brute force, whatever the filters before it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import OSA, DamerauLevenshtein, Indel, LCSseq

from labels.dedupe import find_duplicates
from labels.near import edits_allowed, find_copies
from labels.overlap import Overlap
from labels.swaps import are_within


def _brute_force(texts, near):
    kept = []
    for i, text in enumerate(texts):
        most = [int(max(len(text), len(texts[j])) * near + 1e-9) for j in kept]
        if not any(
            DamerauLevenshtein.distance(text, texts[j]) <= k
            for j, k in zip(kept, most, strict=True)
        ):
            kept.append(i)
    return kept


@given(st.text("abc é", max_size=14), st.text("abc é", max_size=14))
@settings(max_examples=400)
def test_every_bound_is_one(a, b):
    distance = DamerauLevenshtein.distance(a, b)
    longer = max(len(a), len(b))
    common = Overlap([a, b], 2).most(np.array([0]), np.array([1]))[0, 0]
    assert abs(len(a) - len(b)) <= distance
    assert longer - 1 - common <= 2 * distance
    assert LCSseq.distance(a, b) == longer - LCSseq.similarity(a, b) <= distance
    assert distance <= OSA.distance(a, b) <= 1.5 * distance
    assert OSA.distance(a, b) + Indel.distance(a, b) <= 3 * distance


def test_the_bound_of_osa_is_met():
    assert DamerauLevenshtein.distance("ca", "abc") == 2
    assert OSA.distance("ca", "abc") == 3


@given(
    st.lists(st.text("ab cß€𝄞", min_size=1, max_size=12), min_size=1, max_size=25, unique=True),
    st.sampled_from([0.0, 0.1, 0.2, 0.34, 0.5]),
)
@settings(max_examples=150)
def test_kept_are_those_of_brute_force(texts, near):
    copies = find_copies(texts, near)
    kept = np.flatnonzero(copies.of == np.arange(len(texts)))
    assert kept.tolist() == _brute_force(texts, near)
    for i, j in enumerate(copies.of):
        distance = DamerauLevenshtein.distance(texts[i], texts[j])
        assert distance == copies.distance[i]
        assert copies.of[j] == j
        assert distance <= int(max(len(texts[i]), len(texts[j])) * near + 1e-9)
        if i != j:  # the first that it is near
            most = [int(max(len(texts[i]), len(texts[n])) * near + 1e-9) for n in kept]
            edits = [DamerauLevenshtein.distance(texts[i], texts[n]) for n in kept]
            assert j == next(n for n, e, m in zip(kept, edits, most, strict=True) if e <= m)


_EDITS = st.tuples(st.sampled_from("idsxw"), st.integers(0, 40), st.sampled_from("abé𝄞"))


def _edit(text, edits):
    """Characters inserted, deleted, substituted, swapped, and swapped over one that goes."""
    text = list(text)
    for kind, place, char in edits:
        i = place % (len(text) + 1)
        if kind == "i":
            text.insert(i, char)
        elif kind == "d":
            del text[i : i + 1]
        elif kind == "s":
            text[i : i + 1] = [char] * (i < len(text))
        elif kind == "x":
            text[i : i + 2] = text[i : i + 2][::-1]
        else:
            text[i : i + 3] = text[i : i + 3][2:] + text[i : i + 3][:1]
    return "".join(text)


@given(
    st.lists(
        st.tuples(
            st.text("abcé𝄞", max_size=25), st.lists(_EDITS, max_size=6), st.integers(0, 9)
        ),
        min_size=1, max_size=20,
    ),
    st.sampled_from([3, 4_096]),
)  # fmt: skip
@settings(max_examples=200)
def test_the_band_has_the_distance(drawn, batch):
    pairs = [(text, _edit(text, edits), most) for text, edits, most in drawn]
    pairs = [pair for pair in pairs if LCSseq.distance(*pair[:2]) <= pair[2]]
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    most = np.array([pair[2] for pair in pairs], int)
    common = np.array([LCSseq.similarity(*pair[:2]) for pair in pairs], int)
    lengths, others = (np.array([len(text) for text in some], int) for some in (first, second))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("labels.swaps._BATCH", batch)
        found = are_within(first, second, most, most - others + common, most - lengths + common)
    assert found.tolist() == [DamerauLevenshtein.distance(a, b) <= k for a, b, k in pairs]


@pytest.mark.parametrize("few_pairs", [1, 256])
@pytest.mark.parametrize("near", [0.05, 0.12, 0.25])
def test_kept_are_those_of_brute_force_over_blocks(near, few_pairs):
    random = np.random.default_rng(5)
    words = ["alpha", "beta", "gamma", "delta", "omega", "lambda", "kappa", "sigma"]
    texts = {}
    for _ in range(900):
        line = ["the", "payment", "of", "was", "declined", "at", "terminal", "yesterday"]
        for place in random.choice(8, 2, replace=False):
            line[place] = words[random.integers(8)]
        text = list(" ".join(line))
        for _ in range(random.integers(3)):  # swaps, of neighbours and over one
            i = random.integers(len(text) - 2)
            j = i + random.integers(1, 3)
            text[i], text[j] = text[j], text[i]
        texts["".join(text)] = None
    texts = list(texts)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("near._FEW", "near._ROWS", "near._COLUMNS"):
            patched.setattr(f"labels.{name}", 16)  # many tiles
        patched.setattr("labels.near._FEW_PAIRS", few_pairs)
        patched.setattr("labels.overlap._LEVELS", 100)
        copies = find_copies(texts, near)
    kept = np.flatnonzero(copies.of == np.arange(len(texts)))
    assert kept.tolist() == _brute_force(texts, near)
    assert 1 < len(kept) < len(texts)


def test_edits_are_a_share_of_the_longer_text():
    assert edits_allowed(np.array([10, 19, 20]), np.array([20, 3, 39]), 0.05).tolist() == [1, 0, 1]
    assert edits_allowed(np.array([100]), np.array([100]), 0.29).tolist() == [29]  # not 28.99…


def test_the_most_typical_is_kept_and_classes_are_apart():
    texts = pa.chunked_array(
        [["reset my pin", "reset my pim", "reset my pin", "reset my pin!", "x"]]
    )
    classes = np.array([0, 0, 0, 1, -1], np.int32)
    of, distance = find_duplicates(texts, classes, np.array([0.1, 0.9, 0.1, 0.5, 0.5]), 0.1)
    assert of.tolist() == [-1, 0, 0, -1, -1]  # two documents say "pin", if less like the mean
    assert distance.tolist() == [0, 1, 0, 0, 0]
    alone = np.array([0, 0, -1, -1, -1], np.int32)
    of, _ = find_duplicates(texts, alone, np.array([0.1, 0.9, 0.1, 0.5, 0.5]), 0.1)
    assert of.tolist() == [1, -1, -1, -1, -1]


def test_no_near_copies_where_none_are_asked_for():
    texts = pa.chunked_array([["one", "onE", "one"]])
    of, _ = find_duplicates(texts, np.zeros(3, np.int32), np.zeros(3, np.float32), 0.0)
    assert of.tolist() == [-1, -1, 0]
