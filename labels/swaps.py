"""Damerau-Levenshtein distance of many pairs at once, where few insertions and deletions are left.

The table of the distance (Lowrance & Wagner 1975) has a row for each character of the first text;
of it only a band is computed, all pairs of a batch together, in bytes. A swap deletes characters
between the two, or inserts some; one that did both would cost no less than substitutions.
Legend: N pairs, W shifts of the band: place in the second text less place in the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_BATCH = 4_096
_THREADS = 2


def are_within(
    first: Sequence[str], second: Sequence[str], most: np.ndarray, deleted: np.ndarray,
    inserted: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """bool[N]: whether the distance is `most` int[N] or less.

    Args:
      deleted, inserted: int[N], how many characters are, at most, where it is.

    >>> few = np.array([1])
    >>> are_within(["ca"], ["abc"], 2 * few, 0 * few, few).tolist()
    [True]
    """
    within = np.zeros(len(first), bool)
    order = np.argsort(deleted + inserted, kind="stable")

    def measure(start: int) -> None:
        part = order[start : start + _BATCH]
        places: list[int] = part.tolist()
        texts, other_texts = [first[i] for i in places], [second[i] for i in places]
        bounds = int(deleted[part].max()), int(inserted[part].max())
        top = int(most[part].max())
        within[part] = _measure(texts, other_texts, top, *bounds) <= most[part]

    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(measure, range(0, len(order), _BATCH)))
    return within


def _measure(first: list[str], second: list[str], top: int, before: int, after: int) -> np.ndarray:
    """Distances up to `top`, above it more, by shifts from -before to after."""
    dtype = np.uint8 if top + before + after < 250 else np.int32
    never, beyond = np.iinfo(dtype).max, top + 1  # a number or'ed with `never` is that
    lengths = np.array([len(text) for text in first])
    ends = np.array([len(text) for text in second]) - lengths + before
    ones, others = _spell(first, second, before + 1, after + 1)
    band = before + after + 1
    row = np.full((band, len(first)), beyond, dtype)
    row[before:] = np.minimum(np.arange(after + 1), beyond)[:, np.newaxis]
    rows, differ = [row], [np.zeros((0, 0), dtype)]
    result = np.where(lengths == 0, row[ends.clip(0, band - 1), np.arange(len(first))], beyond)
    at_end = np.argsort(lengths, kind="stable")
    place = np.searchsorted(lengths[at_end], np.arange(lengths.max(initial=0) + 2))
    for i in range(1, len(ones) + 1):
        # the characters of shifts from -before - 1 to after + 1: `never` where they differ
        differ.append((others[i - 1 : i + band + 1] != ones[i - 1]) * dtype(never))
        row = rows[-1] + (differ[i][1:-1] & dtype(1))
        row[:-1] = np.minimum(row[:-1], rows[-1][1:] + dtype(1))
        _swap(row, rows, differ, i, before, after)
        for w in range(1, band):
            np.minimum(row[w], row[w - 1] + dtype(1), out=row[w])
        rows.append(np.minimum(row, dtype(beyond), out=row))
        if i > before + 1:
            rows[i - before - 2] = differ[i - before - 1] = differ[0]  # no swap reaches so far back
        done = at_end[place[i] : place[i + 1]]
        result[done] = row[ends[done], done]
    return result


def _swap(row, rows, differ, i: int, before: int, after: int) -> None:
    """Cells of row i by a swap, of x and y: x, u deleted, y to y x; or x y to y, v inserted, x."""
    band = before + after + 1
    for u in range(min(before, i - 2) + 1):
        width = band - u
        cost = rows[i - u - 2][u:] + row.dtype.type(u + 1)
        cost |= differ[i][:width]
        cost |= differ[i - u - 1][u + 2 : u + 2 + width]
        np.minimum(row[:width], cost, out=row[:width])
    for v in range(1, after + 1 if i > 1 else 0):
        width = band - v
        cost = rows[i - 2][:width] + row.dtype.type(v + 1)
        cost |= differ[i][:width]
        cost |= differ[i - 1][v + 2 : v + 2 + width]
        np.minimum(row[v:], cost, out=row[v:])


def _spell(first: list[str], second: list[str], before: int, after: int):
    """Characters of the texts, a row for each place; beyond the ends what no other text has."""
    longest = max(map(len, first), default=0)
    ones = _lay_out(first, 0, longest, 0)
    others = _lay_out(second, before, longest + before + after, 1)
    dtype = np.min_scalar_type(max(int(ones.max(initial=0)), int(others.max(initial=0))))
    return ones.astype(dtype), others.astype(dtype)


def _lay_out(texts: list[str], start: int, height: int, outside: int) -> np.ndarray:
    """uint32[height, N]: each text down a column from `start` on, by code points from 2 on."""
    laid = np.full((len(texts), height), outside, np.uint32)
    for column, text in zip(laid, texts, strict=True):
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)[: height - start]
        column[start : start + len(codes)] = codes + 2
    return np.ascontiguousarray(laid.T)
