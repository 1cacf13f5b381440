"""Near copies among texts by Damerau-Levenshtein distance, exactly.

The distance counts insertions, deletions, substitutions and swaps of two characters, between which
others may be inserted or deleted (the unrestricted distance, of Lowrance & Wagner 1975). That takes
rapidfuzz some 100 us for two texts of 250 characters, so bounds that take less go before it; each
is lossless. With d the distance, of texts of lengths m and n:

    |m - n| <= d                  an edit changes the length by one at most
    bag / 2 <= d                  and the counts of two characters (labels.bags)
    d <= Levenshtein <= 2 d       a swap is two edits there
    max(m, n) - LCS <= d          see below
    d <= OSA <= 1.5 d             OSA: swaps of neighbours that nothing comes between

Of OSA: a swap with u characters deleted or inserted between costs u + 1 >= 2, and without it the
same takes u + 2, so OSA pays at most half as much again. Of the longest common subsequence: what
is kept and one character of each swap is one, and m - kept - 2 swaps characters are deleted or
substituted, at one each; with the swaps themselves that makes d >= m - kept - swaps >= m - LCS.
Legend: B texts of a block, K texts kept, n pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from labels.bags import bag_distances, count_characters

_BLOCK = 512
_MOST_PAIRS = 2**20
_FIRST_TRIES = 4
_THREADS = 2


class Copies(NamedTuple):
    """Of each text, the one that is kept in its place."""

    of: np.ndarray
    """int64[n]: itself, where it is kept."""
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
        self._bags = count_characters(texts)
        self._of = np.arange(len(texts))
        self._distance = np.zeros(len(texts), np.int32)

    def run(self) -> Copies:
        kept = np.empty(0, np.int64)
        for start in range(0, len(self._texts), _BLOCK):
            block = np.arange(start, min(start + _BLOCK, len(self._texts)))
            left = self._match(block, kept) if len(kept) else block
            kept = np.append(kept, self._match_within(left))
        return Copies(self._of, self._distance)

    def _match(self, block: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Finds copies of kept texts in a block; gives the texts that are none.

        The few kept texts with the nearest bags are tried first: mostly one of them is near, and
        the others need not be looked at.
        """
        could_be, bags = self._could_be(block, kept)
        bags[~could_be] = np.inf
        tries = min(_FIRST_TRIES, len(kept))
        nearest = np.argpartition(bags, tries - 1, axis=1)[:, :tries]
        rows, columns = np.repeat(np.arange(len(block)), tries), nearest.ravel()
        tried = could_be[rows, columns]
        self._note(block[rows[tried]], kept[columns[tried]])
        left = self._of[block] == block
        could_be[~left] = False
        could_be[rows, columns] = False
        rows, columns = np.nonzero(could_be)
        for first in range(0, len(rows), _MOST_PAIRS):
            part = slice(first, first + _MOST_PAIRS)
            pairs = block[rows[part]], kept[columns[part]]
            open_ = self._of[pairs[0]] == pairs[0]
            self._note(pairs[0][open_], pairs[1][open_])
        return block[self._of[block] == block]

    def _match_within(self, block: np.ndarray) -> np.ndarray:
        """The same among the texts of a block; gives those that are kept."""
        could_be, _ = self._could_be(block, block)
        rows, columns = np.nonzero(np.tril(could_be, -1))
        distances = self._measure(block[rows], block[columns])
        near = distances >= 0
        kept = np.ones(len(block), bool)
        for row, column, edits in zip(rows[near], columns[near], distances[near], strict=True):
            if kept[row] and kept[column]:  # sorted by row: those before it are settled
                kept[row] = False
                self._of[block[row]], self._distance[block[row]] = block[column], edits
        return block[kept]

    def _could_be(self, rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By lengths and bags: bool[B, K], and the bags' distances float64[B, K]."""
        lengths, other_lengths = self._lengths[rows, np.newaxis], self._lengths[others]
        most = edits_allowed(lengths, other_lengths, self._near)
        bags = bag_distances(self._bags[rows], self._bags[others])
        return (bags <= 2 * most) & (np.abs(lengths - other_lengths) <= most), bags

    def _note(self, rows: np.ndarray, others: np.ndarray) -> None:
        """Notes, of each row, the first of its pairs that are near copies."""
        distances = self._measure(rows, others)
        near = np.flatnonzero(distances >= 0)
        found, first = np.unique(rows[near], return_index=True)
        self._of[found] = others[near[first]]
        self._distance[found] = distances[near[first]]

    def _measure(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """int32[n]: the distance of each pair where it is allowed, else -1."""
        from rapidfuzz.distance import OSA, DamerauLevenshtein, LCSseq, Levenshtein

        result = np.full(len(rows), -1, np.int32)
        if not len(rows):
            return result
        lengths = np.maximum(self._lengths[rows], self._lengths[others])
        most = edits_allowed(self._lengths[rows], self._lengths[others], self._near)
        open_ = np.arange(len(rows))

        def measure(scorer, pairs: np.ndarray, cutoff: int | None = None) -> np.ndarray:
            return _measure_all(scorer, self._texts, rows[pairs], others[pairs], cutoff)

        edits = measure(Levenshtein.distance, open_, int(2 * most.max()))
        close = edits <= most
        open_ = open_[(edits <= 2 * most) & ~close]
        common = measure(LCSseq.similarity, open_)
        open_ = open_[lengths[open_] - common <= most[open_]]
        edits = measure(OSA.distance, open_)
        close[open_[edits <= most[open_]]] = True
        open_ = open_[(edits > most[open_]) & (edits <= most[open_] + most[open_] // 2)]
        exact = np.concatenate([np.flatnonzero(close), open_])
        edits = measure(DamerauLevenshtein.distance, exact)
        near = edits <= most[exact]
        result[exact[near]] = edits[near]
        return result


def _measure_all(
    scorer, texts: Sequence[str], rows: np.ndarray, others: np.ndarray, cutoff: int | None
) -> np.ndarray:
    """int32[n]: what a scorer of rapidfuzz gives for each pair."""
    from rapidfuzz import process

    if not len(rows):
        return np.empty(0, np.int32)
    first = [texts[i] for i in rows.tolist()]
    second = [texts[i] for i in others.tolist()]
    return process.cpdist(
        first, second, scorer=scorer, score_cutoff=cutoff, dtype=np.int32, workers=_THREADS
    )
