"""The split: every promise as a property, against counts made with plain Python."""

from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdata.sketch import HashSketch
from tfdata.split import HASH_SPACE, SplitBuilder, hash_texts

TRAIN, VALID, TEST = range(3)


def split(rows, valid=0.1, test=0.0, size=4, chunk=7, sources=None):
    """The parts of (text number, class code) rows, and what the builder counted."""
    numbers, codes = (np.array(column) for column in zip(*rows, strict=True))
    hashes = _spread(numbers)
    codes = codes.astype(np.int32)
    sources = np.zeros(len(rows), np.uint8) if sources is None else np.array(sources, np.uint8)
    with TemporaryDirectory() as folder:
        builder = SplitBuilder(Path(folder), valid=valid, test=test, sketch_size=size)
        for source in range(3):
            mine = np.flatnonzero(sources == source)
            for start in range(0, len(mine), chunk):
                some = mine[start : start + chunk]
                builder.add(hashes[some], codes[some], source)
        rule, counts = builder.build(int(codes.max()) + 1)
    return rule.parts(hashes, codes, sources), counts


def _spread(numbers):
    """A hash of small numbers that is spread over the hash space."""
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return (mixed * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(2)


def by_class(rows, parts):
    tables = defaultdict(lambda: [0, 0, 0])
    for (_, code), part in zip(rows, parts, strict=True):
        tables[code][part] += 1
    return tables


# few texts: classes share texts and repeat them; many: sketches overflow
corpora = st.integers(1, 5).flatmap(
    lambda classes: st.sampled_from([4, 30, 2000]).flatmap(
        lambda texts: st.lists(
            st.tuples(st.integers(0, texts), st.integers(0, classes - 1)),
            min_size=1,
            max_size=300,
        )
    )
)
shares = st.sampled_from([(0.1, 0.0), (0.1, 0.1), (0.5, 0.0), (0.3, 0.6), (0.0, 0.2)])
sizes = st.sampled_from([1, 4, 1024])


@settings(max_examples=300, deadline=None)
@given(corpora, shares, sizes)
def test_promises(rows, shares, size):
    parts, counts = split(rows, *shares, size=size)
    sides = defaultdict(set)
    labels = defaultdict(set)
    for (text, code), part in zip(rows, parts, strict=True):
        sides[text].add(part)
        labels[text].add(code)
    assert all(len(side) == 1 for side in sides.values()), "a text stands on two sides"

    tables = by_class(rows, parts)
    for code, table in tables.items():
        assert table[TRAIN] >= 1, "a class does not train"
        own = {text for text, some in labels.items() if some == {code}}
        if shares[0] > 0 and sum(table) >= 3 and len(own) >= 2:
            assert table[VALID] >= 1, "a class that could validate does not"
        assert counts.part_docs[code].tolist() == table
        texts = {text for text, other in rows if other == code}
        assert (code in counts.one_text_codes) == (len(texts) == 1 and sum(table) > 1)
    if shares[0] == 0:
        assert not (parts == VALID).any()
    if shares[1] == 0:
        assert not (parts == TEST).any()
    assert counts.duplicates == sum(n - 1 for n in Counter(rows).values())
    assert counts.texts_with_several_labels == sum(len(some) > 1 for some in labels.values())
    assert counts.texts_on_both_sides == 0


@settings(max_examples=100, deadline=None)
@given(corpora, shares, sizes, st.randoms(use_true_random=False))
def test_order_does_not_matter(rows, shares, size, random):
    parts, counts = split(rows, *shares, size=size)
    order = list(range(len(rows)))
    random.shuffle(order)
    again, others = split([rows[i] for i in order], *shares, size=size, chunk=31)
    assert again.tolist() == parts[order].tolist()
    assert str(others) == str(counts)


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_shares_are_exact_where_texts_differ(share):
    sizes = [1, 2, 3, 4, 9, 10, 11, 100, 1000]
    rows = [(sum(sizes[:c]) + i, c) for c, size in enumerate(sizes) for i in range(size)]
    parts, _ = split(rows, valid=share, test=share, size=1024)
    for code, table in by_class(rows, parts).items():
        size = sizes[code]
        wanted = max(int(size * share + 0.5), size >= 3)
        assert table[VALID] == (wanted if size >= 2 else 0), (size, table)
        assert table[TEST] <= int(size * share + 0.5)
        if size >= 9:
            assert table[TEST] == int(size * share + 0.5)


def test_shares_are_near_beyond_the_sketch():
    rows = [(i, 0) for i in range(20_000)]
    parts, _ = split(rows, valid=0.1, test=0.05, size=64, chunk=5000)
    # five standard deviations of 20,000 draws
    assert abs(np.mean(parts == VALID) - 0.1) < 5 * (0.1 * 0.9 / 20_000) ** 0.5
    assert abs(np.mean(parts == TEST) - 0.05) < 5 * (0.05 * 0.95 / 20_000) ** 0.5


@pytest.mark.parametrize("size", [4, 1024])
def test_a_text_that_fills_its_class_trains(size):
    for favourite in range(40):  # wherever its hash lies
        rows = [(favourite, 0)] * 900 + [(i, 0) for i in range(40) if i != favourite]
        parts, _ = split(rows, size=size)
        assert set(parts[:900]) == {TRAIN}
        assert (parts == VALID).any()


def test_one_text_stays_in_training_and_is_named():
    parts, counts = split([(1, 0)] * 50 + [(2, 1), (3, 1), (4, 1)])
    assert set(parts[:50]) == {TRAIN}
    assert counts.one_text_codes == [0]
    assert sorted(parts[50:]) == [TRAIN, TRAIN, VALID]


def test_rows_of_named_files_stay_and_shared_texts_are_counted():
    rows = [(i, 0) for i in range(50)] + [(7, 0), (90, 1)] + [(8, 0), (91, 0)]
    sources = [TRAIN] * 50 + [VALID] * 2 + [TEST] * 2
    parts, counts = split(rows, valid=0.0, test=0.0, sources=sources)
    assert parts.tolist() == sources
    assert counts.texts_on_both_sides == 2
    assert counts.part_docs.tolist() == [[50, 1, 2], [0, 1, 0]]


@settings(max_examples=100, deadline=None)
@given(corpora, st.integers(1, 6))
def test_sketch_holds_the_smallest_with_their_counts(rows, size):
    codes = np.array([code for _, code in rows], np.int32)
    hashes = _spread(np.array([text for text, _ in rows]))
    sketch = HashSketch(size)
    for start in range(0, len(rows), 11):
        sketch.add(codes[start : start + 11], hashes[start : start + 11])
        if start % 3 == 0:
            sketch.classes(5)  # compacts, and so raises the bar early
    for code, texts in enumerate(sketch.classes(5)):
        expected = Counter(hashes[codes == code].tolist())
        smallest = sorted(expected)[:size]
        assert texts.hashes.tolist() == smallest
        assert texts.times.tolist() == [expected[h] for h in smallest]
        assert texts.complete == (len(expected) <= size)
        assert texts.num_docs == sum(expected.values())
        assert texts.highest == max(expected, default=0)


def test_hashes_hang_on_the_whole_text_and_the_seed():
    texts = pa.array(["a", "a\0", "a\0b", "", "é", "e\u0301", "a"])
    hashes = hash_texts(texts, 0)
    assert hashes[0] == hashes[6]
    assert len(set(hashes.tolist())) == 6
    assert (hashes < HASH_SPACE).all()
    assert not set(hashes.tolist()) & set(hash_texts(texts, 1).tolist())
    many = hash_texts(pa.array([str(i) for i in range(20_000)]), 3)
    spread = np.bincount((many // np.uint64(HASH_SPACE // 20)).astype(int), minlength=20)
    assert abs(spread - 1000).max() < 5 * 1000**0.5
