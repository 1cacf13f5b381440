"""A long training as a PNG: what it holds and what a document costs, against the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from bench.flatness import MOST_GROWTH, Columns, find_warm
from bench.samples import Sample

_OWN, _OTHER, _GREY = "#4c78c8", "#e0752d", "#888888"
_BINS = 40  # that CPU time is summed up in
_HEIGHTS = (2, 1.4, 1.4, 1.4, 1)


def draw_soak(
    file: IO[bytes], legs: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, Sequence[Sample]], title: str,
) -> None:  # fmt: skip
    """A column for each training: memory, its change, handles, CPU time, others' load.

    Args:
      legs: figures of `bench.flatness.measure`, by name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 4.2 * len(legs), 9.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        5, len(legs), sharex="col", sharey="row", squeeze=False,
        gridspec_kw={"height_ratios": _HEIGHTS},
    )  # fmt: skip
    for column, (name, leg) in zip(panels.T, legs.items(), strict=True):
        samples = Columns(*map(np.array, zip(*curves[name], strict=True)))
        draw_leg(column, leg, samples)
        column[0].set_title(describe_leg(leg), fontsize=9, loc="left")
        column[-1].set_xlabel("minutes")
    words = (
        "resident memory, MB", "its own, change\nsince warm-up, MB", "open files, threads",
        "CPU time, µs a\ndocument", "other processes,\ncores",
    )  # fmt: skip
    for axes, text in zip(panels[:, 0], words, strict=True):
        axes.set_ylabel(text)
    for row in (0, 2, 3, 4):  # a small growth must not look like a large one
        panels[row, 0].set_ylim(bottom=0)
    for row in (0, 2):
        panels[row, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(file, format="png")


def describe_leg(leg: Mapping[str, Any]) -> str:
    windows = f", {leg['num_windows']} windows each" if leg["num_windows"] > 1 else ""
    return f"{leg['leg']}: {leg['epochs']:,} epochs of {leg['num_train']:,} documents{windows}"


def draw_leg(column: Sequence[Any], leg: Mapping[str, Any], samples: Columns) -> None:
    memory, change, handles, cost, others = column
    minutes = samples.seconds / 60
    warm = find_warm(samples.seconds.tolist(), samples.step.tolist())
    is_judged = samples.seconds >= warm
    memory.plot(minutes, samples.anon_bytes / 1e6, color=_OWN, label="its own")
    memory.plot(minutes, samples.file_bytes / 1e6, color=_OTHER, label="mapped from files")
    judged = samples.anon_bytes[is_judged]
    level = np.median(judged[: -(-len(judged) // 3)])
    change.plot(minutes[is_judged], (judged - level) / 1e6, color=_OWN, linewidth=0.8)
    limit = MOST_GROWTH * leg["anon_bytes"] / 1e6
    change.axhline(limit, color=_GREY, linestyle="--", linewidth=0.8)
    change.text(minutes[-1], limit, "limit ", ha="right", va="bottom", fontsize=7, color=_GREY)
    handles.plot(minutes, samples.descriptors, color=_OWN, label="open files")
    handles.plot(minutes, samples.threads, color=_OTHER, label="threads")
    handles.plot(minutes, samples.temporary, color=_GREY, label="temporary files")
    edges = np.linspace(0, len(minutes) - 1, min(_BINS, len(minutes) // 2) + 1).astype(int)
    docs = np.diff(samples.step[edges]) * leg["num_train"] * leg["epochs"] / leg["steps"]
    is_there = docs > 0  # not in the start-up
    middles = (minutes[edges[1:]] + minutes[edges[:-1]]) / 2
    spent = 1e6 * np.diff(samples.cpu_seconds[edges])
    cost.plot(middles[is_there], spent[is_there] / docs[is_there], color=_OWN)
    load = np.diff(samples.other_seconds[edges]) / np.diff(samples.seconds[edges])
    others.plot(middles, load, color=_GREY)
    for axes in column:
        axes.axvspan(0, warm / 60, color="#f0f0f0", zorder=0)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    change.set_xlim(0, minutes[-1])
