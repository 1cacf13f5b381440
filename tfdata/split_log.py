"""What is known of every document while the split is settled, on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

HASH_SPACE = 2**62
"""Hashes of texts are below it."""
ROW = np.dtype([("hash", "<u8"), ("code", "<i4"), ("source", "u1")])
TIMED_ROW = np.dtype([*ROW.descr, ("time", "<f8")])
_FILES = 64
_PENDING_ROWS = 1 << 20


class SplitLog:
    """Takes rows of ROW or TIMED_ROW; gives them a 64th at a time, equal texts in the same."""

    def __init__(self, folder: Path, kind: np.dtype = ROW):
        self._folder, self._kind = folder, kind
        self._pending: list[np.ndarray] = []

    def add(self, **columns: np.ndarray | int) -> None:
        """Takes in the columns of n rows: arrays, at least `hash`, or one value for all."""
        rows = np.empty(len(np.atleast_1d(columns["hash"])), self._kind)
        for name, values in columns.items():
            rows[name] = values
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= _PENDING_ROWS:
            self._flush()

    def read(self) -> Iterator[np.ndarray]:
        """All rows, sorted by hash and code within what comes at a time; again at every call."""
        self._flush()
        for i in range(_FILES):
            rows = np.fromfile(self._path(i), self._kind)
            yield rows[np.lexsort((rows["code"], rows["hash"]))]

    def _flush(self) -> None:
        rows = np.concatenate([*self._pending, np.empty(0, self._kind)])
        self._pending = []
        file_of_row = rows["hash"] // np.uint64(HASH_SPACE // _FILES)
        rows = rows[np.argsort(file_of_row, kind="stable")]
        bounds = np.searchsorted(np.sort(file_of_row), np.arange(_FILES + 1))
        for i in range(_FILES):
            with open(self._path(i), "ab") as file:
                file.write(rows[bounds[i] : bounds[i + 1]].tobytes())

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:02d}.log"
