"""The words that set a cluster apart from the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import log

Shares = Mapping[str, float]
"""Of each word the share of texts that hold it."""

_WORD = re.compile(r"<\w+>|[^\W_]+(?:['’-][^\W_]+)*")  # a mask, or a word
_LEAST_SHARE = 0.2  # of a cluster's texts: a rarer word does not speak for it

_LEAST_TIMES = 1.5  # its share elsewhere


def share_words(texts: Iterable[str]) -> Shares:
    """
    >>> share_words(["card lost", "Card <NUM>"])
    {'card': 1.0, 'lost': 0.5}
    """
    counts: Counter[str] = Counter()
    num_texts = 0
    for text in texts:
        counts.update({word for word in _WORD.findall(text.casefold()) if word[0] != "<"})
        num_texts += 1
    return {word: count / num_texts for word, count in counts.items()}


def mean_shares(shares: Iterable[Shares]) -> Shares:
    """The background: each cluster counts alike, however large."""
    sums: Counter[str] = Counter()
    num_clusters = 0
    for share in shares:
        sums.update(share)
        num_clusters += 1
    return {word: total / num_clusters for word, total in sums.items()}


def distinctive(shares: Shares, background: Shares, most: int) -> list[tuple[str, float]]:
    """The words with the largest share · ln(share / share elsewhere), and their shares.

    The summand of a word in the Kullback-Leibler divergence from the background: both common here
    and rare there.
    """
    rare = 1e-3
    scored = [
        (share * log((share + rare) / (background.get(word, 0.0) + rare)), word, share)
        for word, share in shares.items()
        if share >= max(_LEAST_SHARE, _LEAST_TIMES * background.get(word, 0.0))
    ]
    scored.sort(key=lambda item: (-item[0], item[1]))
    return [(word, share) for _, word, share in scored[:most]]
