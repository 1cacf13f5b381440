"""The newest documents test and validate, the others train: by time, and by hash where it is equal.

So the figures are those to expect of texts to come. A text that comes again later may stand on two
sides, as it will in life, and a class that is new in the newest part is never learned: both are
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfdata.sketch import changes
from tfdata.split import TEST, TRAIN, VALID, SplitCounts, count_texts
from tfdata.split_log import TIMED_ROW, SplitLog

_Place = tuple[int, int]
"""Among all documents: the time in the order of uint64, then the text's hash."""
_NOWHERE: _Place = (2**64 - 1, 2**64 - 1)


@dataclass(frozen=True)
class TimeSplit:
    """The finished rule: from which place on documents validate, and from which they test."""

    valid_from: _Place
    test_from: _Place

    def parts(
        self,
        hashes: np.ndarray,
        codes: np.ndarray,
        sources: np.ndarray,
        times: np.ndarray | None = None,
    ) -> np.ndarray:
        """The part uint8[n] of each row: times float64[n]; those without one (NaN) train."""
        assert times is not None
        keys = _order_keys(times)
        parts = np.zeros(len(hashes), np.uint8)
        for part, (key, text) in ((VALID, self.valid_from), (TEST, self.test_from)):
            later = (keys > np.uint64(key)) | ((keys == key) & (hashes >= np.uint64(text)))
            parts[later & ~np.isnan(times)] = part
        return np.where(sources > 0, sources, parts).astype(np.uint8)


class TimeSplitBuilder:
    """Sees every document once through `add`, then `build` gives the rule."""

    def __init__(self, folder: Path, *, valid: float, test: float):
        self._shares = valid, test
        self._log = SplitLog(folder, TIMED_ROW)
        self.num_timed = 0
        """Rows with a time so far, of those that are to be split."""

    def add(
        self,
        hashes: np.ndarray,
        codes: np.ndarray,
        source: int = TRAIN,
        times: np.ndarray | None = None,
    ) -> None:
        """Takes in text hashes uint64[n], class codes int32[n] and times float64[n] of a source."""
        if times is None:
            times = np.full(len(hashes), np.nan)
        self.num_timed += int((~np.isnan(times)).sum()) if source == TRAIN else 0
        self._log.add(hash=hashes, code=codes, source=source, time=times)

    def build(self, num_classes: int) -> tuple[TimeSplit, SplitCounts]:
        """The rule, and what became of the documents under it."""
        valid, test = self._shares
        num_test = round(self.num_timed * test)
        num_held = num_test + round(self.num_timed * valid)
        split = TimeSplit(self._find_place(num_held), self._find_place(num_test))
        counts = SplitCounts(np.zeros((num_classes, 3), np.int64))
        without = recurring = 0
        for rows in self._log.read():
            if not len(rows):
                continue
            count_texts(rows, counts)
            parts = split.parts(rows["hash"], rows["code"], rows["source"], rows["time"])
            cells = np.bincount(
                rows["code"].astype(np.int64) * 3 + parts, minlength=3 * num_classes
            )
            counts.part_docs += cells.reshape(num_classes, 3)
            starts = np.flatnonzero(changes(rows["hash"]))
            least, most = (f.reduceat(parts, starts) for f in (np.minimum, np.maximum))
            recurring += int(((least == TRAIN) & (most > TRAIN)).sum())
            without += int(((rows["source"] == TRAIN) & np.isnan(rows["time"])).sum())
        counts.by = {"texts_that_recur": recurring, "without_time": without}
        return split, counts

    def _find_place(self, count: int) -> _Place:
        """Where the `count` newest documents begin."""
        if not count:
            return _NOWHERE

        def times(equal_to: int | None = None) -> Iterable[np.ndarray]:
            for rows in self._log.read():
                rows = rows[(rows["source"] == TRAIN) & ~np.isnan(rows["time"])]
                keys = _order_keys(rows["time"])
                yield keys if equal_to is None else rows["hash"][keys == equal_to]

        key, count = find_largest(times, count)
        text, _ = find_largest(lambda: times(equal_to=key), count)
        return key, text


def _order_keys(times: np.ndarray) -> np.ndarray:
    """float64[n] → uint64[n] of the same order, NaN aside."""
    bits = (times + 0.0).view(np.uint64)  # -0.0 is 0.0
    return np.where(bits >> np.uint64(63), ~bits, bits | np.uint64(1 << 63))


def find_largest(read: Callable[[], Iterable[np.ndarray]], count: int) -> tuple[int, int]:
    """The `count`-th largest of uint64 values, in memory that does not grow with them.

    Also which of the values equal to it this is, from 1. `read` gives all values, at every call.

    >>> find_largest(lambda: [np.array([5, 9], np.uint64), np.array([7, 7], np.uint64)], 3)
    (7, 2)
    """
    prefix = 0
    for shift in (48, 32, 16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for values in read():
            top = values >> np.uint64(shift)
            if shift < 48:
                top = top[top >> np.uint64(16) == prefix]
            counts += np.bincount((top & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16)
        above = np.cumsum(counts[::-1])
        step = int(np.searchsorted(above, count))
        count -= int(above[step - 1]) if step else 0
        prefix = prefix << 16 | (0xFFFF - step)
    return prefix, count
