"""Whether a long training stays as it is: `python -m bench.soak --minutes 30`.

Trains on generated corpora for half the time each, for as many epochs as that takes, each with its
evaluation and its checkpoint, and ends each training by SIGTERM:

  host    all token ids in memory, short epochs
  stream  a window at a time of a corpus of many windows, tokenised anew in every epoch
  cached  the same with its ids on disk, memory-mapped (not by default: --legs)

Memory, open files, threads, temporary files and CPU time of each are read from /proc meanwhile,
and judged after a fifth of the time since the first step. It ends with 1 where something grew.
"""

from __future__ import annotations

import csv
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.checks import check_least
from bench.flatness import judge, measure
from bench.record import check_out, end_benchmark
from bench.samples import Sample, Watched, watch_training
from bench.soak_chart import draw_soak
from bench.stage import run_stage
from bench.table import format_line, header, show_line
from bench.timing import describe_machine
from shortline import UserError, parse_flags, run_command, write_whole

LEGS = {
    "host": ("--residency", "host"),
    "stream": ("--residency", "stream", "--no-id-cache"),
    "cached": ("--residency", "stream"),
}
"""What each training is given besides its data."""
_COLUMNS = {
    "training": 8, "windows": 7, "epochs": 7, "docs/s": 8, "us/doc": 7, "MB": 7, "growth": 7,
    "MB/h": 6, "MB mapped": 9, "files": 5, "threads": 7, "speed": 6, "CPU/doc": 7, "others": 7,
}  # fmt: skip
_TRAIN_SHARE = 0.88  # of the documents, at least: a tenth validates, about
_DOCS_PER_S = 100_000  # more than a CPU trains on: the schedule, held whole, must not end before


