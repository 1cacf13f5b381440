"""Rows of a plan to padded batches in numpy, a few batches at a time.

Legend: B documents of a batch, T tokens, S batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tfdata.plan import FILLER, Plan
from tfdata.window import Window

_GATHERED = 2**18  # tokens at a time, about: they stay in the cache of a core


class Steps(NamedTuple):
    """Batches of a window, one after the other: what numpy does for many of them at once.

    Fillers fill up the rows of a batch, so that replicas can share them evenly. Where several
    processes train, these are the rows of this one's replicas.
    """

    token_ids: np.ndarray
    """uint16 or int32[S, B, T]; T is that of the widest."""
    lengths: np.ndarray
    """int32[S, B]."""
    labels: np.ndarray
    """int32[S, B]."""
    weights: np.ndarray
    """float32[S, B]."""
    docs: np.ndarray
    """int64[S, B]."""
    scales: np.ndarray
    """float32[S]."""
    widths: np.ndarray
    """int32[S]."""
    sizes: np.ndarray
    """int32[S]: rows of a replica's batch."""


def gather_steps(
    window: Window, plan: Plan, class_weights: np.ndarray, num_replicas: int,
    replicas: range | None = None,
) -> Iterator[Steps]:  # fmt: skip
    """The batches of a plan, a few at a time.

    Args:
      class_weights: float32[C + 1], the last for labels that training lacks.
      replicas: those to gather for (default: all).
    """
    replicas = range(num_replicas) if replicas is None else replicas
    all_sizes = -(-plan.sizes // num_replicas)
    num_rows = int(all_sizes.max(initial=0)) * len(replicas)
    num_steps = max(1, _GATHERED // max(1, num_rows * int(plan.widths.max(initial=0))))
    ids = np.asarray(window.ids)  # a memory map is slow to index
    for first in range(0, len(plan), num_steps):
        steps = slice(first, first + num_steps)
        rows, widths, sizes = plan.rows[steps], plan.widths[steps], all_sizes[steps]
        num_real = (rows >= 0).sum(axis=1, dtype=np.float32)
        rows = _take_shares(rows, sizes, replicas, num_rows)
        real = rows >= 0
        safe = np.maximum(rows, 0)
        starts = window.offsets[safe]
        lengths = np.where(real, window.offsets[safe + 1] - starts, 0).astype(np.int32)
        token_ids = _read_rows(ids, starts, int(widths.max()))
        token_ids *= np.arange(token_ids.shape[-1]) < lengths[..., np.newaxis]
        labels = np.where(real, window.labels[safe], 0)
        weights = class_weights[np.minimum(labels, len(class_weights) - 1)]
        yield Steps(
            token_ids, np.maximum(lengths, 1), labels,
            np.where(real, weights, np.float32(0)), np.where(real, window.first_doc + rows, -1),
            (sizes * num_replicas).astype(np.float32) / num_real, widths, sizes,
        )  # fmt: skip


def _take_shares(rows: np.ndarray, sizes: np.ndarray, replicas: range, num_rows: int) -> np.ndarray:
    """int32[S, num_rows]: the rows of some replicas, each of which has `sizes` int32[S] of a batch.

    >>> _take_shares(np.array([[3, 4, 5]]), np.array([2]), range(1, 2), 2).tolist()
    [[5, -1]]
    """
    here = np.arange(num_rows)
    columns = replicas.start * sizes[:, np.newaxis] + here
    is_there = (here < len(replicas) * sizes[:, np.newaxis]) & (columns < rows.shape[1])
    return np.where(
        is_there, np.take_along_axis(rows, np.where(is_there, columns, 0), axis=1), FILLER
    )


def _read_rows(ids: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """`width` ids from each of `starts` int64[...] on; what is beyond the last means nothing.

    Whole rows are copied, in an eighth of the time of taking their ids one by one.
    """
    last = len(ids) - width
    if last < 0:
        ids, last = np.pad(ids, (0, -last)), 0
    rows = np.lib.stride_tricks.sliding_window_view(ids, width)[np.minimum(starts, last)]
    for place in zip(*np.nonzero(starts > last), strict=True):  # fewer than `width` documents
        tail = ids[starts[place] :]
        rows[place][: len(tail)] = tail
    return rows
