"""A linear classifier of words, pairs and pieces of words, whose decision values add to the logits.

A text is the words in it, the pairs of words that stand no more than G apart (their distance is
part of what they are; skip-grams, Guthrie et al. 2006), and the pieces of the words
(tfdata.subwords), one that occurs n times as 1 + log n times its idf, the whole divided by its
length (L2), as scikit-learn's TfidfVectorizer has it with sublinear_tf. What the network learns
from steps of batches and what a linear classifier finds with L2 regularisation are wrong about
different texts: together they are better than either.
Legend: B documents, T tokens, V token ids, K most pieces of a word, F = (1 + G + K)T words, pairs
and pieces of a text, R features, C classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # not public as yet

from model.checkpoint import load_checkpoint, write_checkpoint
from shortline import UserError, printable

_MOST_PRODUCTS_ON_GPU = 1 << 31
"""Of TensorFlow's product with a sparse matrix: its numbers times the classes."""
_MOST_TOKENS = 1 << 18  # of a batch of model.infer
_MOST_REACH = 16  # of a file that is not damaged
# odd, 64 bits: golden ratio; xxHash; MurmurHash3
_PAIR_HASH = (-7046029254386353131, -4417276706812531889, -49064778989728563)


class LinearWeights(NamedTuple):
    """What there is to know of such a classifier."""

    features: np.ndarray
    """int64[R], ascending: token ids, V + the bucket of a pair, V + num_pairs + that of a piece."""
    idf: np.ndarray
    """float32[R]."""
    weights: np.ndarray
    """float32[R, C]."""
    vocab_size: int
    """V."""
    num_pairs: int
    """Hash buckets of pairs, a power of two; those that are features have weights."""
    pieces: np.ndarray
    """int32[V, K]: the buckets of each word's pieces; 0 is none. K may be 0."""
    reach: int = 1
    """G."""

    @property
    def num_numbers(self) -> int:
        """Of what may be features: each is less."""
        return count_numbers(self.vocab_size, self.num_pairs, self.pieces)

    def scaled(self, factor: float) -> LinearWeights:
        """With decision values so many times as large."""
        return self._replace(weights=self.weights * np.float32(factor))


