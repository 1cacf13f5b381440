"""What words share: their stems, and pieces of a few characters.

A *stem* is a word's first characters, with every digit a 0: what stands in the vocabulary for the
words that it lacks. *Pieces* are a word's character n-grams, as numbers of hash buckets (Bojanowski
et al. 2017, "Enriching Word Vectors with Subword Information").
Legend: V entries of a vocabulary, K most pieces of a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from tfdata.unspaced import ALONE

STEM_END = " *"
"""Ends a stem's entry in a vocabulary. It holds a space, so no word is like it."""
MOST_PIECES = 24
_SIZES = (4, 3, 5, 2)  # characters of a piece; long words keep those of the first sizes
_MOST_CHARACTERS = 24  # of a word, with the marks of its ends
_FIRST, _LAST = "\x02", "\x03"  # the ends: a piece tells whether it begins or ends its word
_WORDS_AT_ONCE = 65_536  # some 200 MB
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def list_stems(words: Iterable[str], num_characters: int) -> list[str]:
    """Entries of the stems of some words, each once, in the order of their first word.

    >>> list_stems(["refunded", "2024", "refund", "a"], 4)
    ['refu *', '0000 *', 'a *']
    """
    stems = (re.sub("[0-9]", "0", word)[:num_characters] for word in words)
    return [stem + STEM_END for stem in dict.fromkeys(stems)]


def find_stems_in_graph(words: tf.Tensor, num_characters: int) -> tf.Tensor:
    """The same for each word: string[N] → string[N], by core ops."""
    plain = tf.strings.regex_replace(words, "[0-9]", "0")
    return tf.strings.join(
        [tf.strings.substr(plain, 0, num_characters, unit="UTF8_CHAR"), STEM_END]
    )


def place_stems(entries: Sequence[str], num_characters: int) -> np.ndarray:
    """int32[V]: for every entry the number of its stem's; its own number where it has none.

    >>> place_stems(["[UNK]", "refunded", "refu *"], 4).tolist()
    [0, 2, 2]
    """
    numbers = np.arange(len(entries), dtype=np.int32)
    number_of = {entry: i for i, entry in enumerate(entries) if entry.endswith(STEM_END)}
    if number_of:
        for i, entry in enumerate(entries):
            stem = re.sub("[0-9]", "0", entry)[:num_characters] + STEM_END
            numbers[i] = i if entry in number_of else number_of.get(stem, i)
    return numbers


def hash_pieces(
    entries: Sequence[str], first_word: int, num_buckets: int, unspaced: str = "keep"
) -> np.ndarray:
    """int32[V, K] from 1 to `num_buckets` - 1, and 0 where an entry has no more pieces.

    Digits count as 0. A stem has the pieces of a word that goes on. Entries before `first_word`
    have none, nor has, where `unspaced` is `split`, a character that is a word of its own: they
    would be but that, again.
    """
    table = np.zeros((len(entries), MOST_PIECES), np.int32)
    is_alone = re.compile(ALONE).fullmatch
    for first in range(first_word, len(entries), _WORDS_AT_ONCE):
        words = [_mark(entry) for entry in entries[first : first + _WORDS_AT_ONCE]]
        table[first : first + len(words)] = _hash_words(words, num_buckets)
    if unspaced == "split":
        table[[is_alone(entry) is not None for entry in entries]] = 0
    return table


def _hash_words(words: Sequence[str], num_buckets: int) -> np.ndarray:
    """int32[len(words), K]."""
    characters = np.array(words, f"U{_MOST_CHARACTERS}").view(np.uint32)
    characters = characters.reshape(-1, _MOST_CHARACTERS).astype(np.uint64)
    lengths = (characters > 0).sum(axis=1)
    hashes, inside = [], []
    with np.errstate(over="ignore"):
        for size in _SIZES:
            windows = np.lib.stride_tricks.sliding_window_view(characters, size, axis=1)
            hashed = np.full(windows.shape[:2], size, np.uint64)
            for place in range(size):
                hashed = (hashed ^ windows[:, :, place]) * _MULTIPLIER
                hashed ^= hashed >> np.uint64(29)
            hashes.append(hashed)
            inside.append(np.arange(windows.shape[1]) + size <= lengths[:, np.newaxis])
    is_piece = np.concatenate(inside, axis=1)
    buckets = 1 + np.concatenate(hashes, axis=1) % np.uint64(max(1, num_buckets - 1))
    first_pieces = np.argsort(~is_piece, axis=1, kind="stable")[:, :MOST_PIECES]
    return np.take_along_axis(np.where(is_piece, buckets, 0), first_pieces, axis=1)


def _mark(entry: str) -> str:
    entry = re.sub("[0-9]", "0", entry)
    if entry.endswith(STEM_END):
        return _FIRST + entry[: -len(STEM_END)]
    return (_FIRST + entry)[: _MOST_CHARACTERS - 1] + _LAST
