"""What a text's words are looked up in: their vectors, and those of pairs of neighbours.

A word's vector is its embedding, its stem's, and the mean of its pieces' (Bojanowski et al. 2017);
so rare words take part in what is learned of those like them, and unknown ones have their stem's.
A pair of neighbours that training has seen more than once has a vector of its own, and all others
have one in common: of a pair that was seen once it would learn that text by heart, and hash buckets
(fastText's, Joulin et al. 2017) mix what has nothing to do with one another.
Legend: V token ids, U of them in use, K most pieces of a word, N pieces of the U words,
G buckets of pieces, E embedding, R pairs, P size of a pair's vector, B documents, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from model.config import ModelConfig

TABLES = ("embedding", "pieces", "pairs")
"""Weights of which a batch reads some rows; a network has the first, and may have the others."""
_NO_PAIR = 2**62  # a key above those of all pairs
_INITIAL = 0.05
_FOLDED_WORDS = 65_536  # at once: some 100 MB

Table = tf.Tensor | tf.Variable
TakeRows = Callable[[str, tf.Tensor], tuple[Table, tf.Tensor]]
"""take(table, numbers int64[N]) → rows of it, all or those of the numbers alone, and each number's
place among them int[N]."""


class WordParts(NamedTuple):
    """What the vocabulary's entries are made of."""

    stems: np.ndarray
    """int32[V]: the id of each entry's stem, or its own."""
    pieces: np.ndarray
    """int32[V, K]: 1 … G - 1; 0 is none."""


class Found(NamedTuple):
    """A batch's tokens and pairs, and the rows of the tables that they count in."""

    token_ids: tf.Tensor
    """int64[B, T], of the U words."""
    unknown_id: int
    """Of the U words."""
    words: Table
    """float32[*, E], of `embedding`."""
    places: tf.Tensor | None = None
    """int64[U], rows of `words`; None: all, in order."""
    stems: tf.Tensor | None = None
    """int64[U], of the U words."""
    stem_weights: tf.Tensor | None = None
    """float32[U, 1]: 1, or 0 where a word has no stem."""
    piece_rows: Table | None = None
    """float32[*, E], of `pieces`."""
    pieces: tf.Tensor | None = None
    """int64[U, K], rows of `piece_rows`; or int[N + 1], of the pieces that there are, and none."""
    piece_weights: tf.Tensor | None = None
    """float32[U, K]: one over the number of a word's pieces, 0 where it has no more."""
    pieces_of: tf.Tensor | None = None
    """int64[N + 1], rising: the word of the U that each of the N pieces is of, and U."""
    pair_rows: Table | None = None
    """float32[*, P], of `pairs`."""
    pairs: tf.Tensor | None = None
    """int64[B, T], rows of `pair_rows`: of each token and its right neighbour."""

    def vectors(self) -> tf.Tensor:
        """float32[U, E], of each word."""
        words = self.words if self.places is None else tf.gather(self.words, self.places)
        vectors = tf.convert_to_tensor(words)
        if self.stems is not None:
            vectors += tf.gather(words, self.stems) * self.stem_weights
        if self.pieces_of is not None:
            num_words = tf.shape(vectors, tf.int64)[0]
            vectors += tf.sparse.segment_mean(
                self.piece_rows, self.pieces, self.pieces_of, num_words + 1
            )[:-1]
        elif self.pieces is not None:
            pieces = tf.gather(self.piece_rows, self.pieces)
            vectors += tf.einsum("uke,uk->ue", pieces, self.piece_weights)
        return vectors