class LinearPath(tf.Module):
    """It, in TensorFlow: token ids to decision values."""

    def __init__(self, linear: LinearWeights):
        """Call it under the strategy scope."""
        super().__init__()
        # nor has a GPU a kernel of it that rounds the same way every time
        numbers_of_batch = _MOST_TOKENS * (1 + linear.reach + linear.pieces.shape[1])
        is_too_large = numbers_of_batch * linear.weights.shape[1] >= _MOST_PRODUCTS_ON_GPU
        self._is_on_host = is_too_large or is_op_determinism_enabled()
        self._features = Features(
            linear.features, linear.idf, linear.vocab_size, linear.num_pairs, linear.pieces,
            linear.reach,
        )  # fmt: skip
        weights = np.pad(linear.weights, [(1, 0), (0, 0)])
        with self._place():
            self._weights = tf.Variable(weights, trainable=False)

    def _place(self) -> contextlib.AbstractContextManager:
        return tf.device("CPU:0") if self._is_on_host else contextlib.nullcontext()

    def values(self, token_ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """int[B, T], int[B] → float32[B, C]; 0 for a text without any of the features."""
        rows, values = self._features.find(token_ids, lengths)
        found = tf.where(rows > 0)
        places = tf.stack([found[:, 0], tf.gather_nd(rows, found)], axis=1)
        shape = tf.stack([tf.shape(rows, tf.int64)[0], tf.shape(self._weights, tf.int64)[0]])
        texts = tf.SparseTensor(places, tf.gather_nd(values, found), shape)
        with self._place():
            return tf.sparse.sparse_dense_matmul(texts, self._weights)


class Features(tf.Module):
    """Which of a text's words, pairs and pieces are features, and what they weigh."""

    def __init__(
        self, features: np.ndarray, idf: np.ndarray, vocab_size: int, num_pairs: int,
        pieces: np.ndarray, reach: int,
    ):  # fmt: skip
        """Call it under the strategy scope. Arguments as of `LinearWeights`."""
        super().__init__()
        self._vocab_size, self._num_pairs, self._reach = vocab_size, num_pairs, reach
        # as float32, which a GPU can hold, and which is exact up to 2^24
        rows = np.zeros(count_numbers(vocab_size, num_pairs, pieces), np.float32)
        rows[features] = 1 + np.arange(len(features))
        self._rows = tf.Variable(rows[: vocab_size + num_pairs], trainable=False)
        self._pieces = None
        if pieces.size:  # the row of each piece that is a feature
            rows_of_pieces = np.append(np.float32(0), rows[vocab_size + num_pairs + 1 :])
            self._pieces = tf.Variable(rows_of_pieces[pieces], trainable=False)
        self.idf = tf.Variable(np.append(np.float32(0), idf).astype(np.float32), trainable=False)
        """float32[R + 1], of each row; 0 of row 0, which stands for no feature."""

    def find(self, token_ids: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """int[B, T], int[B] → rows int64[B, F], ascending: 1 + the number of a feature, or 0; and
        values float32[B, F]: those of one row add up to that feature's in the text's vector."""
        token_ids, lengths = tf.cast(token_ids, tf.int64), tf.cast(lengths, tf.int64)
        num_tokens = tf.shape(token_ids)[1]
        with tf.device("CPU:0"):  # a range begins and ends on the host
            positions = tf.range(tf.cast(num_tokens, tf.int64))
        inside = positions < lengths[:, tf.newaxis]
        found = [tf.where(inside, tf.gather(self._rows, token_ids), 0.0)]
        for distance in range(1, self._reach + 1):
            left, right = token_ids[:, :-distance], token_ids[:, distance:]
            pairs = self._vocab_size + hash_pairs(left, right, self._num_pairs, distance)
            found.append(tf.where(inside[:, distance:], tf.gather(self._rows, pairs), 0.0))
        if self._pieces is not None:
            pieces = tf.gather(self._pieces, token_ids)
            pieces = tf.where(inside[:, :, tf.newaxis], pieces, 0.0)
            size = num_tokens * self._pieces.shape[1]
            found.append(tf.reshape(pieces, [tf.shape(token_ids)[0], size]))
        sorted_BF = tf.sort(tf.concat(found, axis=1), axis=1)
        first, last = (
            tf.searchsorted(sorted_BF, sorted_BF, side, tf.int64)  # a GPU has no int32 kernels
            for side in ("left", "right")
        )
        times = tf.cast(last - first, tf.float32)
        rows = tf.cast(sorted_BF, tf.int64)
        values = tf.gather(self.idf, rows) * (1.0 + tf.math.log(times))
        square = tf.reduce_sum(tf.square(values) / times, axis=1, keepdims=True)
        return rows, values / times / tf.sqrt(tf.where(square > 0, square, 1.0))


def hash_pairs(left: tf.Tensor, right: tf.Tensor, num_buckets: int, distance: int = 1) -> tf.Tensor:
    """int64[...] of one shape: the buckets of pairs of tokens; `num_buckets` is a power of two."""
    left_hash, right_hash, far_hash = (tf.constant(number, tf.int64) for number in _PAIR_HASH)
    mixed = left * left_hash + right * right_hash + far_hash * (distance - 1)
    shifted = tf.bitwise.right_shift(mixed, tf.constant(29, tf.int64))
    mixed = tf.bitwise.bitwise_xor(mixed, shifted)
    return tf.bitwise.bitwise_and(mixed, tf.constant(num_buckets - 1, tf.int64))


def count_numbers(vocab_size: int, num_pairs: int, pieces: np.ndarray) -> int:
    """Of words, pairs and pieces."""
    return vocab_size + num_pairs + 1 + int(pieces.max(initial=0))


def to_arrays(linear: LinearWeights) -> dict[str, np.ndarray]:
    """Its fields, the weights as float16."""
    found = linear._replace(weights=linear.weights.astype(np.float16))
    return {name: np.asarray(value) for name, value in found._asdict().items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> LinearWeights:
    """The reverse of `to_arrays`."""
    return LinearWeights(
        arrays["features"], arrays["idf"], arrays["weights"].astype(np.float32),
        int(arrays["vocab_size"]), int(arrays["num_pairs"]), arrays["pieces"].astype(np.int32),
        int(arrays.get("reach", 1)),  # runs of before it was kept
    )  # fmt: skip


def write_linear(path: Path, linear: LinearWeights) -> None:
    write_checkpoint(path, to_arrays(linear))


def read_linear(path: Path, num_classes: int, vocab_size: int) -> LinearWeights | None:
    """None where a run has none.

    Raises:
      UserError: the file is damaged, or of other classes or words.
    """
    if not path.exists():
        return None
    arrays, _ = load_checkpoint(path)
    try:
        linear = from_arrays(arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: damaged, or of another version: {error}; restore it, or make it again: "
            f"python train.py --resume {printable(str(path.parent))}"
        ) from None
    features, num_rows = linear.features, len(linear.features)
    fits = linear.weights.shape == (num_rows, num_classes) and linear.idf.shape == (num_rows,)
    fits = fits and linear.vocab_size == vocab_size
    fits = fits and linear.pieces.ndim == 2 and len(linear.pieces) == vocab_size
    fits = fits and linear.pieces.min(initial=0) >= 0 and 1 <= linear.reach <= _MOST_REACH
    if not fits or not ((features >= 0) & (features < linear.num_numbers)).all():
        raise UserError(
            f"{path}: of other classes or words than labels.txt and vocab.txt; restore it or "
            "train anew"
        )
    return linear
