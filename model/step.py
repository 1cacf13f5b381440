"""The compiled loops: many training steps, or an evaluation, in one call.

Nothing is fetched from the device within a call. One replica or many, it is the same code.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from model.classifier import Classifier
from model.lazy_rows import Rows
from model.losses import cross_entropy
from model.optimizer import Adam
from model.words import Table, TakeRows
from model.workers import Workers


class ChunkMetrics(NamedTuple):
    """Sums over the documents of a chunk of steps."""

    loss: float
    """Sum of the weighted losses, without label smoothing."""
    num_correct: int
    num_docs: int
    num_bad_steps: int = 0
    """Steps whose loss or gradient was not finite; their losses are not in the sum."""
    num_good_steps: int = 0
    """Steps before the first of those."""
    num_loss_docs: int = 0
    """Documents whose losses are in the sum."""

    @property
    def mean_loss(self) -> float:
        """Of a document; NaN where every step was bad."""
        return self.loss / self.num_loss_docs if self.num_loss_docs else math.nan


class Outcome(NamedTuple):
    """What a network makes of a replica's batch, one entry a document: float32[B] each."""

    losses: tf.Tensor
    """To be minimised, before the documents' weights."""
    shown: tf.Tensor
    """To be shown: without label smoothing."""
    correct: tf.Tensor
    """1 where it was right, or the share in which it was."""


Forward = Callable[..., Outcome]
"""`(batch, noise, first_row, num_blocks, found)`, as `Classifier.call` has them; found: of
`Network.find_rows`, or None."""


class Predictions(NamedTuple):
    """One entry a document, in the order of the part."""

    labels: np.ndarray
    """int32[D], as the data has them."""
    predicted: np.ndarray
    """int32[D]."""
    probabilities: np.ndarray
    """float32[D], of the predicted class."""
    losses: np.ndarray
    """float32[D], cross-entropy; 0 where training lacks the label."""


class Network(Protocol):
    """What the loop needs of a network, besides what it computes."""

    @property
    def weights_by_name(self) -> dict[str, tf.Variable]: ...

    def find_rows(self, token_ids: tf.Tensor, take: TakeRows) -> Any:
        """What `forward` needs of a batch's token_ids int32[B, T] where tables are lazy."""


def build_train_chunk(
    classifier: Any,
    optimizer: Adam,
    iterator: Iterator,
    *,
    seed: int,
    label_smoothing: float = 0.0,
    num_blocks: int = 1,
    forward: Forward | None = None,
) -> Callable[[int, int], ChunkMetrics]:
    """`run(first_step, num_steps)`: that many optimizer steps on the iterator's next batches.

    Args:
      num_blocks: for `Classifier.call`, here and in `build_predict`.
      forward: of another network than a classifier, which then needs no more of its methods than
        `weights_by_name` and `find_rows`.
    """
    forward = forward or functools.partial(_classify, classifier, label_smoothing)
    strategy = tf.distribute.get_strategy()
    num_replicas = strategy.num_replicas_in_sync
    sums = tf.Variable(
        tf.zeros([6]), trainable=False, synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )  # fmt: skip
    replica_step = _build_replica_step(classifier, optimizer, sums, seed, forward, num_blocks)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int32)])
    def run(first_step, num_steps):
        for number in tf.range(num_steps):  # int32 is counted on the host, int64 on a GPU
            with tf.device("CPU:0"):
                step = first_step + tf.cast(number, tf.int64)
            strategy.run(replica_step, args=(next(iterator), step))

    run.get_concrete_function()  # traced here, so that the first chunk is timed like the others

    def train_chunk(first_step: int, num_steps: int) -> ChunkMetrics:
        sums.assign(tf.zeros([6]))
        # numpy's numbers: of each Python number it is given, TensorFlow keeps a tensor for good
        run(tf.constant(np.int64(first_step)), tf.constant(np.int32(num_steps)))
        loss, correct, docs, bad, good, loss_docs = sums.read_value().numpy().tolist()
        # where only one replica's loss shows it at first, the others follow a step later
        bad, good = math.ceil(bad / num_replicas - 1e-3), math.floor(good / num_replicas + 1e-3)
        return ChunkMetrics(loss, round(correct), round(docs), bad, good, round(loss_docs))

    return train_chunk


