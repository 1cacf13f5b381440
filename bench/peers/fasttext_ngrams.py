"""fastText's supervised classifier: averaged vectors of words and word pairs.

    python -m bench.peers.fasttext_ngrams SHARDS --epochs 5

It reads a file of its own, counts its vocabulary and trains in one call, all of which is its
training time, on all cores and never on a GPU, one text at a time (`--batch-size` does not apply).
Its learning rate falls to zero over the whole training, so there is nothing to validate between
epochs: what is asked for is trained first, and then, from scratch each, trainings of 1, 2, 4, ...
epochs, up to the first that reaches `--target`.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.corpus import read_split, split_words
from bench.peers.flags import PeerFlags, import_peer
from bench.peers.record import Record
from shortline import parse_flags, run_command

_LABEL = "__label__"


@dataclass(frozen=True, kw_only=True)
class FastTextFlags(PeerFlags):
    """The flags of this command."""

    target: float | None = None
    """Validation accuracy that the shorter trainings are to find (default: none is made)."""
    learning_rate: float = 0.5
    """At the start; it falls to zero."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        FastTextFlags, argv, prog="python -m bench.peers.fasttext_ngrams",
        description="Train fastText on a shard set.",
    )  # fmt: skip
    fasttext = import_peer("fasttext")
    split = read_split(flags.shards)
    valid = [" ".join(split_words(text)) for text in split.valid_texts]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        with open(path, "w", encoding="utf-8") as file:
            for text, label in zip(split.train_texts, split.train_labels, strict=True):
                file.write(f"{_LABEL}{label} {' '.join(split_words(text))}\n")
        record = Record(
            "fasttext", split, num_epochs=flags.epochs, batch_size=1, device="CPU",
            versions={"fasttext-numpy2": version("fasttext-numpy2")}, trainings=True,
        )  # fmt: skip

        def train(num_epochs: int) -> float:
            started = time.perf_counter()
            model = _train(fasttext, path, num_epochs, flags)
            seconds = time.perf_counter() - started
            return record.add_training(num_epochs, seconds, _predict(model, valid))

        best = train(flags.epochs)
        num_epochs = 1
        if flags.target is not None and best >= flags.target:
            while num_epochs < flags.epochs and train(num_epochs) < flags.target:
                num_epochs *= 2
    record.finish()


def _train(fasttext: Any, path: Path, num_epochs: int, flags: FastTextFlags) -> Any:
    return fasttext.train_supervised(
        str(path), epoch=num_epochs, lr=flags.learning_rate, dim=50, wordNgrams=2, bucket=200_000,
        loss="softmax", thread=os.cpu_count() or 1, seed=flags.seed, verbose=0,
    )  # fmt: skip


def _predict(model: Any, texts: Sequence[str]) -> np.ndarray:
    """int64[V] labels; 0, the biggest class, where it names none, as it may for an empty text."""
    labels, _ = model.predict(list(texts))
    return np.array([int(row[0].removeprefix(_LABEL)) if len(row) else 0 for row in labels])


if __name__ == "__main__":
    run_command(main)
