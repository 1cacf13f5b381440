"""Cost against work as a PNG: seconds a document and peak memory, over each axis of the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

_SERIES = {"ingest": "#e0752d", "train": "#4c78c8"}
_NAMES = {"docs": "documents", "classes": "classes", "length": "words of a text"}


def draw_scale(
    file: IO[bytes], sweeps: Mapping[str, Sequence[Mapping[str, Any]]], title: str
) -> None:
    """A column for each sweep, cost above and memory below, all on logarithmic axes.

    Args:
      sweeps: points in order, by what grows in them: docs, classes or length.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    figure = Figure(figsize=(1.5 + 2.9 * len(sweeps), 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(sweeps), sharex="col", sharey="row", squeeze=False)
    for column, (axis, points) in enumerate(sweeps.items()):
        work = [point[axis] for point in points]
        for stage, color in _SERIES.items():
            cost = [1e6 * point[f"{stage}_s_per_doc"] for point in points]
            memory = [point[f"{stage}_peak_bytes"] / 1e9 for point in points]
            name = {"ingest": "ingest", "train": "training, an epoch"}[stage]
            for axes, values in zip(panels[:, column], (cost, memory), strict=True):
                axes.plot(work, values, color=color, marker="o", markersize=5, label=name)
        panels[1, column].set_xlabel(_NAMES[axis])
    for axes in panels.flat:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    for row in panels:  # a small growth must not look like a large one
        low, high = row[0].get_ylim()
        row[0].set_ylim(low / 2, high * 2)
    for axes, (axis, points) in zip(panels[1], sweeps.items(), strict=True):
        work = [point[axis] for point in points]
        axes.set_xticks(work, [f"{value:,}" for value in work])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(min(work) / 1.5, max(work) * 1.5)
    panels[0, 0].set_ylabel("microseconds a document")
    panels[1, 0].set_ylabel("peak memory, GB")
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(file, format="png")
