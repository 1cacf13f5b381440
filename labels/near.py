"""Near copies among texts by Damerau-Levenshtein distance, exactly.

The distance is the least number of edits, one after the other, that make one text of another: a
character inserted, deleted or substituted, or two neighbours swapped (the unrestricted distance, of
Lowrance & Wagner 1975). That takes rapidfuzz some 250 us for two texts of 400 characters, so bounds
that take less go before it; each is lossless. With d the distance, of texts of lengths m and n:

    |m - n| <= d                         an edit changes the length by one at most
    max(m, n) - 1 - neighbours <= 2 d    neighbours: the unordered two neighbouring characters that
                                         both have (labels.overlap); an edit takes away two at most
    max(m, n) - LCS <= d                 see below
    d <= OSA <= 1.5 d                    OSA: swaps of neighbours that nothing comes between
    (OSA + Indel) / 3 <= d               Indel: insertions and deletions alone

Of OSA: a swap with u characters deleted or inserted between costs u + 1 >= 2, and without it the
same takes u + 2, so OSA pays at most half as much again. Of the longest common subsequence: what
is kept and one character of each swap is one, and m - kept - 2 swaps characters are deleted or
substituted, at one each; with the swaps themselves that makes d >= m - kept - swaps >= m - LCS, and
more by the characters inserted; likewise d >= n - LCS and those deleted. Each swap that OSA does
not know has one of these at least: Indel = m + n - 2 LCS <= 2 d - such swaps, and OSA <= d + such
swaps. With few inserted or deleted, labels.swaps measures the distance itself.
Legend: B texts, K texts kept, n pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from labels.overlap import Overlap
from labels.swaps import are_within

_FEW = 32
_ROWS, _COLUMNS = 1_024, 8_192
"""Texts that are compared with kept ones at a time: the memory of a step."""
_MOST_PAIRS = 2**19
_FEW_PAIRS = 256
_THREADS = 2


class Copies(NamedTuple):
    """Of each text, the one that is kept in its place."""

    of: np.ndarray
    """int64[n]: itself, where it is kept; else the first kept text that it is near."""
    distance: np.ndarray
    """int32[n]: edits between the two."""


def edits_allowed(lengths: np.ndarray, others: np.ndarray, near: float) -> np.ndarray:
    """int64: most edits between near copies, a share of the longer text, rounded down."""
    return np.floor(np.maximum(lengths, others) * near + 1e-9).astype(np.int64)


def find_copies(texts: Sequence[str], near: float) -> Copies:
    """Goes through different texts in their order; each is kept unless it is near a kept one.

    So no two of the kept are near copies, and what is removed is near one that is kept.
    """
    return _Finder(texts, near).run()


class _Finder:
    def __init__(self, texts: Sequence[str], near: float):
        self._texts, self._near = texts, near
        self._lengths = np.array([len(text) for text in texts], np.int64)
        self._overlap = Overlap(texts, 2)
        longest = np.arange(int(self._lengths.max(initial=0)) + 1)
        most = edits_allowed(longest, longest, near)
        self._least_common = (longest - 1 - 2 * most).astype(np.float32)
        self._of = np.arange(len(texts))

    def run(self) -> Copies:
        self._keep(np.arange(len(self._texts)))
        distance = np.zeros(len(self._texts), np.int32)
        moved = np.flatnonzero(self._of != np.arange(len(self._of)))
        for start in range(0, len(moved), _MOST_PAIRS):
            part = moved[start : start + _MOST_PAIRS]
            distance[part] = self._measure("DamerauLevenshtein", part, self._of[part])
        return Copies(self._of, distance)

    def _keep(self, rows: np.ndarray) -> np.ndarray:
        """Of texts in their order, those that are kept, the others noted: by halves."""
        if len(rows) <= _FEW:
            return self._keep_of_few(rows)
        kept = self._keep(rows[: len(rows) // 2])
        left = self._match(rows[len(rows) // 2 :], kept)
        return np.concatenate([kept, self._keep(left)])

    def _match(self, rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Notes the copies of kept texts; gives the texts that are none."""
        for first in range(0, len(kept), _COLUMNS):
            columns = kept[first : first + _COLUMNS]
            for start in range(0, len(rows), _ROWS):
                block = rows[start : start + _ROWS]
                places, others = np.nonzero(self._could_be(block, columns))
                self._note(block[places], columns[others])
            rows = rows[self._of[rows] == rows]
        return rows

    def _note(self, rows: np.ndarray, others: np.ndarray) -> None:
        """Notes, of each row, the first of its pairs that are near copies."""
        for start in range(0, len(rows), _MOST_PAIRS):
            row, other = rows[start : start + _MOST_PAIRS], others[start : start + _MOST_PAIRS]
            open_ = self._of[row] == row
            row, other = row[open_], other[open_]
            near = self._are_near(row, other)
            found, first = np.unique(row[near], return_index=True)
            self._of[found] = other[near][first]

    def _keep_of_few(self, rows: np.ndarray) -> np.ndarray:
        places, others = np.nonzero(np.tril(self._could_be(rows, rows), -1))
        near = self._are_near(rows[places], rows[others])
        kept = np.ones(len(rows), bool)
        for place, other in zip(places[near].tolist(), others[near].tolist(), strict=True):
            if kept[place] and kept[other]:  # sorted by place: those before it are settled
                kept[place] = False
                self._of[rows[place]] = rows[other]
        return rows[kept]

    def _could_be(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """By the neighbouring characters in common: bool[B, K]."""
        longer = np.maximum(self._lengths[rows, np.newaxis], self._lengths[others])
        return self._overlap.most(rows, others) >= self._least_common[longer]

    def _are_near(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """bool[n]: whether the distance of each pair is allowed."""
        most = edits_allowed(self._lengths[rows], self._lengths[others], self._near)
        top = int(most.max(initial=0))
        near = np.zeros(len(rows), bool)
        open_ = np.flatnonzero(np.abs(self._lengths[rows] - self._lengths[others]) <= most)

        def measure(scorer: str, cutoff: int) -> np.ndarray:
            return self._measure(scorer, rows[open_], others[open_], cutoff)

        missing = measure("LCSseq", top)  # longer - LCS
        open_, missing = (part[missing <= most[open_]] for part in (open_, missing))
        edits = measure("OSA", top + top // 2)
        close = edits <= most[open_]
        near[open_[close]] = True
        lengths, other_lengths = self._lengths[rows[open_]], self._lengths[others[open_]]
        common = np.maximum(lengths, other_lengths) - missing
        deleted, inserted = most[open_] - other_lengths + common, most[open_] - lengths + common
        # swaps that OSA does not know: one for each edit above, with a character each at least
        doubtful = ~close & (
            edits <= most[open_] + np.minimum(most[open_] // 2, deleted + inserted)
        )
        open_ = open_[doubtful]
        near[open_] = self._are_within(
            rows[open_], others[open_], most[open_], deleted[doubtful], inserted[doubtful]
        )
        return near

    def _are_within(self, rows, others, most, deleted, inserted) -> np.ndarray:
        """bool[n]: by the distance itself."""
        if len(rows) < _FEW_PAIRS:
            return self._measure("DamerauLevenshtein", rows, others) <= most
        return are_within(self._pick(rows), self._pick(others), most, deleted, inserted)

    def _pick(self, rows: np.ndarray) -> list[str]:
        places: list[int] = rows.tolist()
        return [self._texts[i] for i in places]

    def _measure(
        self, scorer: str, rows: np.ndarray, others: np.ndarray, cutoff: int | None = None
    ) -> np.ndarray:
        """int32[n]: the distance of each pair by a measure of rapidfuzz; above a cutoff, more."""
        from rapidfuzz import distance, process

        if not len(rows):
            return np.empty(0, np.int32)
        return process.cpdist(
            self._pick(rows), self._pick(others),
            scorer=getattr(distance, scorer).distance, score_cutoff=cutoff, dtype=np.int32,
            workers=_THREADS if len(rows) > _FEW_PAIRS else 1,
        )  # fmt: skip
