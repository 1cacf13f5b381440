"""How finding near copies grows inside one class: `python -m bench.near_scale --out RECORD`.

Each class is generated, of a few templates of about 40 words, and deduplicated in a process of its
own: seconds, CPU seconds and peak memory. Nothing is encoded or clustered.
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


@dataclass(frozen=True, kw_only=True)
class NearScaleFlags:
    """The flags of `python -m bench.near_scale`."""

    out: Path | None = None
    """Folder of the record to write."""
    docs: tuple[int, ...] = (25_000, 50_000, 100_000)
    """Documents of each class."""
    seed: int = 4
    """Of what is generated: its templates have few slots, so that there are near copies."""
    near: float = 0.05
    """As of `python -m labels`."""
    one: Path | None = None
    """Deduplicate the largest class of this corpus here, and nothing else."""

    def __post_init__(self) -> None:
        check_least(self, seed=0)
        if not self.docs or min(self.docs) < 100:
            raise ValueError(f"--docs {self.docs}: must be 100 or more each")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark; ends stdout with one line of JSON."""
    flags = parse_flags(
        NearScaleFlags, argv, prog="python -m bench.near_scale",
        description="Measure how finding near copies grows inside a class.",
    )  # fmt: skip
    if flags.one is not None:
        print(json.dumps(find(flags.one, flags.near)))
        return
    check_out(flags.out, "near_scale")
    result: dict[str, Any] = {"benchmark": "near_scale", "near": flags.near, "seed": flags.seed}
    result["points"] = []
    result["machine"] = describe_machine("CPU")
    for num_docs in sorted(flags.docs):
        with tempfile.TemporaryDirectory(prefix="shortline-near-") as name:
            result["points"].append(measure(Path(name), num_docs, flags))
        print(format_point(result["points"][-1]), flush=True)
        if flags.out is not None:
            write_record(flags.out, result, list(map(format_point, result["points"])))
    print(json.dumps(result))


def measure(folder: Path, num_docs: int, flags: NearScaleFlags) -> dict[str, Any]:
    """One class: generated, beside a second one of two documents; deduplicated."""
    corpus = folder / "all.parquet"
    words = ["-m", "tfdata.synthetic", str(corpus), "--docs", str(num_docs + 2), "--classes", "2"]
    run_stage([*words, "--seed", str(flags.seed)], folder, {})
    words = ["-m", "bench.near_scale", "--one", str(corpus), "--near", str(flags.near)]
    made = run_stage(words, folder, {})
    return made.result | {
        "seconds": made.seconds, "cpu_seconds": made.cpu_seconds, "peak_bytes": made.peak_bytes,
    }  # fmt: skip


def find(corpus: Path, near: float) -> dict[str, Any]:
    """The largest class of a corpus, its documents in order: what is kept of it."""
    import numpy as np
    import pyarrow.parquet as pq

    from labels.dedupe import find_duplicates

    table = pq.read_table(corpus)
    codes = table["label"].combine_chunks().dictionary_encode().indices.to_numpy()
    largest = np.bincount(codes).argmax()
    classes = np.where(codes == largest, 0, -1).astype(np.int32)
    of, _ = find_duplicates(table["text"], classes, np.zeros(len(codes), np.float32), near)
    return {"docs": int((classes == 0).sum()), "kept": int(((of < 0) & (classes == 0)).sum())}


def format_point(point: dict[str, Any]) -> str:
    """One class as a line."""
    return (
        f"{point['docs']:,} documents of a class, {point['kept']:,} kept: {point['seconds']:.0f} s,"
        f" CPU {point['cpu_seconds']:.0f} s, peak {point['peak_bytes'] / 2**30:.2f} GiB"
    )


if __name__ == "__main__":
    run_command(main)
