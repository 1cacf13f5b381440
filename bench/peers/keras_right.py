"""The seed's Keras script put right, as a careful user of Keras 3 would write it.

    python -m bench.peers.keras_right SHARDS --epochs 5

The same network, weights and optimizer. Padded on the right, without a mask: the state at a text's
last token does not depend on the padding after it, so it is gathered there, and Keras can take
cuDNN on a GPU and spare the masking on a CPU. The token ids stay in memory and a tf.data pipeline
draws whole batches of a global shuffle from them; many steps run in one call.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from bench.peers.corpus import MAX_LEN, VOCAB_SIZE, Split, read_split
from bench.peers.flags import PeerFlags, Precision
from bench.peers.keras_seed import describe_device, tokenize, warm_up
from bench.peers.record import Record
from shortline import import_tensorflow, parse_flags, run_command

_MOST_STEPS_PER_CALL = 64


@dataclass(frozen=True, kw_only=True)
class RightFlags(PeerFlags):
    """The flags of this command."""

    precision: Precision = "float32"
    """Keras's dtype policy."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        RightFlags, argv, prog="python -m bench.peers.keras_right",
        description="Train the seed's Keras script, put right, on a shard set.",
    )  # fmt: skip
    import_tensorflow()
    import keras

    keras.utils.set_random_seed(flags.seed)
    keras.mixed_precision.set_global_policy(flags.precision)
    split = read_split(flags.shards)
    x, x_valid = tokenize(split, padding="post")
    inputs, valid_inputs = ({"ids": ids, "last": _find_last(ids)} for ids in (x, x_valid))
    num_steps = -(-len(x) // flags.batch_size)
    steps_per_execution = min(_MOST_STEPS_PER_CALL, num_steps)
    model = _build_model(split.num_classes, flags.learning_rate, steps_per_execution)
    dataset = build_dataset(inputs, split, flags.batch_size, flags.seed)
    warm_up(model, lambda: model.fit(dataset.take(1), shuffle=False, verbose=0))
    record = Record(
        "keras-right", split, num_epochs=flags.epochs, batch_size=flags.batch_size,
        device=describe_device(),
        versions={name: version(name) for name in ("tensorflow", "keras")},
    )  # fmt: skip
    for _ in range(flags.epochs):
        started = time.perf_counter()
        model.fit(dataset, shuffle=False, verbose=0)  # the dataset shuffles
        seconds = time.perf_counter() - started
        probabilities = model.predict(valid_inputs, batch_size=1024, verbose=0)
        record.add_epoch(seconds, probabilities.argmax(axis=1))
    record.finish()


def _find_last(ids: np.ndarray) -> np.ndarray:
    """int32[D]: where the last token of each row stands; 0 in an empty one."""
    return np.maximum((ids != 0).sum(axis=1) - 1, 0).astype(np.int32)


def build_dataset(inputs: dict[str, np.ndarray], split: Split, batch_size: int, seed: int) -> Any:
    """Batches (inputs, labels, weights), every epoch in another order of all documents.

    The order of an epoch is drawn at once, and a batch gathered at once: no element is handled by
    itself.
    """
    import tensorflow as tf

    num_docs = len(split.train_labels)
    num_steps = -(-num_docs // batch_size)
    with tf.device("CPU"):
        columns = {name: tf.constant(column) for name, column in inputs.items()}
        labels = tf.constant(split.train_labels)
        weights = tf.constant(split.class_weights[split.train_labels])

    def gather(order, step):
        rows = order[step * batch_size : (step + 1) * batch_size]
        batch = {name: tf.gather(column, rows) for name, column in columns.items()}
        return batch, tf.gather(labels, rows), tf.gather(weights, rows)

    def batches_of(epoch_seed):
        order = tf.random.experimental.stateless_shuffle(tf.range(num_docs), epoch_seed)
        steps = tf.data.Dataset.range(num_steps, output_type=tf.int32)
        return steps.map(lambda step: gather(order, step), tf.data.AUTOTUNE)

    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2).take(1)
    batches = seeds.flat_map(batches_of).apply(tf.data.experimental.assert_cardinality(num_steps))
    return batches.prefetch(tf.data.AUTOTUNE)


def _build_model(num_classes: int, learning_rate: float, steps_per_execution: int) -> Any:
    import keras

    layers = keras.layers
    ids = keras.Input([MAX_LEN], dtype="int32", name="ids")
    last = keras.Input([], dtype="int32", name="last")
    states = layers.Embedding(VOCAB_SIZE, 50)(ids)
    states = layers.LSTM(40, return_sequences=True)(states)
    states = layers.Dropout(0.5)(states)
    states = layers.LSTM(40, return_sequences=True)(states)
    state = layers.Lambda(
        lambda pair: keras.ops.take_along_axis(pair[0], pair[1][:, None, None], axis=1)[:, 0],
        output_shape=(40,),
    )([states, last])
    state = layers.Dropout(0.5)(state)
    scores = layers.Dense(num_classes, activation="softmax", dtype="float32")(state)
    model = keras.Model({"ids": ids, "last": last}, scores)
    model.compile(
        keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy",
        jit_compile=False,  # XLA has no cuDNN LSTM, and slows the generic one on a CPU
        steps_per_execution=steps_per_execution,
    )  # fmt: skip
    return model


if __name__ == "__main__":
    run_command(main)
