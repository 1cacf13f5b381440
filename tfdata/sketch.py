"""What is kept of each class in memory while documents stream by: its smallest text hashes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

_NO_CUT = np.uint64(2**64 - 1)
_COMPACT_ROWS = 1 << 20


@dataclass(frozen=True)
class ClassTexts:
    """The smallest distinct text hashes of one class.

    `hashes` uint64[d] ascending, `times` int64[d] documents of each; `complete`: there are no
    others. `num_docs` and `highest` are of all its documents.
    """

    hashes: np.ndarray
    times: np.ndarray
    complete: bool
    num_docs: int
    highest: int


class HashSketch:
    """For each class the `size` smallest distinct hashes with their exact multiplicities.

    A hash above a class's cut is refused. The cut only falls, so no hash that belongs to the
    final sketch was ever refused, and what the sketch holds does not depend on the order of rows.
    """

    def __init__(self, size: int = 1024):
        self._size = size
        self._codes, self._hashes, self._times = _empty()
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._pending_rows = 0
        self._cut = np.empty(0, np.uint64)
        self._highest = np.empty(0, np.uint64)
        self._evicted = np.empty(0, bool)
        self._num_docs = np.empty(0, np.int64)

    def add(self, codes: np.ndarray, hashes: np.ndarray) -> None:
        """Takes rows in: class codes int32[n] and text hashes uint64[n]."""
        if not len(codes):
            return
        self._grow(int(codes.max()) + 1)
        self._num_docs += np.bincount(codes, minlength=len(self._num_docs))
        np.maximum.at(self._highest, codes, hashes)
        kept = hashes <= self._cut[codes]
        self._evicted[codes[~kept]] = True
        codes, hashes = codes[kept], hashes[kept]
        self._pending.append((codes, hashes, np.ones(len(codes), np.int64)))
        self._pending_rows += len(codes)
        if self._pending_rows >= max(_COMPACT_ROWS, len(self._codes)):
            self._compact()

    def classes(self, num_classes: int) -> list[ClassTexts]:
        """The sketch of each class 0 … num_classes - 1."""
        self._grow(num_classes)
        self._compact()
        bounds = np.searchsorted(self._codes, np.arange(num_classes + 1))
        return [
            ClassTexts(
                self._hashes[start:stop],
                self._times[start:stop],
                not self._evicted[code],
                int(self._num_docs[code]),
                int(self._highest[code]),
            )
            for code, (start, stop) in enumerate(itertools.pairwise(bounds))
        ]

    def _grow(self, num_classes: int) -> None:
        more = num_classes - len(self._cut)
        if more > 0:
            self._cut = np.append(self._cut, np.full(more, _NO_CUT))
            self._highest = np.append(self._highest, np.zeros(more, np.uint64))
            self._evicted = np.append(self._evicted, np.zeros(more, bool))
            self._num_docs = np.append(self._num_docs, np.zeros(more, np.int64))

    def _compact(self) -> None:
        pieces = [(self._codes, self._hashes, self._times), *self._pending]
        codes, hashes, times = (np.concatenate(column) for column in zip(*pieces, strict=True))
        self._pending, self._pending_rows = [], 0
        if not len(codes):
            return
        order = np.lexsort((hashes, codes))
        codes, hashes, times = codes[order], hashes[order], times[order]
        starts = np.flatnonzero(changes(codes) | changes(hashes))
        codes, hashes, times = codes[starts], hashes[starts], np.add.reduceat(times, starts)
        firsts = np.flatnonzero(changes(codes))
        rank = np.arange(len(codes)) - np.repeat(firsts, np.diff(firsts, append=len(codes)))
        last = rank == self._size - 1
        self._cut[codes[last]] = hashes[last]
        kept = rank < self._size
        self._evicted[codes[~kept]] = True
        self._codes, self._hashes, self._times = codes[kept], hashes[kept], times[kept]


def changes(values: np.ndarray) -> np.ndarray:
    """bool[n]: where a value differs from the one before; the first always does.

    >>> changes(np.array([3, 3, 5])).tolist()
    [True, False, True]
    """
    return np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]])


def _empty() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(0, np.int32), np.empty(0, np.uint64), np.empty(0, np.int64)
