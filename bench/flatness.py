"""Whether what a long training holds and takes stays as it is, by samples of it.

All is judged after a warm-up, in which pools fill up: the start, and a fifth of the time from the
first step on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.samples import Sample, Watched
from shortline import EXIT_STOPPED

WARM_UP = 0.2
"""Share of the time since the first step that is not judged."""
MOST_GROWTH = 0.02
"""Of memory, as a share of its level."""
LEAST_SPEED = 0.9
"""Of the last third, as a share of that of the first."""
_MORE_LOAD = 0.1  # cores
_COUNTS = ("descriptors", "threads", "children", "temporary")
_LEAST_SAMPLES = 9  # three in a third


class Verdict(NamedTuple):
    """Something that must hold, and whether it does."""

    name: str
    is_right: bool
    words: str


class Columns(NamedTuple):
    """Samples after the warm-up, as arrays of a field each."""

    seconds: np.ndarray
    anon_bytes: np.ndarray
    file_bytes: np.ndarray
    descriptors: np.ndarray
    threads: np.ndarray
    children: np.ndarray
    temporary: np.ndarray
    cpu_seconds: np.ndarray
    other_seconds: np.ndarray
    step: np.ndarray


def find_warm(seconds: Sequence[float], steps: Sequence[int]) -> float:
    """When the warm-up is over, in seconds.

    >>> find_warm([0, 10, 20, 30], [0, 5, 9, 20])
    14.0
    """
    start = next((when for when, step in zip(seconds, steps, strict=True) if step > 0), seconds[-1])
    return start + WARM_UP * (seconds[-1] - start)


def drop_warm_up(samples: Sequence[Sample]) -> Columns:
    """The samples that are judged.

    Raises:
      ValueError: they are too few.
    """
    warm = find_warm([sample.seconds for sample in samples], [sample.step for sample in samples])
    kept = [sample for sample in samples if sample.seconds >= warm]
    if len(kept) < _LEAST_SAMPLES:
        raise ValueError(f"{len(kept)} samples are too few; take them more often, or for longer")
    return Columns(*map(np.array, zip(*kept, strict=True)))


def find_growth(seconds: np.ndarray, values: np.ndarray) -> float:
    """By how much values grow over the time: a line through them, or their ends, whichever is more.

    The line is Theil and Sen's, of the median slope between two points: spikes do not move it. It
    does not see a single step, but the medians of the last and the first third do.

    >>> find_growth(np.arange(10.0), np.arange(10.0) * 2)
    18.0
    """
    first, last = np.triu_indices(len(values), k=1)
    slope = np.median((values[last] - values[first]) / (seconds[last] - seconds[first]))
    size = -(-len(values) // 3)
    ends = np.median(values[-size:]) - np.median(values[:size])
    return float(max(slope * (seconds[-1] - seconds[0]), ends))


def find_rise(values: np.ndarray) -> int:
    """By how much the least of the last third is above that of the first.

    What is opened and closed again makes peaks; what stays open lifts the floor.

    >>> find_rise(np.array([5, 9, 5, 5, 6, 8, 9, 7, 7]))
    2
    """
    size = len(values) // 3
    return int(values[-size:].min() - values[:size].min())


def measure_thirds(columns: Columns, docs_per_step: float) -> list[dict[str, float]]:
    """Documents/s, CPU microseconds a document and cores that others kept busy, of each third.

    They count all that an epoch does, evaluation and checkpoint, too.
    """
    edges = np.linspace(0, len(columns.seconds) - 1, 4).astype(int)
    took, cpu, others, steps = (
        np.diff(column[edges])
        for column in (columns.seconds, columns.cpu_seconds, columns.other_seconds, columns.step)
    )
    docs = np.maximum(steps, 1e-3) * docs_per_step  # a third without any step is endlessly slow
    return [
        {"docs_per_s": rate, "cpu_us_per_doc": cost, "other_cores": load}
        for rate, cost, load in zip(
            (docs / took).tolist(), (1e6 * cpu / docs).tolist(), (others / took).tolist(),
            strict=True,
        )
    ]  # fmt: skip


def measure(watched: Watched) -> dict[str, Any]:
    """The figures that `judge` goes by, of a training after its warm-up."""
    columns = drop_warm_up(watched.samples)
    last = watched.epochs[-1]
    num_train = round(last["docs_per_s"] * last["seconds"])
    thirds = measure_thirds(columns, num_train * last["epoch"] / last["step"])
    seconds = float(columns.seconds[-1] - columns.seconds[0])
    growth = find_growth(columns.seconds, columns.anon_bytes)
    return {
        "num_train": num_train, "epochs": last["epoch"], "steps": last["step"],
        "judged_seconds": seconds, "num_samples": len(columns.seconds),
        "anon_bytes": float(np.median(columns.anon_bytes)),
        "anon_peak_bytes": int(columns.anon_bytes.max()),
        "anon_growth_bytes": growth, "anon_growth_bytes_per_hour": growth * 3600 / seconds,
        "file_bytes": float(np.median(columns.file_bytes)),
        **{name: int(getattr(columns, name).min()) for name in _COUNTS},
        **{f"{name}_rise": find_rise(getattr(columns, name)) for name in _COUNTS},
        "thirds": thirds,
        "speed": thirds[-1]["docs_per_s"] / thirds[0]["docs_per_s"],
        "cpu_per_doc": thirds[-1]["cpu_us_per_doc"] / thirds[0]["cpu_us_per_doc"],
        "exit_code": watched.exit_code, "stop_seconds": watched.stop_seconds,
        "has_checkpoint": watched.has_checkpoint, "leftovers": watched.leftovers,
    }  # fmt: skip


def judge(figures: Mapping[str, Any]) -> list[Verdict]:
    """What must hold of a long training, by the figures of `measure`."""
    level, growth = figures["anon_bytes"], figures["anon_growth_bytes"]
    rises = {name: figures[f"{name}_rise"] for name in _COUNTS}
    code, left = figures["exit_code"], figures["leftovers"]
    return [
        Verdict(
            "memory flat", growth <= MOST_GROWTH * level,
            f"{level / 1e6:,.0f} MB of its own, {growth / 1e6:+.1f} MB in "
            f"{figures['judged_seconds'] / 60:.1f} min ({growth / level:+.2%}, at most "
            f"{MOST_GROWTH:.0%})",
        ),
        Verdict(
            "handles flat", max(rises.values()) <= 0,
            ", ".join(f"{figures[name]} {name} {rise:+d}" for name, rise in rises.items()),
        ),
        judge_speed(figures),
        Verdict(
            "stopped when asked", code == EXIT_STOPPED and figures["has_checkpoint"],
            f"exit code {code} after {figures['stop_seconds']:.1f} s, "
            f"{'a' if figures['has_checkpoint'] else 'no'} checkpoint",
        ),
        Verdict(
            "nothing left over", not left,
            f"left: {', '.join(left[:5])}{' ...' if left[5:] else ''}" if left else "no files",
        ),
    ]  # fmt: skip


def judge_speed(figures: Mapping[str, Any]) -> Verdict:
    """CPU time a document tells; documents/s, too, unless others took more of the machine."""
    first, *_, last = figures["thirds"]
    is_disturbed = last["other_cores"] > first["other_cores"] + _MORE_LOAD
    is_fast = figures["speed"] >= LEAST_SPEED or is_disturbed
    return Verdict(
        "no slow-down", is_fast and figures["cpu_per_doc"] <= 1 / LEAST_SPEED,
        f"last third to first: CPU time a document x {figures['cpu_per_doc']:.3f} (at most "
        f"{1 / LEAST_SPEED:.2f}), documents/s x {figures['speed']:.3f}; other processes "
        f"{first['other_cores']:.2f} then {last['other_cores']:.2f} cores",
    )  # fmt: skip
