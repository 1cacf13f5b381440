"""The seed's own Keras script, to the letter, on the split of a shard set.

    python -m bench.peers.keras_seed SHARDS --epochs 5

Keras 3 by default; `--keras 2` takes the package tf-keras, which the original ran on. The script
pads and truncates on the left, masks, and knows nothing of cuDNN; only its sparse labels are ours
(the one-hot ones of 710,900 documents would not fit in memory, and give the same loss).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from shortline import UserError, import_tensorflow, parse_flags, run_command
from tfdata.shards import ShardSet, open_shards, read_batches


@dataclass(frozen=True, kw_only=True)
class PeerFlags:
    """The flags of this command."""

    shards: tyro.conf.Positional[Path]
    """Shard set that tfdata.ingest wrote."""
    epochs: int = 20
    """Passes over the training part."""
    batch_size: int = 128
    """Documents in a batch."""
    keras: Literal["3", "2"] = "3"
    """Which Keras."""
    seed: int = 0
    """Of weights, order and dropout."""


def main(argv: Sequence[str] | None = None) -> None:
    flags = parse_flags(
        PeerFlags, argv, prog="python -m bench.peers.keras_seed",
        description="Train the seed's Keras script on a shard set.",
    )  # fmt: skip
    import_tensorflow()
    shard_set = open_shards(flags.shards)
    train_texts, train_labels = _read(shard_set, "train")
    valid_texts, valid_labels = _read(shard_set, "valid")
    import tensorflow as tf

    pad_sequences = tf.keras.preprocessing.sequence.pad_sequences
    tokenizer = tf.keras.preprocessing.text.Tokenizer(num_words=20_000)
    tokenizer.fit_on_texts(train_texts)
    x, x_valid = (
        pad_sequences(tokenizer.texts_to_sequences(texts), maxlen=40)
        for texts in (train_texts, valid_texts)
    )
    counts = shard_set.label_counts
    scores = np.log(0.5 * counts.sum() / counts)
    weights = {number: float(max(1.0, score)) for number, score in enumerate(scores)}
    model = _build_model(flags, len(counts))
    epochs = []
    for epoch in range(flags.epochs):
        started = time.perf_counter()
        model.fit(x, train_labels, batch_size=flags.batch_size, class_weight=weights, verbose=0)
        seconds = time.perf_counter() - started
        loss, accuracy = model.evaluate(x_valid, valid_labels, batch_size=1024, verbose=0)
        epochs.append({"seconds": seconds, "valid_loss": loss, "valid_accuracy": accuracy})
        print(
            f"epoch {epoch + 1}/{flags.epochs}  {len(x) / seconds:,.0f} docs/s  {seconds:.1f} s  "
            f"validation loss {loss:.4f}  accuracy {accuracy:.4f}",
            flush=True,
        )
    steady = epochs[1:] or epochs
    docs_per_s = len(x) * len(steady) / sum(epoch["seconds"] for epoch in steady)
    print(json.dumps({"peer": f"keras {flags.keras}", "docs_per_s": docs_per_s, "epochs": epochs}))


def _read(shard_set: ShardSet, part: str) -> tuple[list[str], np.ndarray]:
    if not shard_set.num_docs(part):
        raise UserError(f"{shard_set.folder}: has no {part} part; ingest it with one")
    texts: list[str] = []
    labels = []
    for batch, ids in read_batches(shard_set, part):
        texts += batch.to_pylist()
        labels.append(ids)
    return texts, np.concatenate(labels)


def _build_model(flags: PeerFlags, num_classes: int) -> Any:
    if flags.keras == "2":
        import tf_keras as keras
    else:
        import keras
    keras.utils.set_random_seed(flags.seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Embedding(20_000, 50, mask_zero=True),
            layers.LSTM(40, return_sequences=True),
            layers.Dropout(0.5),
            layers.LSTM(40),
            layers.Dropout(0.5),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam()
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


if __name__ == "__main__":
    run_command(main)
