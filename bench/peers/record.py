"""What a peer reports: a line after each epoch, and one line of JSON at the end."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping

import numpy as np

from bench.peers.corpus import Split

_STARTED = time.perf_counter()


class Record:
    """Collects a peer's epochs in the schema that all peers share.

    peer, versions, device, num_train, num_valid, batch_size, startup_seconds (from the start of
    the process to the first timed step; compiling is part of it), docs_per_s (without the first
    epoch, as ours, which tokenises in it), trainings (whether each of `epochs` is a training of its
    own, from scratch) and epochs: a list of epoch (passes done), seconds (of the epoch),
    train_seconds (of all so far), both without validation, and the validation part's accuracy and
    macro_f1.
    """

    def __init__(
        self, peer: str, split: Split, *, num_epochs: int, batch_size: int, device: str,
        versions: Mapping[str, str], trainings: bool = False,
    ):  # fmt: skip
        """Make it just before the first timed step: that ends the start-up."""
        self._split, self._num_epochs = split, num_epochs
        self._facts = {
            "peer": peer,
            "versions": {"python": platform.python_version(), **versions},
            "device": device,
            "num_train": len(split.train_labels),
            "num_valid": len(split.valid_labels),
            "batch_size": batch_size,
            "trainings": trainings,
            "startup_seconds": time.perf_counter() - _STARTED,
        }
        self._epochs: list[dict[str, float]] = []

    def add_epoch(self, seconds: float, predicted: np.ndarray) -> None:
        """The next epoch: its seconds of training, and int[V] labels predicted after it."""
        before = self._epochs[-1]["train_seconds"] if self._epochs else 0.0
        self._add(len(self._epochs) + 1, seconds, before + seconds, predicted)

    def add_training(self, num_epochs: int, seconds: float, predicted: np.ndarray) -> float:
        """A training from scratch of so many epochs; returns its accuracy."""
        return self._add(num_epochs, seconds / num_epochs, seconds, predicted)

    def _add(
        self, epoch: int, seconds: float, train_seconds: float, predicted: np.ndarray
    ) -> float:  # fmt: skip
        labels = self._split.valid_labels
        accuracy, macro_f1 = (
            float((predicted == labels).mean()),
            compute_macro_f1(labels, predicted),
        )
        self._epochs.append(
            {
                "epoch": epoch, "seconds": seconds, "train_seconds": train_seconds,
                "accuracy": accuracy, "macro_f1": macro_f1,
            }
        )  # fmt: skip
        # bench.epoch takes the time of this line, like that of train.py's, as the end of an epoch
        print(
            f"epoch {epoch}/{self._num_epochs}  "
            f"{self._facts['num_train'] / seconds:,.0f} docs/s  {seconds:.1f} s  |  "
            f"validation accuracy {accuracy:.4f}  macro-F1 {macro_f1:.4f}",
            flush=True,
        )
        return accuracy

    def finish(self) -> None:
        """Prints the line of JSON."""
        if self._facts["trainings"]:
            steady = [max(self._epochs, key=lambda epoch: epoch["epoch"])]
        else:
            steady = self._epochs[1:] or self._epochs
        mean = sum(epoch["seconds"] for epoch in steady) / len(steady)
        epochs = sorted(self._epochs, key=lambda epoch: epoch["epoch"])
        docs_per_s = self._facts["num_train"] / mean
        print(json.dumps({**self._facts, "docs_per_s": docs_per_s, "epochs": epochs}), flush=True)


def compute_macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 over the classes that occur in either; int[V] each. As model.scores has it.

    >>> compute_macro_f1(np.array([0, 0, 1]), np.array([0, 2, 1]))  # F1 of 2/3, 1 and 0
    0.5555555555555555
    """
    size = int(max(labels.max(initial=0), predicted.max(initial=0))) + 1
    hits = np.bincount(labels[labels == predicted], minlength=size)
    total = np.bincount(labels, minlength=size) + np.bincount(predicted, minlength=size)
    return float((2 * hits[total > 0] / total[total > 0]).mean())
