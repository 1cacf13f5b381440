"""Texts as numbers of words, in Arrow and numpy: no Python object a document.

The words are those of the `word` tokenizer: lower-case, filter characters to spaces, split at
spaces and round each character of a script without them. Legend: B documents, N words of all of
them one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfdata.config import KERAS_FILTERS
from tfdata.unspaced import spread

_CHUNK_DOCS = 65_536
WORD_FILTERS = KERAS_FILTERS + "\r\v\f"


@dataclass(frozen=True)
class Words:
    """Document b has the words ids[offsets[b]] to ids[offsets[b + 1] - 1]."""

    ids: np.ndarray
    """int32[N]"""
    offsets: np.ndarray
    """int64[B + 1]"""
    names: pa.Array
    """The word of each id."""

    @property
    def lengths(self) -> np.ndarray:
        """int64[B]: words of each document."""
        return np.diff(self.offsets)

    def documents(self) -> np.ndarray:
        """int32[N]: the document that each word stands in."""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int32), self.lengths)


def cut_words(
    texts: pa.ChunkedArray, filters: str = WORD_FILTERS, unspaced: str = "split"
) -> Words:
    """The words of string[B] without nulls; `filters` and `unspaced` as in TokenizerConfig."""
    chunks, lengths = [], []
    for start in range(0, len(texts), _CHUNK_DOCS):
        words, counts = _cut(texts.slice(start, _CHUNK_DOCS), filters, unspaced)
        chunks.append(words.dictionary_encode())
        lengths.append(counts)
    kind = pa.dictionary(pa.int32(), pa.string())
    coded = pa.chunked_array(chunks, kind).unify_dictionaries()
    ids = [chunk.indices.to_numpy() for chunk in coded.chunks]
    names = coded.chunk(0).dictionary if chunks else pa.array([], pa.string())
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.concatenate([*lengths, np.zeros(0, np.int64)]), out=offsets[1:])
    return Words(np.concatenate([*ids, np.zeros(0, np.int32)]), offsets, names)


def _cut(texts: pa.ChunkedArray, filters: str, unspaced: str) -> tuple[pa.Array, np.ndarray]:
    """The words string[N] of some documents, and how many int64[B] each has."""
    if unspaced == "split":
        texts = spread(texts)
    if filters:
        escaped = "".join("\\" + c if c in "\\]^-[" else c for c in filters)
        texts = pc.replace_substring_regex(texts, f"[{escaped}]", " ")
    pieces = pc.ascii_split_whitespace(pc.utf8_lower(texts)).combine_chunks()
    words = pieces.flatten()
    is_word = pc.not_equal(pc.binary_length(words), 0).to_numpy(zero_copy_only=False)
    before = np.concatenate([[0], np.cumsum(is_word)])
    offsets = pieces.offsets.to_numpy() - pieces.offsets[0].as_py()
    return words.filter(pa.array(is_word)), np.diff(before[offsets]).astype(np.int64)


def take_ranges(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """values[starts[i] : starts[i] + lengths[i]] one after the other.

    >>> take_ranges(np.arange(9), np.array([6, 1]), np.array([2, 3])).tolist()
    [6, 7, 1, 2, 3]
    """
    ends = np.cumsum(lengths)
    moved = np.repeat(starts - ends + lengths, lengths)
    return values[np.arange(len(moved)) + moved]


def mix(values: np.ndarray) -> np.ndarray:
    """uint64[n] hashed: the finaliser of splitmix64."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def hash_words(names: pa.Array) -> np.ndarray:
    """uint64[n] of words string[n]: the same in any process."""
    import tensorflow as tf

    from tfdata.encode import texts_to_tensor

    hashed = tf.strings.to_hash_bucket_fast(texts_to_tensor(names), 2**62)
    return hashed.numpy().astype(np.uint64)
