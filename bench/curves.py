"""Validation accuracy against training time, one line an arm, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

_COLORS = ("#c8384c", "#4c78c8", "#2f9e77", "#e0752d", "#7b5ea7", "#6b6b6b")


def draw_curves(
    file: IO[bytes], records: Sequence[Mapping[str, Any]], target: float, title: str
) -> None:
    """Writes the PNG; the first arm of `records` is ours, and each turn has a line of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    done = [record for record in records if "error" not in record]
    arms = list(dict.fromkeys(record["arm"] for record in done))
    figure = Figure(figsize=(7.5, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, arm in reversed(list(enumerate(arms))):  # ours on top
        turns = [record for record in done if record["arm"] == arm]
        for turn, record in enumerate(turns):
            axes.plot(
                [epoch["train_seconds"] for epoch in record["epochs"]],
                [epoch["accuracy"] for epoch in record["epochs"]],
                color=_COLORS[number % len(_COLORS)], marker="o", markersize=4,
                linewidth=2.2 if number == 0 else 1.5,
                linestyle=":" if record["trainings"] else "-",  # trainings, not one's epochs
                label=None if turn else arm,
            )  # fmt: skip
    axes.axhline(target, color="#888888", linewidth=0.8, linestyle="--")
    axes.annotate(
        f"{target:g}", (0, target), xycoords=("axes fraction", "data"),
        xytext=(4, 3), textcoords="offset points", fontsize=8, color="#666666",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.set_xlabel("seconds of training, without start-up and validation")
    axes.set_ylabel("validation accuracy")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=9)
    figure.savefig(file, format="png")