@dataclass(frozen=True, kw_only=True)
class SoakFlags:
    """The flags of `python -m bench.soak`."""

    minutes: float = 30.0
    """Of all trainings together, without making their data."""
    legs: str = "host,stream"
    """Trainings, one after the other, with commas between: host, stream, cached."""
    docs: int = 20_000
    """Documents of the corpus of `host`: few, for many epochs."""
    window_docs: int = 16_000
    """Documents in a window of the others: so many are tokenised at a time, some times ahead."""
    windows: int = 20
    """Windows in an epoch of the others, at least: what sets the size of their corpus."""
    every: float = 3.0
    """Seconds between two samples."""
    hidden: int = 16
    """Units of the LSTM, and size of the embedding: a small network sees more documents."""
    batch_size: int = 256
    """Documents in a batch."""
    out: Path | None = None
    """Folder of the record to write, as bench/records/2026-01-31_what."""

    def __post_init__(self) -> None:
        check_least(self, docs=1_000, window_docs=100, windows=1, hidden=1, batch_size=1)
        if self.every < 0.05:
            raise ValueError(f"--every {self.every:g}: must be 0.05 or more")
        unknown = [name for name in self.names if name not in LEGS]
        if unknown or len(set(self.names)) < len(self.names):
            raise ValueError(
                f"--legs {self.legs}: must be some of {', '.join(LEGS)}, each once, with commas"
            )
        if self.leg_seconds < 12 * self.every:
            raise ValueError(
                f"--minutes {self.minutes:g}: must be {12 * self.every * len(self.names) / 60:g} "
                "or more, for a dozen samples of each training"
            )

    @property
    def names(self) -> list[str]:
        return [part.strip() for part in self.legs.split(",")]

    @property
    def leg_seconds(self) -> float:
        return self.minutes * 60 / len(self.names)

    def docs_of(self, leg: str) -> int:
        """Documents of the corpus that a training gets."""
        many = max(1_000, math.ceil(self.windows * self.window_docs / _TRAIN_SHARE))
        return self.docs if leg == "host" else many


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 1 where a verdict is bad. It imports no TensorFlow: see `run_stage`."""
    flags = parse_flags(
        SoakFlags, argv, prog="python -m bench.soak",
        description="Train for long, and judge whether memory, handles and speed stay as they are.",
    )  # fmt: skip
    if not os.path.exists("/proc/self/status"):
        raise UserError("python -m bench.soak: wants Linux, whose /proc tells what a process holds")
    check_out(flags.out, "soak")
    lines, legs, curves = [header(_COLUMNS)], [], {}
    show_line(lines[0], style="bold")
    for leg in flags.names:
        watched = soak(leg, flags)
        legs.append(assess(leg, flags, watched))
        curves[leg] = watched.samples
        lines.append(format_row(legs[-1]))
        show_line(lines[-1])
    machine = describe_machine("CPU")
    notes = [*map(describe_verdict, legs), describe_place(flags, machine)]
    print("\n".join(notes))
    result = {
        "benchmark": "soak", "minutes": flags.minutes, "hidden": flags.hidden,
        "batch_size": flags.batch_size, "window_docs": flags.window_docs, "machine": machine,
        "is_flat": all(leg["is_flat"] for leg in legs), "legs": legs,
    }  # fmt: skip
    if flags.out is not None:
        write_samples(flags.out, curves)
    title = f"A training of {flags.minutes:g} minutes: {machine['num_cores']} CPU cores"
    draw = partial(draw_soak, legs={leg["leg"]: leg for leg in legs}, curves=curves, title=title)
    end_benchmark(flags.out, result, lines + notes, draw)
    return 0 if result["is_flat"] else 1


def soak(leg: str, flags: SoakFlags) -> Watched:
    """Makes the data of a training in a temporary folder, and trains on it for its time.

    Raises:
      UserError: a stage failed, or the training ended before its time.
    """
    with tempfile.TemporaryDirectory(prefix="shortline-soak-") as name:
        folder = Path(name)
        environment = {"SHORTLINE_CACHE": str(folder / "cache")}
        corpus, shards = str(folder / "corpus.parquet"), str(folder / "shards")
        docs = str(flags.docs_of(leg))
        run_stage(["-m", "tfdata.synthetic", corpus, "--docs", docs], folder, environment)
        run_stage(["-m", "tfdata.ingest", corpus, "--out", shards], folder, environment)
        words = [
            "--data", shards, *LEGS[leg], "--window-docs", flags.window_docs, "--gpus", "none",
            "--epochs", math.ceil(flags.leg_seconds * _DOCS_PER_S / flags.docs_of(leg)),
            "--patience", 0,
            "--hidden", flags.hidden, "--embedding-dim", flags.hidden, "--batch-size",
            flags.batch_size,
        ]  # fmt: skip
        return watch_training(
            [str(word) for word in words], folder, flags.leg_seconds, flags.every, environment
        )


def assess(leg: str, flags: SoakFlags, watched: Watched) -> dict[str, Any]:
    """Figures and verdicts of a training.

    Raises:
      UserError: there are too few samples.
    """
    try:
        figures = measure(watched)
    except ValueError as error:
        raise UserError(f"--every {flags.every:g} --minutes {flags.minutes:g}: {error}") from error
    verdicts = judge(figures)
    num_windows = 1 if leg == "host" else math.ceil(figures["num_train"] / flags.window_docs)
    return {
        "leg": leg, "num_windows": num_windows, **figures,
        "is_flat": all(verdict.is_right for verdict in verdicts),
        "verdicts": [verdict._asdict() for verdict in verdicts],
    }  # fmt: skip


def format_row(leg: Mapping[str, Any]) -> str:
    last = leg["thirds"][-1]
    cells = [
        leg["leg"], f"{leg['num_windows']:,}", f"{leg['epochs']:,}", f"{last['docs_per_s']:,.0f}",
        f"{last['cpu_us_per_doc']:,.1f}", f"{leg['anon_bytes'] / 1e6:,.0f}",
        f"{leg['anon_growth_bytes'] / 1e6:+.1f}",
        f"{leg['anon_growth_bytes_per_hour'] / 1e6:+.0f}", f"{leg['file_bytes'] / 1e6:,.0f}",
        f"{leg['descriptors']}", f"{leg['threads']}", f"{leg['speed']:.3f}",
        f"{leg['cpu_per_doc']:.3f}", f"{last['other_cores']:.2f}",
    ]  # fmt: skip
    return format_line(cells, _COLUMNS)


def describe_verdict(leg: Mapping[str, Any]) -> str:
    """A line for each verdict."""
    return "\n".join(
        f"{leg['leg']}: {'' if verdict['is_right'] else 'NOT '}{verdict['name']}: "
        f"{verdict['words']}"
        for verdict in leg["verdicts"]
    )


def describe_place(flags: SoakFlags, machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['architecture']}, {machine['num_cores']} cores, load "
        f"{machine['load_average']} at the end; {flags.hidden} units, batches of "
        f"{flags.batch_size}; commit {machine['commit']}; {machine['date']}"
    )


def write_samples(folder: Path, curves: Mapping[str, Sequence[Sample]]) -> None:
    """All that was sampled, as LEG.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for leg, samples in curves.items():
        with write_whole(folder / f"{leg}.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Sample._fields)
            for sample in samples:
                rounded = {
                    name: round(value, 2)
                    for name, value in sample._asdict().items()
                    if isinstance(value, float)
                }
                writer.writerow(sample._replace(**rounded))


if __name__ == "__main__":
    run_command(main)