class Words:
    """The tables, and what the vocabulary's entries are made of."""

    def __init__(
        self, config: ModelConfig, vocab_size: int, unknown_id: int, parts: WordParts | None,
        seed: int,
    ):  # fmt: skip
        """Call it under the strategy scope.

        Args:
          parts: None where words have neither stems nor pieces.
        """
        self._vocab_size, self._unknown_id = vocab_size, unknown_id
        size = config.embedding_dim
        self.tables = {"embedding": _make_table("embedding", vocab_size, size, seed)}
        self._stems = self._pieces = self._pair_keys = None
        own = np.arange(vocab_size)
        if parts is not None and np.any(parts.stems != own):
            has_stem = (parts.stems != own).astype(np.float32)[:, np.newaxis]
            self._stems = _keep(parts.stems.astype(np.int64)), _keep(has_stem)
        if parts is not None and config.pieces:
            is_piece = parts.pieces > 0
            weights = is_piece / np.maximum(1, is_piece.sum(axis=1, keepdims=True))
            self._pieces = _keep(parts.pieces.astype(np.int64)), _keep(weights.astype(np.float32))
            self.tables["pieces"] = _make_table("pieces", config.pieces, size, seed + 2)
        if config.pairs:
            self.tables["pairs"] = _make_table("pairs", config.pairs, config.pairs_dim, seed + 3)
            self._pair_keys = _keep(np.full(config.pairs - 1, _NO_PAIR, np.int64))

    @property
    def fixed_by_name(self) -> dict[str, tf.Variable]:
        """What belongs to the tables, and is not trained."""
        return {} if self._pair_keys is None else {"pair_keys": self._pair_keys}

    def list_pairs(self, keys: np.ndarray) -> None:
        """Gives pairs vectors of their own.

        Args:
          keys: int64[R] of `key_pairs`, ascending; R is less than the rows of the table.
        """
        assert self._pair_keys is not None
        room = self._pair_keys.shape[0] - len(keys)
        self._pair_keys.assign(np.pad(keys, (0, room), constant_values=_NO_PAIR))

    @property
    def has_parts(self) -> bool:
        return self._stems is not None or self._pieces is not None

    def fold(self) -> None:
        """Makes each word's vector its embedding: faster, for a network that learns no more."""
        if not self.has_parts:
            return
        vectors = []
        for first in range(0, self._vocab_size, _FOLDED_WORDS):
            last = min(first + _FOLDED_WORDS, self._vocab_size)
            found = self.find_rows(tf.range(first, last, dtype=tf.int64)[tf.newaxis])
            vectors.append(tf.gather(found.vectors(), found.token_ids[0]))
        self.tables["embedding"].value.assign(tf.concat(vectors, axis=0))
        self._stems = self._pieces = None
        self.tables.pop("pieces", None)

    def find(self, token_ids: tf.Tensor) -> Found:
        """int64[B, T] of the vocabulary, in the whole tables: nothing that a GPU would wait for."""
        found = Found(token_ids, self._unknown_id, self.tables["embedding"].value)
        if self._stems is not None:
            found = found._replace(stems=self._stems[0], stem_weights=self._stems[1])
        if self._pieces is not None:
            found = found._replace(
                pieces=self._pieces[0], piece_weights=self._pieces[1],
                piece_rows=self.tables["pieces"].value,
            )  # fmt: skip
        if self._pair_keys is not None:
            pairs = self._find_pairs(token_ids)
            found = found._replace(pairs=pairs, pair_rows=self.tables["pairs"].value)
        return found

    def find_rows(self, token_ids: tf.Tensor, take: TakeRows | None = None) -> Found:
        """The same for the words alone that the batch reads: what a CPU does.

        Args:
          take: default: whole tables.
        """
        take = self._take_all if take is None else take
        shape = tf.shape(token_ids)
        flat = [tf.constant([self._unknown_id], tf.int64), tf.reshape(token_ids, [-1])]
        if self._stems is not None:  # in place of words that are dropped
            flat.append(tf.gather(self._stems[0], flat[1]))
        numbers, words = tf.unique(tf.concat(flat, axis=0), tf.int64)
        tokens = tf.reshape(words[1 : 1 + tf.size(token_ids)], shape)
        rows, places = take("embedding", numbers)
        found = Found(tokens, 0, rows, places)  # the unknown word's number was the first
        if self._stems is not None:
            word = tf.range(tf.size(numbers, tf.int64))
            word_of_number = tf.scatter_nd(numbers[:, tf.newaxis], word, [self._vocab_size])
            stems, weights = (tf.gather(table, numbers) for table in self._stems)
            found = found._replace(stems=tf.gather(word_of_number, stems), stem_weights=weights)
        if self._pieces is not None:
            buckets = tf.gather(self._pieces[0], numbers)
            is_piece = tf.where(buckets > 0)
            # One more, of no word: the gradient of segment_mean of no piece at all is whatever is
            # in memory
            buckets = tf.concat([tf.gather_nd(buckets, is_piece), [0]], axis=0)
            of = tf.concat([is_piece[:, 0], [tf.size(numbers, tf.int64)]], axis=0)
            rows, pieces = take("pieces", buckets)
            found = found._replace(piece_rows=rows, pieces=pieces, pieces_of=of)
        if self._pair_keys is not None:
            rows, pairs = take("pairs", tf.reshape(self._find_pairs(token_ids), [-1]))
            pairs = tf.reshape(tf.cast(pairs, tf.int64), shape)
            found = found._replace(pairs=pairs, pair_rows=rows)
        return found

    def _take_all(self, name: str, numbers: tf.Tensor) -> tuple[Table, tf.Tensor]:
        return self.tables[name].value, numbers

    def _find_pairs(self, token_ids: tf.Tensor) -> tf.Tensor:
        """int64[B, T]: the row of each token and the one to its right; 0 is all that have none."""
        assert self._pair_keys is not None
        right = tf.concat([token_ids[:, 1:], tf.zeros_like(token_ids[:, :1])], axis=1)
        keys = tf.reshape(key_pairs(token_ids, right), [-1])
        places = tf.searchsorted(self._pair_keys, keys, out_type=tf.int64)
        there = tf.gather(self._pair_keys, tf.minimum(places, self._pair_keys.shape[0] - 1))
        rows = tf.where(tf.equal(there, keys), places + 1, tf.zeros_like(places))
        return tf.reshape(rows, tf.shape(token_ids))


def key_pairs(left, right):
    """int64[...] of one shape, tensors or arrays: a number for each pair of token ids."""
    return left * 2**31 + right


def _make_table(name: str, num_rows: int, size: int, seed: int) -> keras.Variable:
    draw = keras.initializers.RandomUniform(-_INITIAL, _INITIAL, seed)
    return keras.Variable(draw, shape=(num_rows, size), dtype="float32", name=name)


def _keep(array: np.ndarray) -> tf.Variable:
    """Where the tables are, on every replica: a constant would be in every graph."""
    return tf.Variable(array, trainable=False)
