"""Which pairs of words a training gives vectors of their own."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from model import pairs
from model.pairs import find_pairs
from model.words import key_pairs
from tfdata.window import Window, build_window


@dataclasses.dataclass
class Source:
    windows: list[Window]
    num_read: int = 0

    @property
    def num_docs(self):
        return sum(map(len, self.windows))

    def read(self, epoch: int):
        for window in self.windows:
            self.num_read += 1
            yield window


def _make_windows(num_windows=3, num_docs=40, id_type=np.uint16):
    random = np.random.default_rng(0)
    windows = []
    for number in range(num_windows):
        lengths = random.integers(1, 9, num_docs).astype(np.int32)
        ids = random.integers(2, 15, lengths.sum()).astype(id_type)
        piece = (ids, lengths, np.zeros(num_docs, np.int32))
        windows.append(build_window([piece], number * num_docs))
    return windows


def _count(windows):
    """Text by text."""
    counts = Counter()
    for window in windows:
        for first, last in itertools.pairwise(window.offsets):
            ids = window.ids[first:last].tolist()
            counts.update(itertools.pairwise(ids))
    return counts


def _key(pair):
    return int(key_pairs(*np.array(pair, np.int64)))


@pytest.mark.parametrize("id_type", [np.uint16, np.int32])
def test_pairs_that_come_again_are_found_and_no_others(id_type):
    windows = _make_windows(id_type=id_type)
    counts = _count(windows)
    assert min(counts.values()) == 1
    expected = sorted(_key(pair) for pair, count in counts.items() if count >= 2)
    found = find_pairs(Source(windows), 10_000)
    assert found.tolist() == expected
    whole = build_window([(w.ids, w.lengths, w.labels) for w in windows], 0)
    assert find_pairs(Source([whole]), 10_000).tolist() == expected


def test_where_there_is_no_room_the_most_frequent_are_taken():
    windows = _make_windows()
    counts = _count(windows)
    found = find_pairs(Source(windows), 20)
    assert len(found) == 20
    assert (np.diff(found) > 0).all()
    taken = {pair: count for pair, count in counts.items() if _key(pair) in set(found.tolist())}
    others = [count for pair, count in counts.items() if pair not in taken]
    assert min(taken.values()) >= max(others)


def test_texts_of_one_word_have_none():
    ids = np.full(30, 5, np.uint16)
    window = build_window([(ids, np.ones(30, np.int32), np.zeros(30, np.int32))], 0)
    assert not len(find_pairs(Source([window]), 10))


def test_of_many_texts_the_first_are_counted_and_no_more_are_read(monkeypatch):
    windows = _make_windows()
    monkeypatch.setattr(pairs, "_MOST_TOKENS", len(windows[0].ids) + 50)
    source = Source(windows)
    found = find_pairs(source, 10_000)
    assert source.num_read == 2
    first, second = windows[:2]
    last = int(np.searchsorted(second.offsets, 50))
    cut = Window(second.ids[:50], np.append(second.offsets[:last], 50), second.labels[:last])
    assert found.tolist() == find_pairs(Source([first, cut]), 10_000).tolist()
