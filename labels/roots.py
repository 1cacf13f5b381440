"""Groups that are joined two by two (union-find)."""

from __future__ import annotations

import numpy as np


class Roots:
    """Each group has the least of its numbers for its root.

    >>> roots = Roots(4)
    >>> roots.join(3, 1)
    >>> roots.of(np.arange(4)).tolist()
    [0, 1, 2, 1]
    """

    def __init__(self, num: int):
        self._parents = np.arange(num)

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """int64[n]: their roots."""
        while True:
            above = self._parents[numbers]
            if np.array_equal(above, numbers):
                return numbers
            self._parents[numbers] = self._parents[above]  # half as long a way the next time
            numbers = above

    def one(self, number: int) -> int:
        """Its root; the way there is shorter afterwards."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return int(number)

    def join(self, first: int, second: int) -> None:
        low, high = sorted((self.one(first), self.one(second)))
        self._parents[high] = low
