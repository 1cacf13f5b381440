"""Neighbours among codes, exactly, in memory that does not grow with the density of the data.

Codes have length 1, so a distance is a product: squared, 2 - 2 cos. Products of two blocks of
points are one matrix multiplication; labels.cells finds the blocks that are worth it.
Legend: P points, C numbers of a code, B points of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from labels.cells import Cells, least_product, to_distances
from labels.roots import Roots

_BLOCK_PRODUCTS = 2**25
"""Products in memory at a time: 128 MB."""
_FARTHEST = 2.0
"""Of two codes of length 1."""


class Nearest(NamedTuple):
    """The nearest others of each point, nearest first."""

    rows: np.ndarray
    """int64[P, n]"""
    distances: np.ndarray
    """float32[P, n]"""


def normalize(codes: np.ndarray) -> np.ndarray:
    """float32[P, C] with rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    return np.divide(codes, lengths, out=np.zeros_like(codes), where=lengths > 0)


def find_nearest(codes: np.ndarray, min_weight: int) -> Nearest:
    """As many neighbours as it may take to have `min_weight` documents, of codes float32[P, C]."""
    return Nearest(*Cells(codes).nearest(min(min_weight, len(codes) - 1)))


def reach_distances(
    codes: np.ndarray, weights: np.ndarray, found: Nearest, min_weight: int, with_self: bool
) -> np.ndarray:
    """float32[P]: the distance within which each point has `min_weight` documents.

    Args:
      codes: float32[P, C] of length 1.
      weights: int[P], documents of each point.
      found: by `find_nearest`, for the same codes and `min_weight`.
      with_self: all of its own documents count, at distance 0; else it counts as one.
    """
    reached = np.full(len(codes), _FARTHEST, np.float32)
    if found.rows.size:
        have = np.cumsum(weights[found.rows], axis=1)
        have += weights[:, np.newaxis] if with_self else 1
        is_enough = have >= min_weight
        at = found.distances[np.arange(len(codes)), is_enough.argmax(axis=1)]
        reached = np.where(is_enough.any(axis=1), at, _FARTHEST).astype(np.float32)
    reached[~codes.any(axis=1)] = _FARTHEST  # a code of zeros says nothing
    if with_self:
        reached[weights >= min_weight] = 0
    return reached


def connect(codes: np.ndarray, eps: float) -> np.ndarray:
    """int32[P]: a number for each connected group of points at most `eps` apart, by its first.

    Groups are found inside each cell, then joined over cells; no list of neighbours is kept, and
    cells that are in one group already are not compared.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    if not len(codes):
        return np.empty(0, np.int32)
    cells, least = Cells(codes), least_product(eps)
    group = np.empty(len(codes), np.int64)  # of the points in the order of the cells
    for cell in range(len(cells)):
        part = cells.part(cell)
        is_near = cells.codes[part] @ cells.codes[part].T >= least
        group[part] = part.start + connected_components(csr_matrix(is_near), directed=False)[1]
    roots = Roots(len(codes))
    for first, second in cells.pairs_within(eps):
        one, other = cells.part(first), cells.part(second)
        ours, theirs = roots.of(group[one]), roots.of(group[other])
        if first == second or ((ours == theirs[0]).all() and (theirs == theirs[0]).all()):
            continue
        is_near = cells.codes[one] @ cells.codes[other].T >= least
        rows, columns = np.nonzero(is_near & (ours[:, np.newaxis] != theirs))
        pairs = np.unique(ours[rows] * len(codes) + theirs[columns])
        for pair in pairs.tolist():
            roots.join(*divmod(pair, len(codes)))
    root = np.empty(len(codes), np.int64)
    root[cells.rows] = roots.of(group)
    _, firsts, number = np.unique(root, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts)).astype(np.int32)[number]


def nearest(codes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For codes float32[B, C] the nearest of `others` float32[n, C]: int64[B], distance float32[B].

    >>> nearest(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1])[0].tolist()
    [1, 0]
    """
    found = np.zeros(len(codes), np.int64)
    distances = np.full(len(codes), _FARTHEST, np.float32)
    if len(others):
        for rows in _cut(np.arange(len(codes)), len(others)):
            products = codes[rows] @ others.T
            found[rows] = products.argmax(axis=1)
            distances[rows] = to_distances(products[np.arange(len(rows)), found[rows]])
    return found, distances


def _cut(rows: np.ndarray, num_columns: int) -> Iterator[np.ndarray]:
    size = max(1, _BLOCK_PRODUCTS // max(1, num_columns))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
