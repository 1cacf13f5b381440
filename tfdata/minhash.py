"""Keys that texts with mostly the same words share: MinHash, in bands.

Broder 1997: the smallest hash of a text's words and pairs of words is the same for two texts as
often as they share words. A band is a few such hashes made one key. Legend: D texts, N words of all
of them one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfdata.words import mix

SIMILAR = 0.9
"""Of near copies, at least: 1 - edits / length of the longer text."""
BAND_ROWS = (3, 6) * 8
"""Hashes of each band: three find what is near, six what is nearest among much that is near."""


def band_keys(words: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The key uint64[D] of each text in each of the bands; a text without words has 0 in all.

    Args:
      words: uint64[N], the hash of each word.
      lengths: int64[D], how many of them each text has.
    """
    filled = np.flatnonzero(lengths)
    ends = np.cumsum(lengths)[filled]
    starts = ends - lengths[filled]
    pairs = words * np.uint64(0x9E3779B97F4A7C15)
    pairs[:-1] += words[1:]
    pairs[ends - 1] = words[ends - 1]  # no word follows
    single, pairs = (mix(x).astype(np.uint32) for x in (words + np.uint64(1 << 40), pairs))
    random = np.random.default_rng(0)
    for num_rows in BAND_ROWS:
        keys = np.zeros(len(lengths), np.uint64)
        key = np.zeros(len(filled), np.uint64)
        for salt in random.integers(1, 2**32, num_rows, dtype=np.uint32) | np.uint32(1):
            lowest = np.minimum(single * salt, pairs * salt)
            if len(filled):
                key = mix(key + np.minimum.reduceat(lowest, starts))
        keys[filled] = key | np.uint64(1)
        yield keys


class Runs:
    """Texts sorted by key, and by group within a key, to draw partners from."""

    def __init__(self, keys: np.ndarray, groups: np.ndarray):
        self._order = np.lexsort((groups, keys))
        ordered, grouped = keys[self._order], groups[self._order]
        new_key = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(keys)]
        new_group = new_key | np.concatenate([[True], grouped[1:] != grouped[:-1]])[: len(keys)]
        self._key, self._group = _bounds(new_key), _bounds(new_group)
        self._has_words = ordered > 0

    def draw(self, random: np.random.Generator, same: bool) -> np.ndarray:
        """For each text a random other one of its key: int64[D], -1 where there is none.

        The other one is of the `same` group, or else of another.
        """
        order, (low, high), (group_low, group_high) = self._order, self._key, self._group
        size = group_high - group_low
        if same:
            places = np.arange(len(order))
            step = 1 + (random.random(len(order)) * (size - 1)).astype(np.int64)
            chosen = group_low + (places - group_low + step) % np.maximum(size, 1)
            exists = size > 1
        else:
            others = high - low - size
            drawn = low + (random.random(len(order)) * others).astype(np.int64)
            chosen = np.where(drawn < group_low, drawn, drawn + size)
            exists = others > 0
        exists &= self._has_words
        partners = np.full(len(order), -1, np.int64)
        partners[order[exists]] = order[chosen[exists]]
        return partners


def _bounds(is_first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each place the start and the end of its run."""
    starts = np.flatnonzero(is_first)
    lengths = np.diff(starts, append=len(is_first))
    return np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)


def compare_texts(one: list[str], other: list[str]) -> np.ndarray:
    """float32[n]: 1 - Levenshtein distance / length of the longer, 0 where it is below .9."""
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    return process.cpdist(
        one, other, scorer=Levenshtein.normalized_similarity, score_cutoff=SIMILAR, workers=2,
        dtype=np.float32,
    )  # fmt: skip
