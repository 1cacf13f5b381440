"""Which pairs of neighbouring words have vectors of their own: those that training has again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from model.words import key_pairs
from tfdata.progress import show_progress
from tfdata.window import Window

_LEAST_COUNT = 2
_MOST_TOKENS = 5_000_000
"""That pairs are counted in, in some 200 MB; of more, the first: documents are in random order."""


class Source(Protocol):
    """A tfdata.window.WindowSource."""

    @property
    def num_docs(self) -> int: ...
    def read(self, epoch: int) -> Iterator[Window]: ...


def find_pairs(source: Source, most: int) -> np.ndarray:
    """int64[R], ascending, of model.words.key_pairs: the pairs that occur twice or more, the `most`
    most frequent of them."""
    found: list[np.ndarray] = []
    num_docs, room = 0, _MOST_TOKENS
    with show_progress("pairs of words") as update:
        for window in source.read(0):
            found.append(_pairs_of(window.ids[:room], window.offsets))
            room -= len(window.ids)
            if room <= 0:
                break
            num_docs += len(window)
            update(num_docs, num_docs / source.num_docs)
    keys, counts = np.unique(np.concatenate(found), return_counts=True)
    keys, counts = keys[counts >= _LEAST_COUNT], counts[counts >= _LEAST_COUNT]
    if len(keys) > most:
        keys = np.sort(keys[np.argsort(-counts, kind="stable")[:most]])
    return keys


def _pairs_of(ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64[N]: the keys of neighbours in the same document."""
    ids = ids.astype(np.int64)
    keys = key_pairs(ids[:-1], ids[1:])
    ends = offsets[1:-1]  # of documents that another follows
    return np.delete(keys, ends[ends <= len(keys)] - 1)
