"""What the tests of whole trainings share: flags of a small one, its weights and its summary."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SMALL = [
    "--embedding-dim=8", "--hidden=8", "--batch-size=64", "--epochs=2", "--steps-per-call=5",
    "--learning-rate=0.02", "--linear=none", "--refit=none",
]  # fmt: skip


def read_summary(run: Path) -> dict:
    """What summary.json says."""
    return json.loads((run / "summary.json").read_text())


def arrays_of(run: Path, which: str = "last") -> dict[str, np.ndarray]:
    """All that a checkpoint holds, but for the state, and for the checksum of both."""
    with np.load(run / "checkpoints" / f"{which}.npz") as archive:
        return {name: archive[name] for name in {*archive.files} - {"state.json", "sha256"}}


def same_weights(a: Path, b: Path) -> bool:
    """Bitwise, the optimizer's state included."""
    ours, theirs = arrays_of(a), arrays_of(b)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )
