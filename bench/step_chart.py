"""Documents a second of steps and input, a panel for each size of batch, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

_COLORS = {"step": "#4c78c8", "input": "#2f9e77", "mix": "#7b5ea7", "end-to-end": "#c8384c"}


def draw_steps(file: IO[bytes], rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A dot for each row that has a batch, its p10 to p90 beside it; equal labels stand level.

    On a logarithmic axis, where equal distances are equal ratios.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = [row for row in rows if row.get("source") != "encode"]
    labels = list(dict.fromkeys(map(_label, shown)))[::-1]
    sizes = list(dict.fromkeys(row["batch_size"] for row in shown))
    figsize = (2.2 + 2.8 * len(sizes), 1.2 + 0.25 * len(labels))
    figure = Figure(figsize=figsize, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axes, size in zip(panels, sizes, strict=True):
        for row in shown:
            if row["batch_size"] == size:
                place, color = labels.index(_label(row)), _COLORS[row["kind"]]
                docs = row["docs_per_s"] * row["step_ms"]
                span = [docs / row["step_ms_p90"], docs / row["step_ms_p10"]]
                axes.plot(span, [place, place], color=color, linewidth=3, alpha=0.35)
                axes.plot(row["docs_per_s"], place, "o", color=color, markersize=6)
        axes.set_yticks(range(len(labels)), labels, fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate / 1000:g}k"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"batches of {size:,}", fontsize=9)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
    figure.supxlabel("documents a second: median, and p10 to p90 of the chunks", fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(file, format="png")


def _label(row: Mapping[str, Any]) -> str:
    """What a row is of, but for the size of its batch."""
    if row["kind"] == "step":
        return f"step {row['name']}, {row['length']} tokens"
    return f"{row['kind']} {row['source']}"
