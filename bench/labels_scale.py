"""How `labels` grows, and what its labels are worth: `python -m bench.labels_scale --out RECORD`.

Labels generated corpora of the seed's shape without their labels, each in a process of its own:
seconds, CPU seconds and peak memory. Of the largest, a classifier is trained on the labels so made
and scored against the true ones on documents that were not labelled: each cluster's label stands
for the class that most of its documents have.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checks import check_least
from bench.record import check_out, write_record
from bench.stage import run_stage
from bench.timing import describe_machine
from shortline import parse_flags, run_command

_SEED_DOCS = 710_900
_LEFT_OUT = 20_000
"""Documents of the corpus that are not labelled, to score the classifier on."""


@dataclass(frozen=True, kw_only=True)
class LabelsScaleFlags:
    """The flags of `python -m bench.labels_scale`."""

    out: Path | None = None
    """Folder of the record to write."""
    docs: tuple[int, ...] = (50_000, 100_000, 200_000)
    """Documents of each corpus."""
    classify: bool = True
    """Train a classifier on the labels of the largest."""

    def __post_init__(self) -> None:
        check_least(self)
        if not self.docs or min(self.docs) < 1_000:
            raise ValueError(f"--docs {self.docs}: must be 1000 or more each")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark; ends stdout with one line of JSON."""
    flags = parse_flags(
        LabelsScaleFlags, argv, prog="python -m bench.labels_scale",
        description="Measure labels on generated corpora of growing size.",
    )  # fmt: skip
    check_out(flags.out, "labels_scale")
    result: dict[str, Any] = {"benchmark": "labels_scale", "points": []}
    result["machine"] = describe_machine("CPU")
    for num_docs in sorted(flags.docs):
        with tempfile.TemporaryDirectory(prefix="shortline-labels-") as name:
            is_last = num_docs == max(flags.docs)
            point = measure(Path(name), num_docs, flags.classify and is_last)
        result["points"].append(point)
        print(format_point(point), flush=True)
        if len(result["points"]) > 1:
            result["extrapolated"] = extrapolate(result["points"])
        if flags.out is not None:
            write_record(flags.out, result, list(map(format_point, result["points"])))
    if "extrapolated" in result:
        print(f"{_SEED_DOCS:,} documents: {result['extrapolated']}")
    print(json.dumps(result))


def measure(folder: Path, num_docs: int, classify: bool) -> dict[str, Any]:
    """One corpus: generated, its labels taken away, labelled; perhaps learned from."""
    import pyarrow.parquet as pq

    corpus, texts, out = (folder / name for name in ("all.parquet", "texts.parquet", "out"))
    environment = {"SHORTLINE_CACHE": str(folder / "cache")}
    run_stage(
        ["-m", "tfdata.synthetic", str(corpus), "--docs", str(num_docs + _LEFT_OUT)],
        folder, environment,
    )  # fmt: skip
    table = pq.read_table(corpus)
    pq.write_table(table.slice(0, num_docs).select(["text"]), texts)
    made = run_stage(
        ["-m", "labels", "run", str(texts), "--out", str(out), "--no-review"], folder, environment
    )
    counts = {name: value for name, value in made.result.items() if name != "out"}
    counts["clean"].pop("source")  # of a temporary folder, as `out`
    steps = {name: counts[name]["seconds"] for name in counts}
    labelled = pq.read_table(out / "labelled.parquet", columns=["cluster", "label", "duplicate_of"])
    point = {
        "docs": num_docs, "seconds": made.seconds, "cpu_seconds": made.cpu_seconds,
        "peak_bytes": made.peak_bytes, "step_seconds": steps, "counts": counts,
        **compare(table["label"].slice(0, num_docs), labelled),
    }  # fmt: skip
    if classify:
        point["classifier"] = learn(folder, table.slice(num_docs), labelled, table, environment)
    return point


def compare(truth: Any, labelled: Any) -> dict[str, Any]:
    """V-measure, adjusted Rand index, and the share of documents in their cluster's class."""
    import numpy as np
    from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

    codes = truth.combine_chunks().dictionary_encode().indices.to_numpy()
    clusters = labelled["cluster"].fill_null(-1).to_numpy().astype(np.int64)
    is_noise = clusters < 0
    alone = clusters.copy()
    alone[is_noise] = clusters.max() + 1 + np.arange(is_noise.sum())
    purity, completeness, v = homogeneity_completeness_v_measure(codes, alone)
    return {
        "v_measure": v, "ari": adjusted_rand_score(codes, alone), "homogeneity": purity,
        "completeness": completeness, "noise_share": float(is_noise.mean()),
        "clusters": len(np.unique(clusters[~is_noise])), "classes": int(codes.max()) + 1,
        "kept": int(labelled["duplicate_of"].is_null().to_numpy()[~is_noise].sum()),
    }  # fmt: skip


def learn(folder: Path, left_out: Any, labelled: Any, table: Any, environment) -> dict[str, Any]:
    """Trains on the shards; accuracy on the documents left out, by each label's commonest class."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    run, asked, answers = (str(folder / n) for n in ("run", "asked.parquet", "answers.parquet"))
    pq.write_table(left_out.select(["text"]), asked)
    trained = run_stage(
        ["-m", "train", "--data", str(folder / "out" / "shards"), "--out", run], folder, environment
    )
    run_stage(["-m", "model.predict", run, asked, "--out", answers], folder, environment)
    pairs = pa.table({"label": labelled["label"], "truth": table["label"].slice(0, len(labelled))})
    counted = (
        pairs.filter(pc.is_valid(pairs["label"]))
        .group_by(["label", "truth"])
        .aggregate([([], "count_all")])
    )
    stands_for: dict[str, str] = {}
    for row in counted.sort_by([("count_all", "ascending")]).to_pylist():
        stands_for[row["label"]] = row["truth"]  # the commonest comes last
    predicted = [stands_for[label] for label in pq.read_table(answers)["label"].to_pylist()]
    truth = left_out["label"].to_pylist()
    right = sum(a == b for a, b in zip(predicted, truth, strict=True))
    return {
        "accuracy_on_true_labels": right / len(truth), "num_docs": len(truth),
        "train_seconds": trained.seconds, "valid_accuracy": trained.result.get("accuracy"),
    }  # fmt: skip


def extrapolate(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds for the seed's corpus: the curve a + b n (+ c n²) through what was measured."""
    import numpy as np

    docs = np.array([point["docs"] for point in points]) / 1e5
    degree = min(2, len(points) - 1)
    told = {}
    for name in ("seconds", "cpu_seconds"):
        curve = np.polyfit(docs, [point[name] for point in points], degree)
        told[name] = float(np.polyval(curve, _SEED_DOCS / 1e5))
    return told


def format_point(point: dict[str, Any]) -> str:
    """One corpus as a line."""
    steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in point["step_seconds"].items())
    line = (
        f"{point['docs']:,} documents: {point['seconds']:.0f} s ({steps}), CPU "
        f"{point['cpu_seconds']:.0f} s, peak {point['peak_bytes'] / 2**30:.2f} GiB; "
        f"{point['clusters']} clusters for {point['classes']} classes, V {point['v_measure']:.3f}, "
        f"ARI {point['ari']:.3f}, homogeneity {point['homogeneity']:.3f}, noise "
        f"{point['noise_share']:.1%}, {point['kept']:,} kept"
    )
    if "classifier" in point:
        found = point["classifier"]
        line += f"; classifier {found['accuracy_on_true_labels']:.3f} on {found['num_docs']:,}"
    return line


if __name__ == "__main__":
    run_command(main)
