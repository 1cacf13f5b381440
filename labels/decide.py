"""Step 5, its end: the clusters of the merge step with the review's decisions applied."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labels.cluster import NOISE, as_table, read_assigned
from labels.folder import DECIDED
from labels.journal import read_journal
from labels.review import JOURNAL
from labels.review_state import Review
from shortline import printable

_SHOWN = 5


def fingerprint(folder: Path) -> str:
    """Of the journal, as `run_step` wants it."""
    path = folder / JOURNAL
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def decide(folder: Path, out: Path) -> dict[str, Any]:
    """Writes points.parquet and clusters.parquet.

    Raises:
      UserError: the journal is damaged.
    """
    points = pq.read_table(folder / "clean" / "points.parquet", columns=["key", "weight"])
    clusters = pq.read_table(folder / "merge" / "clusters.parquet", columns=["cluster", "label"])
    names = dict(zip(clusters["cluster"].to_pylist(), clusters["label"].to_pylist(), strict=True))
    weights = points["weight"].to_numpy()
    of_point = read_assigned(folder / "merge" / "points.parquet")
    review = Review(points["key"].to_numpy(), weights, of_point, names)
    decisions = read_journal(folder / JOURNAL)
    skipped = review.replay(decisions)
    for decision, why in skipped[:_SHOWN]:
        print(f"decide: decision {decision.id} left out: {printable(why, 200)}")
    after = review.outcome()
    groups = [g for g in review.groups.values() if g.id != NOISE and g.status != "noise"]
    groups.sort(key=lambda group: -int(weights[group.points].sum()))
    columns = [
        pa.array([g.id for g in groups], pa.int32()),
        pa.array([g.key for g in groups], pa.string()),
        pa.array([g.name for g in groups], pa.string()),
        pa.array([int(weights[g.points].sum()) for g in groups], pa.int64()),
        pa.array([g.status == "dropped" for g in groups], pa.bool_()),
        pa.array([g.status == "kept" for g in groups], pa.bool_()),
    ]
    pq.write_table(pa.table(columns, schema=DECIDED), out / "clusters.parquet", compression="zstd")
    pq.write_table(as_table(after), out / "points.parquet", compression="zstd")
    dropped = np.isin(after, [g.id for g in groups if g.status == "dropped"])
    return {
        "decisions": len(decisions), "left_out": len(skipped), "clusters": len(groups),
        "confirmed": sum(g.status == "kept" for g in groups),
        "dropped_documents": int(weights[dropped].sum()),
        "noise_documents": int(weights[after == NOISE].sum()),
    }  # fmt: skip
