"""The training of model.linear: an L2-regularised linear SVM of each class against all others.

Squared hinge with C = 1, as scikit-learn's LinearSVC; a class's own documents cost more where the
class is smaller than the mean (`choose_costs`). It is solved by dual coordinate ascent (Hsieh et
al. 2008) on blocks of documents: each block's dual problem is solved to a few steps of accelerated
projected gradient (Beck and Teboulle 2009) on its Gram matrix, so that all of it is products of
matrices. The intercept is not learned but -1, where a document that shares nothing with a class
has no loss: so nearly all dual variables are 0, and blocks get on with one another.
Legend: D documents, V token ids, R features, C classes, S blocks of B documents, U features in a
block, T tokens, G most distance of the words of a pair.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import tensorflow as tf

from model.linear import Features, LinearWeights, count_numbers, hash_pairs
from tfdata.device_feed import gather_batch
from tfdata.plan import FILLER
from tfdata.progress import show_progress
from tfdata.window import Window

_SEEN_DOCS, _FEWEST_EPOCHS, _MOST_EPOCHS = 400_000, 2, 8
_BLOCK_DOCS, _MIXED_BLOCKS = 64, 64
_INNER_STEPS = 5
_MOST_COST = 16.0
_LEAST_COUNT = 2  # of the training texts that have a feature
_MOST_WEIGHTS = 1 << 27  # 512 MiB
_MOST_FEATURES = (1 << 24) - 1  # float32 holds their numbers exactly: model.linear.Features
_MOST_DUALS = 1 << 28  # 1 GiB; of more documents, the first: shards are in random order
_COUNTED_NUMBERS = 1 << 23
_CALL_BLOCKS = 256


class Source(Protocol):
    """Documents in windows, in one order in every epoch: a WindowSource without a seed."""

    num_docs: int

    def read(self, epoch: int) -> Iterator[Window]: ...


def fit_linear(
    source: Source,
    vocab_size: int,
    num_classes: int,
    *,
    num_pairs: int,
    pieces: np.ndarray,
    reach: int,
    weighs_rare: bool = True,
    seed: int = 0,
    is_stopped: threading.Event | None = None,
) -> LinearWeights | None:
    """The classifier of the documents of a source.

    None where there are no features, or it was stopped.

    Args:
      num_pairs: hash buckets of pairs, a power of two.
      pieces: int32[V, K]: the buckets of each word's pieces; 0 is none.
      reach: G.
      weighs_rare: documents of small classes cost more (`choose_costs`).
    """
    counts = np.zeros(count_numbers(vocab_size, num_pairs, pieces), np.int64)
    label_counts = np.zeros(num_classes, np.int64)
    epochs = choose_epochs(source.num_docs)
    for window in source.read(0):
        known = window.labels[window.labels < num_classes]
        label_counts += np.bincount(known, minlength=num_classes)
        for docs in _cut(window, _COUNTED_NUMBERS // (1 + reach + pieces.shape[1])):
            if is_stopped is not None and is_stopped.is_set():
                return None
            _count(docs, num_pairs, pieces, reach, counts)
    features = _choose(counts, min(_MOST_FEATURES, _MOST_WEIGHTS // num_classes))
    if not len(features):
        return None
    num_docs = min(source.num_docs, most_docs(num_classes))
    if num_docs < source.num_docs:
        print(f"linear classifier: of the {num_docs:,} documents that there is room for")
    idf = 1 + np.log((1 + source.num_docs) / (1 + counts[features]))
    found = Features(features, idf, vocab_size, num_pairs, pieces, reach)
    costs = choose_costs(label_counts) if weighs_rare else np.ones(num_classes, np.float32)
    ascent = DualAscent(found, num_docs, costs)
    rng = np.random.default_rng([seed, 3])
    total = num_docs * epochs
    with show_progress("linear classifier") as update:
        for epoch in range(epochs):
            for window in source.read(epoch):
                if window.first_doc >= num_docs:
                    break
                for num_seen in ascent.run(window, rng):
                    if is_stopped is not None and is_stopped.is_set():
                        return None
                    done = epoch * num_docs + window.first_doc + num_seen
                    update(done, done / total)
    return LinearWeights(
        features, idf.astype(np.float32), ascent.weights(), vocab_size, num_pairs, pieces, reach
    )  # fmt: skip


def most_docs(num_classes: int) -> int:
    """That there is room for: each has a dual variable for every class."""
    return _MOST_DUALS // num_classes


def choose_num_pairs(num_pairs: int) -> int:
    """Hash buckets for so many pairs: four a pair, as far as that is no more than 2^24.

    >>> choose_num_pairs(100_000)
    524288
    """
    return 2 ** int(np.clip(np.ceil(np.log2(max(1, 4 * num_pairs))), 16, 24))


def choose_epochs(num_docs: int) -> int:
    """Passes over so many documents: the fewer there are, the more it takes.

    >>> [choose_epochs(num_docs) for num_docs in (8_000, 100_000, 700_000)]
    [8, 4, 2]
    """
    return int(np.clip(round(_SEEN_DOCS / num_docs), _FEWEST_EPOCHS, _MOST_EPOCHS))


def choose_costs(label_counts: np.ndarray) -> np.ndarray:
    """float32[C]: C of the hinge loss of a class's own documents, against all others with C = 1:
    the root of how much smaller the class is than the mean (Veropoulos et al. 1999).

    With one C for all, the decision values of a class of a few texts are a third short even of
    those texts, and a large class wins.

    >>> choose_costs(np.array([799, 1])).round(1).tolist()
    [1.0, 16.0]
    """
    shares = label_counts.mean() / np.maximum(1, label_counts)
    return np.clip(np.sqrt(shares), 1.0, _MOST_COST).astype(np.float32)


class DualAscent:
    """The weights, and a dual variable for each document and class; `run` betters both."""

    def __init__(self, features: Features, num_docs: int, costs: np.ndarray):
        """Args:
        costs: float32[C], of a class's own documents.
        """
        num_classes = len(costs)
        self._features, self._num_docs, self._num_classes = features, num_docs, num_classes
        self._costs = tf.constant(costs, tf.float32)
        num_rows = int(features.idf.shape[0])
        self._weights = tf.Variable(tf.zeros([num_rows, num_classes]), trainable=False)
        # one more, of what is no document
        self.duals = tf.Variable(tf.zeros([num_docs + 1, num_classes]), trainable=False)
        """float32[D + 1, C]."""
        with tf.device("CPU:0"):
            self._no_weights = tf.zeros([num_classes + 1])

    def weights(self) -> np.ndarray:
        """float32[R, C]."""
        return self._weights.numpy()[1:]

    def run(self, window: Window, rng: np.random.Generator) -> Iterator[int]:
        """One pass over a window's documents, in a random order; yields how many are done."""
        num_here = min(len(window), self._num_docs - window.first_doc)
        rows, widths = _plan(window.lengths[:num_here], rng)
        with tf.device("CPU:0"):  # of what may be larger than a GPU's memory, it gets the blocks
            tensors = [
                tf.constant(window.ids), tf.constant(window.offsets),
                tf.constant(window.labels.astype(np.int64)),
                tf.constant(window.first_doc, tf.int64),
            ]  # fmt: skip
        for first in range(0, len(rows), _CALL_BLOCKS):
            some = slice(first, first + _CALL_BLOCKS)
            with tf.device("CPU:0"):
                blocks = tf.constant(rows[some]), tf.constant(widths[some])
            self._run(*tensors, *blocks)
            yield min(num_here, (first + len(rows[some])) * _BLOCK_DOCS)

    @tf.function(reduce_retracing=True)
    def _run(self, ids, offsets, labels, first_doc, rows_SB, widths_S):
        for block in tf.range(tf.size(widths_S)):
            with tf.device("CPU:0"):
                batch = gather_batch(
                    ids, offsets, labels, first_doc, self._no_weights, rows_SB[block], 1.0,
                    widths_S[block],
                )  # fmt: skip
            self._better(batch)

    def _better(self, batch) -> None:
        """A block's dual variables, and the weights along with them."""
        # a filler; or, of a validation part, a label that training lacks
        is_real = (batch.docs >= 0) & (batch.labels < self._num_classes)
        lengths = tf.where(is_real, batch.lengths, 0)
        rows_BF, values_BF = self._features.find(batch.token_ids, lengths)
        used_U, places = tf.unique(tf.reshape(rows_BF, [-1]), tf.int64)
        num_used = tf.size(used_U, tf.int64)
        shape = tf.shape(rows_BF, tf.int64)
        flat = tf.repeat(tf.range(shape[0]), shape[1]) * num_used + places
        x_BU = tf.math.unsorted_segment_sum(tf.reshape(values_BF, [-1]), flat, shape[0] * num_used)
        x_BU = tf.reshape(x_BU, [shape[0], num_used])
        decisions_BC = tf.matmul(x_BU, tf.gather(self._weights, used_U)) - 1.0
        gram_BB = tf.matmul(x_BU, x_BU, transpose_b=True)
        docs = tf.where(is_real, batch.docs, self._num_docs)
        signs_BC = 2.0 * tf.one_hot(batch.labels, self._num_classes) - 1.0
        before_BC = tf.gather(self.duals, docs)
        after_BC = _solve(before_BC, signs_BC, decisions_BC, gram_BB, self._costs)
        self.duals.scatter_update(tf.IndexedSlices(after_BC, docs))
        change_UC = tf.matmul(x_BU, signs_BC * (after_BC - before_BC), transpose_a=True)
        self._weights.scatter_add(tf.IndexedSlices(change_UC, used_U))


