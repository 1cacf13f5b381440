"""A light text classifier: TF-IDF of words, then softmax, with Adagrad steps by row.

It stands in for a training where a check asks what one would score: seconds instead of minutes,
and near a linear SVM's accuracy. Legend: B documents of a batch, F features, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from tfdata.words import Words

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BATCH_DOCS = 128
_LEARNING_RATE = 3.0
_EPOCHS = 3
_MOST_FEATURES = 50_000
_MOST_WEIGHTS = 1 << 25
_CHUNK_DOCS = 4_096


def build_features(words: Words, num_classes: int) -> csr_array:
    """TF-IDF float32[documents, F] of the commonest words that occur twice; rows of length 1."""
    from scipy.sparse import csr_array

    counts = np.bincount(words.ids, minlength=len(words.names))
    most = min(_MOST_FEATURES, _MOST_WEIGHTS // num_classes, int((counts > 1).sum()))
    rank = np.empty(len(counts), np.int32)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts), dtype=np.int32)
    ranks = rank[words.ids]
    kept = ranks < most
    offsets = np.concatenate([[0], np.cumsum(kept)])[words.offsets]
    shape = (len(words.offsets) - 1, max(most, 1))
    ones = np.ones(offsets[-1], np.float32)
    matrix = csr_array((ones, ranks[kept], offsets), shape=shape)
    matrix.sum_duplicates()
    documents = np.bincount(matrix.indices, minlength=shape[1])
    rarity = np.log((shape[0] + 1) / (documents + 1)).astype(np.float32) + 1
    matrix.data = (1 + np.log(matrix.data)) * rarity[matrix.indices]
    sums = np.bincount(
        np.repeat(np.arange(shape[0]), np.diff(matrix.indptr)), matrix.data**2, shape[0]
    )
    norms = np.sqrt(np.maximum(sums, 1e-12)).astype(np.float32)
    matrix.data /= np.repeat(norms, np.diff(matrix.indptr))
    return matrix


def shape_of(features: csr_array) -> tuple[int, int]:
    """How many documents, and F; scipy's own type leaves it open."""
    return cast("tuple[int, int]", features.shape)


class SoftmaxClassifier:
    """Weights float32[F, C], trained by `train`."""

    def __init__(self, num_features: int, num_classes: int):
        self._weights = np.zeros((num_features, num_classes), np.float32)
        self._bias = np.zeros(num_classes, np.float32)
        self._sums = np.full((num_features, 1), 1e-6, np.float32)

    def train(self, features: csr_array, codes: np.ndarray, order: np.ndarray) -> None:
        """Steps over the documents `order` int64[n] as they come, at a falling rate."""
        for start in range(0, len(order), _BATCH_DOCS):
            rows = order[start : start + _BATCH_DOCS]
            rate = _LEARNING_RATE * (1 - start / len(order))
            self._step(features[rows], codes[rows], rate)

    def _step(self, batch: csr_array, codes: np.ndarray, rate: float) -> None:
        used, batch.indices = np.unique(batch.indices, return_inverse=True)
        batch = type(batch)((batch.data, batch.indices, batch.indptr), (len(codes), len(used)))
        error = softmax(batch @ self._weights[used] + self._bias)
        error[np.arange(len(codes)), codes] -= 1
        gradient = batch.T @ error
        self._sums[used] += np.square(gradient).sum(axis=1, keepdims=True)
        self._weights[used] -= gradient * (rate / np.sqrt(self._sums[used]))
        self._bias -= rate * error.mean(axis=0)

    def probabilities(self, features: csr_array) -> np.ndarray:
        """float32[B, C]"""
        return softmax(features @ self._weights + self._bias)

    def predict(self, features: csr_array) -> np.ndarray:
        """int64[B]: the likeliest class of each document."""
        starts = range(0, shape_of(features)[0], _CHUNK_DOCS)
        chunks = [features[start : start + _CHUNK_DOCS] @ self._weights for start in starts]
        found = [(scores + self._bias).argmax(axis=1) for scores in chunks]
        return np.concatenate([*found, np.zeros(0, np.int64)])


def fit(
    features: csr_array, codes: np.ndarray, rows: np.ndarray, num_classes: int, seed: int = 0
) -> SoftmaxClassifier:
    """A classifier of `num_classes`, trained on the documents `rows`, shuffled in every epoch."""
    random = np.random.default_rng(seed)
    model = SoftmaxClassifier(shape_of(features)[1], num_classes)
    model.train(features, codes, np.concatenate([random.permutation(rows) for _ in range(_EPOCHS)]))
    return model


def softmax(scores: np.ndarray) -> np.ndarray:
    """Scores float32[B, C] to probabilities."""
    scores = scores - scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    return scores / scores.sum(axis=1, keepdims=True)
