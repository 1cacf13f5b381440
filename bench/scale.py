"""Cost against work: `python -m bench.scale`.

Makes a generated corpus of each size, ingests it and trains on it, each in a process of its own,
so that its peak memory is its own. Documents, classes and the length of the texts grow one at a
time, the other two as small as they are given. The columns are

  generate, ingest s  making the corpus, and making shards of it
  us/doc              of ingest; of the last epoch, without validation
  start, epoch s      up to the first step; the last epoch
  GB                  peak resident memory of ingest, and of training with its report and export

    python -m bench.scale --docs 710900 --factors 1 --classes 60 --lengths 40 --epochs 1

is one size alone: the whole corpus that this project began with, from nothing to an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.checks import check_least, check_preset
from bench.point import Point, measure_point
from bench.record import check_out, end_benchmark
from bench.scale_chart import draw_scale
from bench.table import format_line, header, show_line
from bench.timing import describe_machine
from shortline import parse_flags, run_command

Row = dict[str, Any]
_COLUMNS = {
    "documents": 10, "classes": 8, "words": 6, "generate s": 11, "ingest s": 9, "us/doc": 8,
    "GB": 6, "start s": 8, "epoch s": 9, "us/doc ": 9, "docs/s": 9, "GB ": 7, "accuracy": 9,
}  # fmt: skip
_AXES = {"docs": "documents", "classes": "classes", "length": "words of a text"}


@dataclass(frozen=True, kw_only=True)
class ScaleFlags:
    """The flags of `python -m bench.scale`."""

    docs: int = 40_000
    """Documents of the smallest corpus; nine tenths of them are trained on."""
    factors: str = "1,4,16"
    """Times as many documents, with commas between."""
    classes: str = "60,600,6000"
    """Numbers of classes."""
    lengths: str = "40,120,400"
    """Words of a text, about."""
    epochs: int = 2
    """Passes over the training documents; the last one counts."""
    preset: str = "default"
    """Network and training, as of train.py."""
    batch_size: int = 128
    """Documents in a batch."""
    gpus: str = "all"
    """all (or the CPU where there is none), a number, GPUs like 0,2, or none."""
    out: Path | None = None
    """Folder of the record to write, as bench/records/2026-01-31_what."""

    def __post_init__(self) -> None:
        check_preset(self.preset)
        check_least(self, docs=1_000, epochs=1, batch_size=1)
        for flag, least in (("factors", 1), ("classes", 2), ("lengths", 10)):
            read_numbers(flag, getattr(self, flag), least)
        for point in self.points:
            if point.docs < 2 * point.classes:
                raise ValueError(
                    f"--classes {point.classes}: {point.docs} documents are too few; "
                    f"--docs must be {2 * point.classes} or more"
                )

    @property
    def axes(self) -> dict[str, list[int]]:
        """The values of docs, classes and length, each from the smallest."""
        return {
            "docs": [self.docs * factor for factor in read_numbers("factors", self.factors, 1)],
            "classes": read_numbers("classes", self.classes, 2),
            "length": read_numbers("lengths", self.lengths, 10),
        }

    @property
    def points(self) -> list[Point]:
        """The smallest of everything, then each axis as it grows."""
        base = {name: values[0] for name, values in self.axes.items()}
        grown = [base | {name: value} for name, values in self.axes.items() for value in values[1:]]
        return [Point(**sizes) for sizes in (base, *grown)]


def read_numbers(flag: str, text: str, least: int) -> list[int]:
    """Different whole numbers with commas between, sorted.

    >>> read_numbers("factors", "4,1,16", 1)
    [1, 4, 16]

    Raises:
      ValueError: something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise ValueError(
            f"--{flag} {text}: must be whole numbers from {least} on, with commas between"
        )
    return sorted({int(part) for part in parts})


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command. It imports no TensorFlow: see `run_stage`."""
    flags = parse_flags(
        ScaleFlags, argv, prog="python -m bench.scale",
        description="Measure time and memory of ingest and training as the work grows.",
    )  # fmt: skip
    check_out(flags.out, "scale")
    rows = []
    show_line(header(_COLUMNS), style="bold")
    for point in flags.points:
        row = measure_point(
            point, epochs=flags.epochs, preset=flags.preset, batch_size=flags.batch_size,
            gpus=flags.gpus,
        )  # fmt: skip
        rows.append(row)
        show_line(format_row(row))
    machine = describe_machine(rows[0]["device"])
    sweeps = find_sweeps(rows, flags.axes)
    growth = [found for axis, points in sweeps.items() for found in find_growth(axis, points)]
    notes = [*map(describe_growth, growth), describe_place(flags, machine)]
    print("\n".join(notes))
    result = {
        "benchmark": "scale", "preset": flags.preset, "epochs": flags.epochs,
        "batch_size": flags.batch_size, "machine": machine, "points": rows, "growth": growth,
    }  # fmt: skip
    lines = [header(_COLUMNS), *map(format_row, rows), *notes]
    title = f"Cost against work: {machine['device']}, batches of {flags.batch_size:,}"
    end_benchmark(flags.out, result, lines, partial(draw_scale, sweeps=sweeps, title=title))


def format_row(row: Mapping[str, Any]) -> str:
    cells = [
        f"{row['docs']:,}", f"{row['classes']:,}", f"{row['length']:,}",
        f"{row['generate_seconds']:,.1f}", f"{row['ingest_seconds']:,.1f}",
        f"{1e6 * row['ingest_s_per_doc']:,.1f}", f"{row['ingest_peak_bytes'] / 1e9:.2f}",
        f"{row['startup_seconds']:,.1f}", f"{row['epoch_seconds'][-1]:,.1f}",
        f"{1e6 * row['train_s_per_doc']:,.1f}", f"{row['train_docs_per_s']:,.0f}",
        f"{row['train_peak_bytes'] / 1e9:.2f}", f"{row['accuracy']:.3f}",
    ]  # fmt: skip
    return format_line(cells, _COLUMNS)


def find_sweeps(rows: Sequence[Row], axes: Mapping[str, Sequence[int]]) -> dict[str, list[Row]]:
    """The rows along each axis that grows, the smallest first; documents where none does."""
    base = {name: values[0] for name, values in axes.items()}
    growing = [name for name, values in axes.items() if len(values) > 1] or ["docs"]
    return {
        axis: [row for row in rows if all(row[n] == base[n] for n in base if n != axis)]
        for axis in growing
    }


def find_growth(axis: str, points: Sequence[Row]) -> list[Row]:
    """From the smallest point of a sweep to each other: by what factor costs and memory grow."""
    first = points[0]
    costs = ("ingest_s_per_doc", "train_s_per_doc", "ingest_peak_bytes", "train_peak_bytes")
    return [
        {"axis": axis, "work": point[axis] / first[axis]}
        | {cost: point[cost] / first[cost] for cost in costs}
        for point in points[1:]
    ]


def describe_growth(growth: Mapping[str, Any]) -> str:
    return (
        f"{_AXES[growth['axis']]} x {growth['work']:g}: time a document x "
        f"{growth['ingest_s_per_doc']:.2f} in ingest and x {growth['train_s_per_doc']:.2f} in "
        f"training; memory x {growth['ingest_peak_bytes']:.2f} and x "
        f"{growth['train_peak_bytes']:.2f}"
    )


def describe_place(flags: ScaleFlags, machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['device']}, {machine['architecture']}, {machine['num_cores']} cores, load "
        f"{machine['load_average']} at the end; preset {flags.preset}, epoch {flags.epochs} of "
        f"{flags.epochs}; commit {machine['commit']}; {machine['date']}"
    )


if __name__ == "__main__":
    run_command(main)
