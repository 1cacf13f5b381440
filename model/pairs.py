"""Which pairs of neighbouring words have vectors of their own: those that training has again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from model.words import key_pairs
from tfdata.progress import show_progress
from tfdata.window import Window

_LEAST_COUNT = 2
_MOST_TOKENS = 1 << 24
"""That pairs are counted in; of more, the first: documents are in random order."""


class Source(Protocol):
    """A tfdata.window.WindowSource."""

    residency: str

    @property
    def num_docs(self) -> int: ...
    def read(self, epoch: int) -> Iterator[Window]: ...


def find_pairs(source: Source, most: int) -> np.ndarray:
    """int64[R], ascending, of model.words.key_pairs: the pairs that documents have twice or more;
    the `most` most frequent of them.

    Of windows that are held, all are read, so that nothing is tokenised twice.
    """
    keys, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    num_docs = num_tokens = 0
    with show_progress("pairs of words") as update:
        for window in source.read(0):
            if num_tokens < _MOST_TOKENS:
                new = _pairs_of(window.ids[: _MOST_TOKENS - num_tokens], window.offsets)
                keys, counts = _add(keys, counts, *np.unique(new, return_counts=True))
            num_tokens += len(window.ids)
            num_docs += len(window)
            update(num_docs, num_docs / source.num_docs)
            if source.residency == "stream" and num_tokens >= _MOST_TOKENS:
                break
    again = counts >= _LEAST_COUNT
    keys, counts = keys[again], counts[again]
    if len(keys) > most:
        keys = np.sort(keys[np.argsort(-counts, kind="stable")[:most]])
    return keys


def _pairs_of(ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64[N]: the keys of neighbours in the same document."""
    ids = ids.astype(np.int64)
    keys = key_pairs(ids[:-1], ids[1:])
    ends = offsets[1:-1]  # of documents that another follows
    return np.delete(keys, ends[ends <= len(keys)] - 1)


def _add(
    keys: np.ndarray, counts: np.ndarray, new_keys: np.ndarray, new_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both lists as one."""
    both = np.concatenate([keys, new_keys])
    keys, places = np.unique(both, return_inverse=True)
    counts = np.bincount(places, np.concatenate([counts, new_counts]), minlength=len(keys))
    return keys, counts.astype(np.int64)
