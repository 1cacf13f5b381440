"""Accuracy and macro-F1 of every arm on every data set, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

_COLORS = ("#c8384c", "#4c78c8", "#2f9e77", "#e0752d", "#7b5ea7", "#6b6b6b", "#b8a100", "#3aa6b9")


def draw_quality(file: IO[bytes], rows: Sequence[Mapping[str, Any]], development: bool) -> None:
    """Writes the PNG: a dot for each mean, a bar for the standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = list(dict.fromkeys((row["set"], row["part"]) for row in rows))[::-1]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    figure = Figure(figsize=(9, 1.6 + 0.5 * len(places)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("accuracy", "macro_f1"), strict=True):
        for number, arm in enumerate(arms):
            mine = [row for row in rows if row["arm"] == arm]
            shift = 0.5 * ((len(arms) - 1) / 2 - number) / max(1, len(arms))
            axes.errorbar(
                [row[name]["mean"] for row in mine],
                [places.index((row["set"], row["part"])) + shift for row in mine],
                xerr=[row[name]["spread"] or 0 for row in mine],
                fmt="o", markersize=5, color=_COLORS[number % len(_COLORS)], label=arm,
            )  # fmt: skip
        axes.set_title("macro-F1" if name == "macro_f1" else name, fontsize=9)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
    names = [name if part == "all rows" else f"{name}, {part}" for name, part in places]
    panels[0].set_yticks(range(len(places)), names, fontsize=8)
    if arms:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center",
                      ncols=4, frameon=False, fontsize=8)  # fmt: skip
    what = "validation rows" if development else "test rows"
    figure.suptitle(f"{what}: mean and standard deviation over the seeds", x=0.01, ha="left",
                    fontsize=10)  # fmt: skip
    figure.savefig(file, format="png")
