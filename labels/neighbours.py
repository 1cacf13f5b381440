"""Neighbours among codes, exactly, in memory that does not grow with the density of the data.

Codes have length 1, so a distance is a product: squared, 2 - 2 cos. Products of a block of points
with all others are one matrix multiplication, the fastest index there is at 64 dimensions.
Legend: P points, C numbers of a code, B points of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK_PRODUCTS = 2**25
"""Products in memory at a time: 128 MB."""
_FARTHEST = 2.0
"""Of two codes of length 1."""
_ROUNDING = 2.0**-21
"""By how much the product of a code of length 1 with itself may be below 1 in float32."""


def normalize(codes: np.ndarray) -> np.ndarray:
    """float32[P, C] with rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(codes, axis=1, keepdims=True)
    return np.divide(codes, lengths, out=np.zeros_like(codes), where=lengths > 0)


def reach_distances(
    codes: np.ndarray, weights: np.ndarray, min_weight: int, with_self: bool
) -> np.ndarray:
    """float32[P]: the distance within which each point has `min_weight` documents.

    Args:
      codes: float32[P, C] of length 1.
      weights: int[P], documents of each point.
      with_self: all of its own documents count, at distance 0; else it counts as one.
    """
    from sklearn.neighbors import NearestNeighbors

    reached = np.full(len(codes), _FARTHEST, np.float32)
    num_neighbours = min(min_weight, len(codes) - 1)
    if num_neighbours:
        index = NearestNeighbors(n_neighbors=num_neighbours + 1, algorithm="brute").fit(codes)
        distances, near = index.kneighbors(codes)
        is_other = near != np.arange(len(codes))[:, np.newaxis]
        is_other[is_other.all(axis=1), -1] = False  # among more copies it may not find itself
        near = near[is_other].reshape(len(codes), num_neighbours)
        distances = distances[is_other].reshape(len(codes), num_neighbours)
        have = np.cumsum(weights[near], axis=1) + (weights[:, np.newaxis] if with_self else 1)
        is_enough = have >= min_weight
        found = distances[np.arange(len(codes)), is_enough.argmax(axis=1)]
        reached = np.where(is_enough.any(axis=1), found, _FARTHEST).astype(np.float32)
    reached[~codes.any(axis=1)] = _FARTHEST  # a code of zeros says nothing
    if with_self:
        reached[weights >= min_weight] = 0
    return reached


def to_distances(products: np.ndarray) -> np.ndarray:
    """Euclidean distances float32 of products of codes of length 1; of the same code, 0."""
    return np.sqrt(np.maximum(2 - 2 * (products + _ROUNDING), 0))


def connect(codes: np.ndarray, eps: float) -> np.ndarray:
    """int32[P]: a number for each connected group of points at most `eps` apart.

    A group is grown from its frontier; each point is compared once with those that no group has
    yet, so a dense group is found in a few multiplications, and no list of neighbours is kept.
    """
    least = 1 - eps**2 / 2 - _ROUNDING
    group_of = np.full(len(codes), -1, np.int32)
    free = np.arange(len(codes))
    free_codes = codes
    number = 0
    while len(free):
        frontier, is_taken = free[:1], np.zeros(len(free), bool)
        is_taken[0] = True
        group_of[free[0]] = number
        while len(frontier):
            found = np.zeros(len(free), bool)
            for rows in _cut(frontier, len(free)):
                found |= (codes[rows] @ free_codes.T >= least).any(axis=0)
            found &= ~is_taken
            is_taken |= found
            frontier = free[found]
            group_of[frontier] = number
            if is_taken.sum() > len(free) // 8:  # what is taken need not be compared again
                free, free_codes = free[~is_taken], free_codes[~is_taken]
                is_taken = np.zeros(len(free), bool)
        if is_taken.any():
            free, free_codes = free[~is_taken], free_codes[~is_taken]
        number += 1
    return group_of


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
