"""How labels hang on the place in the file, counted while documents stream by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_MOST_BLOCKS, _FIRST_ROWS = 64, 64


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far the labels hang on the place in the file."""

    distance: float
    """Mean total variation between a part of the file and the whole: 0 alike, 1 disjoint."""
    shuffled: float
    """The same after a shuffle."""
    spread: float = 0.0
    """Standard deviation of `shuffled` over shuffles."""
    classes: int
    runs: int
    """Stretches of rows of one label."""
    runs_shuffled: float
    """The same after a shuffle, on average."""

    @property
    def kind(self) -> str | None:
        """sorted: a run or two a class; clumped: long runs; drifting; None: as if shuffled."""
        if self.distance > self.shuffled + max(0.05, 5 * self.spread):
            if self.runs <= 2 * self.classes and self.runs < 0.5 * self.runs_shuffled:
                return "sorted"
            return "clumped" if self.runs < 0.5 * self.runs_shuffled else "drifting"
        return "clumped" if self.runs < 0.5 * self.runs_shuffled else None


class LabelOrder:
    """Takes the class codes of all rows in their order.

    It keeps the labels of 64 stretches of the file at most, whatever its length.
    """

    def __init__(self) -> None:
        self._runs, self._last = 0, -1
        self._blocks: list[np.ndarray] = []
        self._block_rows, self._room = _FIRST_ROWS, 0

    def add(self, codes: np.ndarray) -> None:
        """Takes in int32[n]; the batches that they come in make no difference."""
        if not len(codes):
            return
        self._runs += int((codes[1:] != codes[:-1]).sum()) + int(codes[0] != self._last)
        self._last = int(codes[-1])
        while len(codes):
            if not self._room:
                self._open_block()
            some, codes = codes[: self._room], codes[self._room :]
            self._room -= len(some)
            counts = np.bincount(some, minlength=len(self._blocks[-1]))
            counts[: len(self._blocks[-1])] += self._blocks[-1]
            self._blocks[-1] = counts

    def _open_block(self) -> None:
        if len(self._blocks) == _MOST_BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [_sum(one, other) for one, other in pairs]
            self._block_rows *= 2
        self._blocks.append(np.zeros(1, np.int64))
        self._room = self._block_rows

    def measure(self) -> Drift | None:
        """What was seen; None of fewer than two blocks."""
        if len(self._blocks) < 2:
            return None
        total = np.zeros(1, np.int64)
        for block in self._blocks:
            total = _sum(total, block)
        num_rows, shares = int(total.sum()), total / total.sum()
        distance = shuffled = 0.0
        expected: dict[int, float] = {}
        for block in self._blocks:
            size = int(block.sum())
            away = np.abs(_sum(block / size, np.zeros(len(total))) - shares).sum() / 2
            if size not in expected:
                expected[size] = sum(_mean_deviation(size, share) for share in shares) / 2 / size
            distance += away * size / num_rows
            shuffled += expected[size] * size / num_rows
        return Drift(
            distance=float(distance),
            shuffled=float(shuffled),
            classes=int((total > 0).sum()),
            runs=self._runs,
            runs_shuffled=1 + (num_rows - 1) * float(1 - np.square(shares).sum()),
        )


def _sum(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of two arrays, the shorter one filled up with 0."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    longer = longer.copy()
    longer[: len(shorter)] += shorter
    return longer


def _mean_deviation(count: int, share: float) -> float:
    """E|X - count · share| of a binomial X (De Moivre 1730).

    >>> round(_mean_deviation(2, 0.5), 6)  # 0, 1 or 2: off by one half of the time
    0.5
    """
    if not 0 < share < 1:
        return 0.0
    least = math.floor(count * share) + 1
    ways = math.lgamma(count + 1) - math.lgamma(least + 1) - math.lgamma(count - least + 1)
    log = ways + least * math.log(share) + (count - least + 1) * math.log1p(-share)
    return 2 * least * math.exp(log)
