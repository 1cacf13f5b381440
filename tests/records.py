"""What the tests of bench.epoch share: records made by hand, and what every record holds."""

from __future__ import annotations

SCHEMA = {
    "peer", "versions", "device", "num_train", "num_valid", "batch_size", "trainings",
    "startup_seconds", "docs_per_s", "epochs",
}  # fmt: skip


def make_record(accuracies, seconds, *, docs_per_s=100.0, start=5.0, **more):
    """A record of epochs of `seconds` each, with two more seconds of wall for the validation."""
    epochs = [
        {
            "epoch": number, "seconds": seconds, "train_seconds": number * seconds,
            "accuracy": accuracy, "macro_f1": accuracy / 2, "joules": 10.0 * number,
            "wall_seconds": start + number * (seconds + 2),
        }
        for number, accuracy in enumerate(accuracies, start=1)
    ]  # fmt: skip
    return {
        "arm": "a", "device": "CPU", "versions": {"python": "3"}, "num_train": 1000,
        "num_valid": 100, "batch_size": 8, "trainings": False, "startup_seconds": start,
        "docs_per_s": docs_per_s, "epochs": epochs, "wall_seconds": epochs[-1]["wall_seconds"],
        "joules": epochs[-1]["joules"], **more,
    }  # fmt: skip