def _solve(duals_BC, signs_BC, decisions_BC, gram_BB, costs_C) -> tf.Tensor:
    """float32[B, C], none below 0: better dual variables of a block; the decision values are those
    of the weights as they are."""
    ridge_BC = tf.where(signs_BC > 0, 1 / (2 * costs_C), 1 / 2)
    step = 1.0 / (tf.reduce_max(tf.reduce_sum(gram_BB, axis=1)) + 1 / 2)
    now, ahead, momentum = duals_BC, duals_BC, 1.0
    for _ in range(_INNER_STEPS):
        moved_BC = decisions_BC + tf.matmul(gram_BB, signs_BC * (ahead - duals_BC))
        slope_BC = 1.0 - signs_BC * moved_BC - ridge_BC * ahead
        new = tf.nn.relu(ahead + step * slope_BC)
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / next_momentum * (new - now)
        now, momentum = new, next_momentum
    return now


def _cut(window: Window, most_tokens: int) -> Iterator[Window]:
    """A window's documents, some at a time."""
    first = 0
    while first < len(window):
        limit = window.offsets[first] + most_tokens
        last = max(first + 1, int(np.searchsorted(window.offsets, limit, side="right")) - 1)
        tokens = slice(window.offsets[first], window.offsets[last])
        offsets = window.offsets[first : last + 1] - window.offsets[first]
        yield Window(window.ids[tokens], offsets, window.labels[first:last], 0)
        first = last


