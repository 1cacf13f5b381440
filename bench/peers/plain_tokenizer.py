"""The word tokenizer in plain Python: what the pipelines are checked by, and PyTorch's is made of.

It imports no TensorFlow, which a DataLoader's worker processes need not wait for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfdata.shards import read_batches

if TYPE_CHECKING:
    from bench.feed import Corpus


class PlainTokenizer:
    """Texts → token_ids int32[B, T], padded on the right with 0 to the longest of them.

    >>> PlainTokenizer({"hello": 2}, unknown_id=1, filters=",", max_len=9)(["Hello, you", ""])
    array([[2, 1],
           [1, 0]], dtype=int32)
    """

    def __init__(self, id_of_word: dict[str, int], unknown_id: int, filters: str, max_len: int):
        self._id_of_word, self._unknown_id, self._max_len = id_of_word, unknown_id, max_len
        self._to_spaces = str.maketrans(dict.fromkeys(filters, " "))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        rows = [self._encode(text) for text in texts]
        token_ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
        for into, row in zip(token_ids, rows, strict=True):
            into[: len(row)] = row
        return token_ids

    def _encode(self, text: str) -> list[int]:
        words = text.lower().translate(self._to_spaces).split()
        find, unknown = self._id_of_word.get, self._unknown_id
        return [find(word, unknown) for word in words[: self._max_len]] or [unknown]


def build_plain_tokenizer(corpus: Corpus) -> PlainTokenizer:
    """One that agrees with the corpus's Encoder on words of ASCII letters and digits."""
    config = corpus.flags.tokenizer
    if (config.tokenizer, config.unknown, config.truncate) != ("word", "map", "right"):
        raise ValueError(f"a {config.tokenizer} tokenizer, {config.unknown}, {config.truncate}")
    words, ids = corpus.vocabulary.words()
    return PlainTokenizer(
        dict(zip(words, ids.tolist(), strict=True)),
        corpus.vocabulary.unknown_id,
        config.filters,
        corpus.encoder.max_len,
    )


def encode_plainly(corpus: Corpus) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The training part as (token_ids int32[n, T], labels int32[n]), in the order of the shards."""
    tokenize = build_plain_tokenizer(corpus)
    for texts, labels in read_batches(corpus.shard_set, "train"):
        yield tokenize(texts.to_pylist()), labels
