"""The seed's own Keras script, to the letter, on the split of a shard set.

    python -m bench.peers.keras_seed SHARDS --epochs 5

Keras 3 by default; `--keras 2` takes the package tf-keras, which the original ran on. The script
pads and truncates on the left, masks, and knows nothing of cuDNN; only its sparse labels are ours
(the one-hot ones of 710,900 documents would not fit in memory, and give the same loss).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from bench.peers.corpus import MAX_LEN, VOCAB_SIZE, Split, read_split
from bench.peers.flags import PeerFlags, import_peer
from bench.peers.record import Record
from shortline import import_tensorflow, parse_flags, run_command


@dataclass(frozen=True, kw_only=True)
class SeedFlags(PeerFlags):
    """The flags of this command."""

    keras: Literal["3", "2"] = "3"
    """Which Keras."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        SeedFlags, argv, prog="python -m bench.peers.keras_seed",
        description="Train the seed's Keras script on a shard set.",
    )  # fmt: skip
    import_tensorflow()
    keras = import_peer("keras" if flags.keras == "3" else "tf_keras")
    split = read_split(flags.shards)
    x, x_valid = tokenize(split, padding="pre")
    weights = dict(enumerate(split.class_weights.tolist()))
    model = _build_model(keras, flags, split.num_classes)

    def fit(num_docs: int) -> None:
        model.fit(
            x[:num_docs], split.train_labels[:num_docs],
            batch_size=flags.batch_size, class_weight=weights, verbose=0,
        )  # fmt: skip

    model(x[:1])  # makes its weights
    # a whole batch, and one as the last of an epoch: Keras compiles for shapes it does not know
    warm_up(model, lambda: fit(flags.batch_size + len(x) % flags.batch_size))
    package = "keras" if flags.keras == "3" else "tf_keras"
    record = Record(
        f"keras {flags.keras}", split, num_epochs=flags.epochs, batch_size=flags.batch_size,
        device=describe_device(),
        versions={name: version(name) for name in ("tensorflow", package)},
    )  # fmt: skip
    for _ in range(flags.epochs):
        started = time.perf_counter()
        fit(len(x))
        seconds = time.perf_counter() - started
        predicted = model.predict(x_valid, batch_size=1024, verbose=0).argmax(axis=1)
        record.add_epoch(seconds, predicted)
    record.finish()


def tokenize(split: Split, padding: Literal["pre", "post"]) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32[D, 40] of the training texts and int32[V, 40] of the validation texts.

    Of longer texts the last 40 tokens stay: `pad_sequences` truncates on the left.
    """
    import tensorflow as tf

    tokenizer = tf.keras.preprocessing.text.Tokenizer(num_words=VOCAB_SIZE)
    tokenizer.fit_on_texts(split.train_texts)
    pad_sequences = tf.keras.preprocessing.sequence.pad_sequences
    train, valid = (
        pad_sequences(tokenizer.texts_to_sequences(texts), maxlen=MAX_LEN, padding=padding)
        for texts in (split.train_texts, split.valid_texts)
    )
    return train, valid


def warm_up(model: Any, fit: Callable[[], object]) -> None:
    """Compiles a built model by a `fit` of a few steps, and puts all of its variables back."""
    assert model.trainable_variables
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    before = [variable.numpy() for variable in variables]
    fit()
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)


def describe_device() -> str:
    """The GPU that Keras takes, or the CPU."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))


def _build_model(keras: Any, flags: SeedFlags, num_classes: int) -> Any:
    keras.utils.set_random_seed(flags.seed)
    layers = keras.layers
    # On a GPU Keras 2 falls back by itself where the padding is on the left; Keras 3 raises.
    generic = {"use_cudnn": False} if flags.keras == "3" else {}
    model = keras.Sequential(
        [
            layers.Embedding(VOCAB_SIZE, 50, mask_zero=True),
            layers.LSTM(40, return_sequences=True, **generic),
            layers.Dropout(0.5),
            layers.LSTM(40, **generic),
            layers.Dropout(0.5),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam(flags.learning_rate)
    # Keras 3 would turn XLA on where cuDNN is off; the seed had none
    loss = "sparse_categorical_crossentropy"
    model.compile(adam, loss, metrics=["accuracy"], jit_compile=False)
    return model


if __name__ == "__main__":
    run_command(main)