def _count(
    window: Window, num_pairs: int, pieces: np.ndarray, reach: int, counts: np.ndarray
) -> None:
    """Adds to `counts`, of each word, pair and piece, how many of a window's texts have it."""
    ids, vocab_size = window.ids.astype(np.int64), len(pieces)
    docs = np.repeat(np.arange(len(window)), window.lengths)
    pairs, pair_docs = [], []  # counted together: two of them may have one bucket
    for distance in range(1, reach + 1):
        is_pair = docs[:-distance] == docs[distance:]
        left, right = (some[is_pair] for some in (ids[:-distance], ids[distance:]))
        with tf.device("CPU:0"):
            buckets = hash_pairs(tf.constant(left), tf.constant(right), num_pairs, distance)
        pairs.append(vocab_size + buckets.numpy())
        pair_docs.append(docs[distance:][is_pair])
    found = [(ids, docs), (np.concatenate(pairs), np.concatenate(pair_docs))]
    if pieces.size:
        tokens, places = np.nonzero(pieces[ids])
        found.append((vocab_size + num_pairs + pieces[ids[tokens], places], docs[tokens]))
    for numbers, of in found:
        some = np.unique(of * len(counts) + numbers) % len(counts)
        counts += np.bincount(some, minlength=len(counts))


def _choose(counts: np.ndarray, most: int) -> np.ndarray:
    """int64[R], ascending: what two texts have or more; the most frequent, if there are more than
    `most`."""
    found = np.flatnonzero(counts >= _LEAST_COUNT)
    if len(found) > most:
        found = np.sort(found[np.argsort(-counts[found], kind="stable")[:most]])
    return found


def _plan(lengths: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Blocks int64[S, B] of documents int32[D] in a random order, alike in length within a block,
    and their widths int32[S]; FILLER where the last has no more."""
    order = rng.permutation(len(lengths))
    mixed = _BLOCK_DOCS * _MIXED_BLOCKS
    group = np.arange(len(order)) // mixed
    order = order[np.lexsort((lengths[order], group))]
    rows = np.full(-(-len(order) // _BLOCK_DOCS) * _BLOCK_DOCS, FILLER, np.int64)
    rows[: len(order)] = order
    rows = rows.reshape(-1, _BLOCK_DOCS)
    rows = rows[rng.permutation(len(rows))]
    widths = np.where(rows >= 0, lengths[np.maximum(rows, 0)], 1).max(axis=1)
    return rows, widths.astype(np.int32)
