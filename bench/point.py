"""One size of generated corpus from nothing to a trained network, each stage a process."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.stage import run_stage


@dataclass(frozen=True, kw_only=True)
class Point:
    """A size of the work."""

    docs: int
    classes: int
    length: int
    """Words of a text, about."""


def measure_point(
    point: Point, *, epochs: int, preset: str, batch_size: int, gpus: str
) -> dict[str, Any]:
    """Generates, ingests and trains in a temporary folder; seconds and peak bytes of each.

    Raises:
      UserError: a stage failed.
    """
    with tempfile.TemporaryDirectory(prefix="shortline-scale-") as name:
        folder = Path(name)
        # a cache of its own: nothing is there yet, and nothing stays
        environment = {"SHORTLINE_CACHE": str(folder / "cache")}
        corpus, shards, run = (str(folder / part) for part in ("corpus.parquet", "shards", "run"))

        def stage(*words: object):
            return run_stage([str(word) for word in words], folder, environment)

        generated = stage(
            "-m", "tfdata.synthetic", corpus, "--docs", point.docs, "--classes", point.classes,
            "--words", point.length,
        )  # fmt: skip
        ingested = stage("-m", "tfdata.ingest", corpus, "--out", shards)
        trained = stage(
            "-m", "train", "--data", shards, "--out", run, "--epochs", epochs, "--patience", 0,
            "--preset", preset, "--batch-size", batch_size, "--gpus", gpus,
            "--max-len", longest_text(point.length),
        )  # fmt: skip
        summary = json.loads((folder / "run" / "summary.json").read_text("utf-8"))
    num_train = summary["num_train"]
    epoch_seconds = summary["epoch_seconds"][-1]
    return {
        "docs": point.docs, "classes": point.classes, "length": point.length,
        "num_train": num_train, "num_classes": summary["num_classes"],
        "generate_seconds": generated.seconds, "generate_peak_bytes": generated.peak_bytes,
        "ingest_seconds": ingested.result["seconds"], "ingest_wall_seconds": ingested.seconds,
        "ingest_s_per_doc": ingested.result["seconds"] / point.docs,
        "ingest_peak_bytes": ingested.peak_bytes,
        "startup_seconds": summary["startup_seconds"], "epoch_seconds": summary["epoch_seconds"],
        "train_wall_seconds": trained.seconds, "train_s_per_doc": epoch_seconds / num_train,
        "train_docs_per_s": num_train / epoch_seconds, "train_peak_bytes": trained.peak_bytes,
        "accuracy": summary["accuracy"], "macro_f1": summary["macro_f1"],
        "device": summary["device"], "route": summary["route"],
        "residency": summary.get("residency"),
    }  # fmt: skip


def longest_text(length: int) -> int:
    """--max-len that cuts hardly any text, so that the work grows with the length.

    >>> longest_text(40)
    60
    """
    return length * 3 // 2