def _build_replica_step(
    classifier: Network, optimizer: Adam, sums: tf.Variable, seed: int, forward: Forward,
    num_blocks: int,
) -> Callable[[Any, tf.Tensor], None]:  # fmt: skip
    """`replica_step(batch, step)`: one replica's part of an optimizer step.

    Args:
      sums: float32[6], to which the step adds what `_sum_up` gives.
    """
    weights = classifier.weights_by_name
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync

    @tf.autograph.experimental.do_not_convert  # plain Python: converting it takes longer to
    def replica_step(batch, step):  # start than tracing it
        context = tf.distribute.get_replica_context()
        num_rows = tf.shape(batch.weights)[0]  # of floats: a GPU has int32 shapes fetched
        first_row = context.replica_id_in_sync_group * num_rows
        with tf.device("CPU:0"):  # random numbers begin on the host
            noise = tf.stack([tf.constant(seed, tf.int64), step])
        sources: dict[str, tf.Tensor | tf.Variable] = dict(weights)
        found, rows = None, {}
        if optimizer.lazy_tables:
            found, rows = _take_rows(classifier, optimizer, batch.token_ids, step)
            sources |= {name: taken.weights for name, taken in rows.items()}
        with tf.GradientTape() as tape:
            tape.watch([taken.weights for taken in rows.values()])
            outcome = forward(batch, noise, first_row, num_blocks, found)
            loss = tf.reduce_sum(batch.weights * outcome.losses) * batch.scale
            loss /= tf.cast(num_rows * num_replicas, tf.float32)
            scaled = optimizer.scaled(loss)
        gradients = tape.gradient(scaled, list(sources.values()))
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if num_replicas > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        is_finite = optimizer.apply(dict(zip(sources, gradients, strict=True)), step, rows)
        if is_finite is None:
            is_finite = tf.math.is_finite(loss)
        sums.assign_add(_sum_up(batch, outcome, is_finite, sums.read_value()[3]))

    return replica_step


def _classify(
    classifier: Classifier, label_smoothing: float, batch: Any, noise, first_row, num_blocks, found
) -> Outcome:
    logits = classifier.call(batch.token_ids, batch.lengths, noise, first_row, num_blocks, found)
    losses = cross_entropy(logits, batch.labels, label_smoothing)
    # what is shown compares with the validation's loss, which has no smoothing
    shown = cross_entropy(logits, batch.labels) if label_smoothing else losses
    correct = tf.equal(tf.argmax(logits, axis=1), tf.cast(batch.labels, tf.int64))
    return Outcome(losses, shown, tf.cast(correct, tf.float32))


def _take_rows(
    network: Network, optimizer: Adam, token_ids: tf.Tensor, step: tf.Tensor
) -> tuple[Any, dict[str, Rows]]:
    """What a batch's token_ids int32[B, T] read of the tables, and the rows of the lazy ones."""
    rows: dict[str, Rows] = {}

    def take(table: str, numbers: tf.Tensor) -> tuple[Table, tf.Tensor]:
        if table not in optimizer.lazy_tables:
            return network.weights_by_name[table], numbers
        rows[table], places = optimizer.take_rows(table, numbers, step)
        return rows[table].weights, places

    return network.find_rows(token_ids, take), rows


def _sum_up(batch: Any, outcome: Outcome, is_finite: tf.Tensor, num_bad: tf.Tensor) -> tf.Tensor:
    """float32[6], of a replica's batch, as `ChunkMetrics` has them.

    Args:
      is_finite: bool[]; num_bad: float32[], of the steps before.
    """
    real = tf.cast(batch.docs >= 0, tf.float32)
    num_correct = tf.reduce_sum(outcome.correct * real)
    loss = tf.where(is_finite, tf.reduce_sum(batch.weights * outcome.shown), 0.0)
    num_docs = tf.reduce_sum(real)
    num_loss_docs = tf.where(is_finite, num_docs, 0.0)
    bad = tf.where(is_finite, 0.0, 1.0)
    good_so_far = tf.nn.relu(1.0 - bad - num_bad)
    return tf.stack([loss, num_correct, num_docs, bad, good_so_far, num_loss_docs])


class Feed(Protocol):
    """Where batches come from: windows of them, the last of an epoch marked as such."""

    iterator: Iterator[Any]

    def next_window(self) -> Any: ...

    def tell_end(self) -> contextlib.AbstractContextManager[None]: ...


def build_predict(
    classifier: Classifier, feed: Feed, num_blocks: int = 1
) -> Callable[[], Predictions]:
    """`run()`: predictions for every document of the feed's next epoch, in order."""
    strategy = tf.distribute.get_strategy()
    workers = Workers(strategy)

    def replica_step(batch):
        logits = classifier.call(batch.token_ids, batch.lengths, num_blocks=num_blocks)
        predicted = tf.argmax(logits, axis=1, output_type=tf.int32)
        losses = cross_entropy(logits, batch.labels)
        probabilities = tf.reduce_max(tf.nn.softmax(logits), axis=1)
        return batch.docs, batch.labels, predicted, probabilities, losses

    @tf.function(autograph=False)
    def run_step():
        return strategy.run(replica_step, args=(next(feed.iterator),))

    def predict() -> Predictions:
        outputs = []
        is_last = False
        while not is_last:
            window = feed.next_window()
            is_last = window.is_last
            with feed.tell_end():
                for _ in range(window.num_batches):  # fetched at the end: the device runs ahead
                    parts = map(strategy.experimental_local_results, run_step())
                    outputs += zip(*parts, strict=True)
        columns = zip(*outputs, strict=True)
        local = (np.concatenate([part.numpy() for part in column]) for column in columns)
        docs, *values = (np.concatenate(workers.gather(column)) for column in local)
        order = np.argsort(docs, kind="stable")[np.count_nonzero(docs < 0) :]
        return Predictions(*(value[order] for value in values))

    return predict
