"""A small network: the mean of word vectors, then softmax, under Adam.

It forgets, as networks do that are trained on one class after the other: all classes share its
vectors. So it stands in for a training where the order of the documents is in question. Legend: B
documents of a batch, F features, D dimensions, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfdata.checkup.classifier import shape_of, softmax

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_DIM = 32
_BATCH_DOCS = 128
_LEARNING_RATE = 3e-3
_BETA, _BETA2 = 0.9, 0.999
_LEAST_STEPS_DOCS, _EPOCHS = 60_000, 3


class BagNetwork:
    """Word vectors float32[F, D], weights float32[D, C] and biases float32[1, C]."""

    def __init__(self, num_features: int, num_classes: int):
        random = np.random.default_rng(0)
        scale = np.sqrt(2 / (_DIM + num_classes))
        self._values = [
            random.uniform(-0.05, 0.05, (num_features, _DIM)).astype(np.float32),
            (scale * random.standard_normal((_DIM, num_classes))).astype(np.float32),
            np.zeros((1, num_classes), np.float32),
        ]
        self._means = [np.zeros_like(value) for value in self._values]
        self._squares = [np.zeros_like(value) for value in self._values]
        self._steps = 0

    def train(self, features: csr_array, codes: np.ndarray, order: np.ndarray) -> None:
        """Steps over the documents `order` int64[n], as they come."""
        for start in range(0, len(order), _BATCH_DOCS):
            rows = order[start : start + _BATCH_DOCS]
            self._step(features[rows], codes[rows])

    def _step(self, batch: csr_array, codes: np.ndarray) -> None:
        self._steps += 1
        used, columns = np.unique(batch.indices, return_inverse=True)
        batch = type(batch)((batch.data, columns, batch.indptr), (len(codes), len(used)))
        vectors, weights, bias = self._values
        hidden = batch @ vectors[used]
        error = softmax(hidden @ weights + bias)
        error[np.arange(len(codes)), codes] -= 1
        error /= len(codes)
        down = batch.T @ (error @ weights.T)
        self._adam(0, used, down)  # only rows of words in the batch move
        self._adam(1, slice(None), hidden.T @ error)
        self._adam(2, slice(None), error.sum(axis=0, keepdims=True))

    def _adam(self, i: int, rows: np.ndarray | slice, gradient: np.ndarray) -> None:
        mean = _BETA * self._means[i][rows] + (1 - _BETA) * gradient
        square = _BETA2 * self._squares[i][rows] + (1 - _BETA2) * gradient**2
        self._means[i][rows], self._squares[i][rows] = mean, square
        rate = _LEARNING_RATE * np.sqrt(1 - _BETA2**self._steps) / (1 - _BETA**self._steps)
        self._values[i][rows] -= rate * mean / (np.sqrt(square) + 1e-7)

    def predict(self, features: csr_array) -> np.ndarray:
        """int64[B]: the likeliest class of each document."""
        vectors, weights, bias = self._values
        return ((features @ vectors) @ weights + bias).argmax(axis=1)


def fit_buffered(
    features: csr_array, codes: np.ndarray, rows: np.ndarray, num_classes: int, buffer: int
) -> BagNetwork:
    """A network trained on the documents `rows` as they come through a shuffle buffer.

    As from tf.data's, each of its `buffer` documents is as likely to be drawn next; so a document
    waits for `buffer` draws on average, and no order is kept within the buffer.
    """
    random = np.random.default_rng(0)
    model = BagNetwork(shape_of(features)[1], num_classes)
    epochs = max(_EPOCHS, -(-_LEAST_STEPS_DOCS // len(rows)))
    places = np.arange(len(rows))
    waits = (random.geometric(1 / max(buffer, 1), len(rows)) for _ in range(epochs))
    order = [rows[np.argsort(places + wait, kind="stable")] for wait in waits]
    model.train(features, codes, np.concatenate(order))
    return model
