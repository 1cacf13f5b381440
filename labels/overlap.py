"""How many characters, or neighbouring two, texts have in common at most: a lossless filter.

What stands c times in a text has the levels 1 to c there. Levels are hashed, which only adds to
what is in common. Of two texts the levels in common are those that both have, so they are a matrix
product of zeros and ones; it is taken of the levels that tell most, and the others that a text has
count as in common. Legend: n texts, B and K of them, H buckets, D levels of the product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BUCKETS, _LEVELS = 512, 768
_MOST_LEVEL = 64
_SAMPLE, _CHUNK = 4_096, 4_096


class Overlap:
    """Bounds on what texts have in common: of `size` 1 characters, of 2 neighbouring two.

    Two neighbours are the same either way around, so that a swap of them changes two others only.
    """

    def __init__(self, texts: Sequence[str], size: int):
        step = max(1, len(texts) // _SAMPLE)
        bucket, level = _choose_levels(_count(texts[::step], size))
        self._has = np.empty((len(texts), len(bucket)), np.uint8)
        self._others = np.empty(len(texts), np.float32)
        for start in range(0, len(texts), _CHUNK):
            part = slice(start, start + _CHUNK)
            counts = _count(texts[part], size)
            self._has[part] = counts[:, bucket] >= level
            self._others[part] = counts.sum(axis=1) - self._has[part].sum(axis=1)

    def most(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """float32[B, K]: no two have more in common.

        >>> places = np.array([0]), np.array([1, 2])
        >>> Overlap(["abcd", "bacd", "xyz"], 2).most(*places).tolist()
        [[2.0, 0.0]]
        """
        common = self._has[rows].astype(np.float32) @ self._has[others].astype(np.float32).T
        common += np.minimum(self._others[rows, np.newaxis], self._others[others])
        return common


def _count(texts: Sequence[str], size: int) -> np.ndarray:
    """int64[n, H]: how often each bucket's characters, or two neighbours, stand in each text."""
    joined = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.int64)
    text = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    bucket = joined
    if size == 2:
        inside = text[1:] == text[:-1]
        before, after = joined[:-1][inside], joined[1:][inside]
        bucket = np.minimum(before, after) * 31 + np.maximum(before, after) * 977
        text = text[1:][inside]
    places = text * _BUCKETS + bucket % _BUCKETS
    return np.bincount(places, minlength=len(texts) * _BUCKETS).reshape(-1, _BUCKETS)


def _choose_levels(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Buckets int64[D] and levels int64[D]: those that nearest to half of the texts have."""
    levels = np.arange(1, min(_MOST_LEVEL, int(counts.max(initial=0))) + 1)
    share = np.stack([(counts >= level).mean(axis=0) for level in levels] or [counts[:0].sum(0)])
    tells = (share * (1 - share)).ravel()
    chosen = np.argsort(-tells, kind="stable")[:_LEVELS]
    chosen = chosen[tells[chosen] > 0]
    return chosen % _BUCKETS, chosen // _BUCKETS + 1
