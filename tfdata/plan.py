"""The plan: which documents make which batch. A pure function of (seed, epoch, window).

Legend: D documents of a window, S steps (batches) of its plan, B documents of the largest batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfdata.config import PipelineConfig

_MOST_BUCKETS, _MOST_PADDING = 6, 1 / 4
FILLER = -1
"""Stands in a batch for a document that is not there; it weighs nothing."""


@dataclass(frozen=True)
class Buckets:
    """Batch shapes: texts of at most widths[i] tokens come in batches of sizes[i] documents."""

    widths: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The batches of one window, in the order of training."""

    rows: np.ndarray
    """int32[S, B]: documents of the window; FILLER beyond `sizes`, and in empty places."""
    widths: np.ndarray
    """int32[S]: tokens that each text of the batch is padded to."""
    sizes: np.ndarray
    """int32[S]: rows of the batch, fillers included; the same for all batches of a bucket."""

    def __len__(self) -> int:
        return len(self.widths)


def choose_buckets(length_counts: np.ndarray, max_len: int, config: PipelineConfig) -> Buckets:
    """The widths, up to `max_len`, that pad the given lengths least.

    Args:
      length_counts: int64[n], documents by number of tokens, before truncation to `max_len`.
    """
    counts = np.zeros(max_len + 1, np.int64)
    lengths = np.clip(np.arange(len(length_counts)), 1, max_len)
    np.add.at(counts, lengths, length_counts)
    if config.num_buckets is not None:
        widths = _least_padding(counts, max_len, config.num_buckets)
    else:
        num_tokens = counts @ np.arange(max_len + 1)
        for num_buckets in range(1, _MOST_BUCKETS + 1):
            widths = _least_padding(counts, max_len, num_buckets)
            fit = np.asarray(widths)[np.searchsorted(widths, np.arange(max_len + 1))]
            if counts @ fit * (1 - _MOST_PADDING) <= num_tokens:
                break
    if config.batch_tokens is None:
        sizes = [config.batch_size] * len(widths)
    else:
        sizes = [max(1, config.batch_tokens // width) for width in widths]
    return Buckets(tuple(widths), tuple(sizes))


def _least_padding(counts: np.ndarray, max_len: int, num_buckets: int) -> list[int]:
    """Dynamic programming over at most 256 candidate widths: least sum of width · documents."""
    present = np.flatnonzero(counts)
    if len(present) > 256:
        present = np.unique(present[np.linspace(0, len(present) - 1, 256).astype(int)])
    candidates = np.unique(np.append(present, max_len))
    below = np.cumsum(counts)[candidates]  # documents of at most that many tokens
    num = len(candidates)
    best = candidates * below.astype(np.float64)
    previous = np.full((num_buckets, num), -1)
    for k in range(1, num_buckets):
        docs = below[None, :] - below[:, None]  # [i, j]: documents in a bucket (i, j]
        cost = best[:, None] + np.where(docs >= 0, docs * candidates[None, :], 0)
        cost[np.tril_indices(num)] = np.inf
        better = cost.min(axis=0, initial=np.inf)
        previous[k] = np.where(better < best, cost.argmin(axis=0), -1)
        best = np.minimum(better, best)
    widths, position, k = [], num - 1, num_buckets - 1
    while position >= 0:
        while k > 0 and previous[k][position] < 0:
            k -= 1
        widths.append(int(candidates[position]))
        position = int(previous[k][position]) if k > 0 else -1
        k -= 1
    return widths[::-1]


def plan_batches(lengths: np.ndarray, buckets: Buckets, seed: Sequence[int] | None) -> Plan:
    """Puts every document of a window into one batch of its length bucket.

    What is left over of a bucket moves up to the next, so that only the last batch is not full;
    with equal sizes there are therefore ceil(D / size) batches, whatever the lengths. Within a
    batch the shortest text comes first, so that parts of it can be cut to their longest text.

    Args:
      lengths: int32[D], at most buckets.widths[-1].
      seed: (seed, epoch, window) shuffles documents and batches; None keeps their order.

    >>> plan_batches(np.array([3, 1, 2, 1]), Buckets((1, 3), (2, 2)), None).rows.tolist()
    [[1, 3], [2, 0]]
    """
    rng = None if seed is None else np.random.default_rng(list(seed))
    docs = np.arange(len(lengths), dtype=np.int32)
    docs = docs if rng is None else rng.permutation(docs)
    lengths = np.asarray(lengths, np.uint16 if buckets.widths[-1] < 2**16 else np.int32)
    bucket_of = np.searchsorted(np.asarray(buckets.widths), lengths[docs])
    batches: list[np.ndarray] = []
    widths: list[int] = []
    left = np.empty(0, np.int32)
    left_bucket = 0
    for bucket, size in enumerate(buckets.sizes):
        here = docs[bucket_of == bucket]
        if not len(here):
            continue
        here = np.concatenate([left, here])
        here = here if rng is None else rng.permutation(here)
        num_full = len(here) // size
        full = here[: num_full * size].reshape(num_full, size)
        shortest_first = np.argsort(lengths[full], axis=1, kind="stable")
        batches += list(np.take_along_axis(full, shortest_first, axis=1))
        widths += [buckets.widths[bucket]] * num_full
        left, left_bucket = here[num_full * size :], bucket
    if len(left):
        size = buckets.sizes[left_bucket]
        left = left[np.argsort(lengths[left], kind="stable")]
        for start in range(0, len(left), size):
            batch = np.full(size, FILLER, np.int32)
            batch[: len(left[start : start + size])] = left[start : start + size]
            batches.append(batch)
            widths.append(buckets.widths[left_bucket])
    sizes = np.array([len(batch) for batch in batches], np.int32)
    rows = np.full((len(batches), int(sizes.max(initial=0))), FILLER, np.int32)
    for step, batch in enumerate(batches):
        rows[step, : len(batch)] = batch
    order = np.arange(len(batches)) if rng is None else rng.permutation(len(batches))
    return Plan(rows[order], np.array(widths, np.int32)[order], sizes[order])


def count_steps(length_counts: np.ndarray, buckets: Buckets, window_docs: Sequence[int]) -> int:
    """Batches of an epoch: exact where all buckets have one size, else near enough for a schedule.

    Args:
      length_counts: int64[n], as for `choose_buckets`.
      window_docs: documents of each window.
    """
    if len(set(buckets.sizes)) == 1:
        return sum(-(-docs // buckets.sizes[0]) for docs in window_docs)
    lengths = np.clip(np.arange(len(length_counts)), 1, buckets.widths[-1])
    sizes = np.asarray(buckets.sizes)[np.searchsorted(np.asarray(buckets.widths), lengths)]
    share = sum(window_docs) / length_counts.sum()  # of lengths that are spread as those
    return max(1, round(float((length_counts / sizes).sum() * share)))


def choose_max_len(length_counts: np.ndarray) -> int:
    """The least length that holds 99 % of the texts whole, at most 128 tokens.

    >>> choose_max_len(np.array([0, 50, 49, 0, 1]))
    2
    """
    covered = np.cumsum(length_counts) >= 0.99 * length_counts.sum()
    return int(np.clip(np.argmax(covered), 1, 128))
