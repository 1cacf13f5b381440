"""What may make validation worse, or better, than training: trainings that differ in one thing.

They run the compiled step of train.py on batches that are put together here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from bench.arrangement import VOCAB_SIZE, Documents, SplitBy, arrange
from model.flags import Flags, read_flags
from model.losses import class_weights
from model.lstm import count_blocks
from model.network import build_network, settle_route
from model.optimizer import choose_lazy
from model.step import build_train_chunk
from tfdata.pipeline import Batch

_PREDICT_DOCS = 1_024


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One training, by what it does otherwise than the first."""

    name: str
    title: str
    split: SplitBy = "text"
    buffer: int | None = None
    """As `arrange` has it."""
    is_sorted: bool = False
    """Put the training documents in the order of their classes first."""
    preset: str = "seed"
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of ModelConfig and TrainConfig."""

    def flags(self) -> Flags:
        """Of the preset, with the settings."""
        flags = read_flags([f"--preset={self.preset}"])
        parts = {}
        for name, part in (("model", flags.model), ("train", flags.train)):
            known = {f.name for f in dataclasses.fields(part)}
            mine = {key: value for key, value in self.settings.items() if key in known}
            parts[name] = dataclasses.replace(part, **mine)
        return dataclasses.replace(flags, **parts)


CAUSES = (
    Cause(name="shuffled", title="shuffled, split by text"),
    Cause(name="sorted", title="sorted by class, not shuffled", buffer=0, is_sorted=True),
    Cause(name="buffer_1000", title="sorted, shuffle buffer of 1,000", buffer=1_000,
          is_sorted=True),
    Cause(name="buffer_4000", title="sorted, shuffle buffer of 4,000", buffer=4_000,
          is_sorted=True),
    Cause(name="file_order", title="in the order of the file, not shuffled", buffer=0),
    Cause(name="tail", title="the last tenth of the file validates", split="tail"),
    Cause(name="by_row", title="split by row: copies on both sides", split="row"),
    Cause(name="by_group", title="split by group of near copies", split="group"),
    Cause(name="no_weights", title="no class weights", settings={"class_weights": "none"}),
    Cause(name="small", title="a quarter of the units",
          settings={"hidden": 10, "embedding_dim": 12}),
    Cause(name="large", title="four times the units", settings={"hidden": 160}),
    Cause(name="embedding_10", title="embedding of 10", settings={"embedding_dim": 10}),
    Cause(name="embedding_200", title="embedding of 200", settings={"embedding_dim": 200}),
    Cause(name="no_dropout", title="no dropout", settings={"dropout": 0.0}),
    Cause(name="default", title="--preset default", preset="default"),
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A figure an epoch."""

    train: list[float]
    """Accuracy over the epoch, as a progress bar shows it: with dropout, while weights change."""
    valid: list[float]
    macro_f1: float
    """Of the last epoch, over the classes that validate."""
    num_valid: int


def run_cause(documents: Documents, cause: Cause, epochs: int, batch_size: int) -> Curve:
    """Trains from new weights."""
    flags, labels = cause.flags(), documents.labels
    held = documents.held_out(cause.split)
    ids, lengths = documents.encode(~held)
    rows = np.flatnonzero(~held)
    if cause.is_sorted:
        rows = rows[np.argsort(labels[rows], kind="stable")]
    order = arrange(rows, cause.buffer, epochs, batch_size)
    counts = np.bincount(labels[rows], minlength=documents.num_classes)
    weights = class_weights(counts, flags.train.class_weights, flags.train.normalize_weights)
    has_gpu = bool(tf.config.list_logical_devices("GPU"))
    route, _ = settle_route(flags.model, has_gpu)
    classifier, optimizer = build_network(
        flags.model, flags.train, route, "float32", vocab_size=VOCAB_SIZE,
        num_classes=documents.num_classes, unknown_id=1, num_steps=order.shape[0] * order.shape[1],
    )  # fmt: skip
    num_tokens = batch_size * ids.shape[1]
    optimizer.begin(0, () if has_gpu else choose_lazy(num_tokens, classifier.weights_by_name))
    batches = iterate(order.reshape(-1, batch_size), ids, lengths, labels, weights)
    train_chunk = build_train_chunk(
        classifier, optimizer, batches, seed=flags.train.seed,
        label_smoothing=flags.train.label_smoothing or 0.0,
        num_blocks=count_blocks(route, batch_size),
    )  # fmt: skip
    predict = build_predict(classifier)
    tested, steps = np.flatnonzero(held), order.shape[1]
    curve, predicted = Curve([], [], 0.0, len(tested)), labels[:0]
    for epoch in range(epochs):
        sums = train_chunk(epoch * steps, steps)
        optimizer.catch_up((epoch + 1) * steps)
        predicted = predict(ids[tested], lengths[tested])
        curve.train.append(sums.num_correct / sums.num_docs)
        curve.valid.append(float((predicted == labels[tested]).mean()))
    return dataclasses.replace(curve, macro_f1=macro_f1(labels[tested], predicted))


def iterate(
    order: np.ndarray, ids: np.ndarray, lengths: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> Iterator[Batch]:
    """Batches of the rows int64[steps, B], of int32[D, T], int32[D], int32[D], float32[C]."""
    columns = tuple(map(tf.constant, (ids, lengths, labels, weights[labels])))

    def gather(rows: tf.Tensor) -> Batch:
        parts = (tf.gather(column, rows) for column in columns)
        return Batch(*parts, docs=rows, scale=tf.ones([]))

    dataset = tf.data.Dataset.from_tensor_slices(order).map(gather).prefetch(8)
    strategy = tf.distribute.get_strategy()
    return iter(strategy.experimental_distribute_dataset(dataset))


def build_predict(classifier: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`run(ids int32[D, T], lengths int32[D])`: the likeliest class int64[D] of each document."""

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)],
    )
    def predict(ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        return tf.argmax(classifier.call(ids, lengths), axis=1)

    def run(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        starts = range(0, len(ids), _PREDICT_DOCS)
        parts = (slice(start, start + _PREDICT_DOCS) for start in starts)
        return np.concatenate([predict(ids[part], lengths[part]).numpy() for part in parts])

    return run


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 of the classes that occur among `labels` or `predicted`."""
    size = int(max(labels.max(), predicted.max())) + 1
    support, answers = (np.bincount(some, minlength=size) for some in (labels, predicted))
    hits = np.bincount(labels[labels == predicted], minlength=size)
    total = support + answers
    return float((2 * hits[total > 0] / total[total > 0]).mean())
