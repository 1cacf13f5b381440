"""An exact index of codes of length 1: cells around some of them, so that few pairs are compared.

A code is in the cell of the centre that it is nearest to; a cell's radius is the distance of its
farthest. A code at distance d of a centre is no nearer than d - radius to any code of that cell
(triangle inequality), so cells farther than what is sought are left out. Where texts are alike in
groups that is nearly all of them. A code of zeros is as if at right angles to all.
Legend: P points, C numbers of a code, M cells, B and K points of two cells.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_MOST_POINTS = 1_024
"""Of a cell; a larger one is cut: the memory of a comparison."""
_BLOCK = 8_192
_SPARE = 4
"""Nearest points that are looked at beyond those sought, for the order in float32 is not exact."""
_SLACK = 2e-3
"""Of distances in float32, near 0."""
_ROUNDING = 2.0**-21
"""By how much the product of a code of length 1 with itself may be below 1 in float32."""


def to_distances(products: np.ndarray) -> np.ndarray:
    """Euclidean distances float32 of products of codes of length 1; of the same code, 0."""
    return np.sqrt(np.maximum(2 - 2 * (products + _ROUNDING), 0))


def least_product(distance: float) -> float:
    """Of codes of length 1 that are at most so far apart."""
    return 1 - distance**2 / 2 - _ROUNDING


class Cells:
    """Codes float32[P, C] of length 1 by cells."""

    def __init__(self, codes: np.ndarray):
        num_centres = min(len(codes), int(2 * np.sqrt(len(codes))) + 1)
        centres = codes[np.linspace(0, len(codes) - 1, num_centres).astype(np.int64)]
        own, away = np.empty(len(codes), np.int64), np.empty(len(codes), np.float32)
        for start in range(0, len(codes), _BLOCK):
            products = codes[start : start + _BLOCK] @ centres.T
            own[start : start + _BLOCK] = products.argmax(axis=1)
            away[start : start + _BLOCK] = to_distances(products.max(axis=1))
        self.rows = np.lexsort((away, own))
        """int64[P]: the points, cell by cell."""
        self.codes = codes[self.rows]
        ends = np.flatnonzero(np.diff(own[self.rows], append=-1)) + 1
        begins = np.concatenate([[0], ends[:-1]])
        cuts = [np.arange(a, b, _MOST_POINTS) for a, b in zip(begins, ends, strict=True)]
        self.starts = np.append(np.concatenate(cuts), len(codes))
        """int64[M + 1]: the place in `rows` where each cell starts."""
        self.centres = centres[own[self.rows[self.starts[:-1]]]]
        self.radii = away[self.rows[self.starts[1:] - 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def part(self, cell: int) -> slice:
        """The places of a cell's points."""
        return slice(int(self.starts[cell]), int(self.starts[cell + 1]))

    def least_distances(self, cell: int) -> np.ndarray:
        """float32[B, M]: of each point of a cell, no point of another cell is nearer."""
        return to_distances(self.codes[self.part(cell)] @ self.centres.T) - self.radii - _SLACK

    def pairs_within(self, distance: float) -> Iterator[tuple[int, int]]:
        """Cells, the second not before the first, that may have points so near to each other."""
        for first in range(len(self)):
            least = self.least_distances(first)[:, first:].min(axis=0)
            for second in np.flatnonzero(least <= distance).tolist():
                yield first, first + second

    def nearest(self, num: int) -> tuple[np.ndarray, np.ndarray]:
        """The `num` nearest others of each point, nearest first: rows int64[P, num], float32."""
        found = np.empty((len(self.rows), num), np.int64)
        distances = np.empty((len(self.rows), num), np.float32)
        for cell in range(len(self)):
            rows = self.rows[self.part(cell)]
            found[rows], distances[rows] = self._nearest_of(cell, num)
        return found, distances

    def _nearest_of(self, cell: int, num: int) -> tuple[np.ndarray, np.ndarray]:
        """The same for the points of one cell: from the cells that are near at first."""
        part, least = self.part(cell), self.least_distances(cell)
        best = _Best(part.stop - part.start, min(len(self.rows), num + 1 + _SPARE))
        closest = least.min(axis=0)
        closest[cell] = -np.inf  # its own first
        reach = to_distances(best.products[:, -1])
        for other in np.argsort(closest, kind="stable").tolist():
            if closest[other] > reach.max():
                break
            seeking = np.flatnonzero((reach > 0) & (least[:, other] <= reach))
            if len(seeking):
                there = self.part(other)
                products = self.codes[part][seeking] @ self.codes[there].T
                best.take(seeking, products, there.start)
                reach = to_distances(best.products[:, -1])
        return self._rank(np.arange(part.start, part.stop), best.places, num)

    def _rank(self, own: np.ndarray, places: np.ndarray, num: int):
        """In float64; itself left out, or one of its copies where there are more."""
        apart = self.codes[own, np.newaxis].astype(np.float64) - self.codes[places]
        distances = np.sqrt(np.einsum("bkc,bkc->bk", apart, apart))
        distances[places == own[:, np.newaxis]] = -1
        order = np.argsort(distances, axis=1, kind="stable")[:, 1 : num + 1]
        return (
            self.rows[np.take_along_axis(places, order, axis=1)],
            np.take_along_axis(distances, order, axis=1),
        )


class _Best:
    """The largest products of points so far, and with which places."""

    def __init__(self, num_points: int, num: int):
        self.products = np.full((num_points, num), -2, np.float32)
        """float32[B, n], the least last."""
        self.places = np.zeros((num_points, num), np.int64)

    def take(self, points: np.ndarray, products: np.ndarray, start: int) -> None:
        """Products float32[b, K] of some points with the places from `start` on."""
        num = self.products.shape[1]
        is_new = products > self.products[points, -1:]
        some = np.flatnonzero(is_new.any(axis=1))
        if not len(some):
            return
        points, products = points[some], products[some]
        top = min(num, products.shape[1])
        new = np.argpartition(-products, top - 1, axis=1)[:, :top]
        both = np.hstack([self.products[points], np.take_along_axis(products, new, axis=1)])
        places = np.hstack([self.places[points], new + start])
        order = np.argsort(-both, axis=1, kind="stable")[:, :num]
        self.products[points] = np.take_along_axis(both, order, axis=1)
        self.places[points] = np.take_along_axis(places, order, axis=1)
