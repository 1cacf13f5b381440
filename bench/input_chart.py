"""Documents a second of the input pipelines, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

_OURS, _PEER = "#c8384c", "#4c78c8"


def draw_rates(file: IO[bytes], rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """A dot for each pipeline that was measured, the fastest on top, with its p10 to p90.

    On a logarithmic axis, where equal distances are equal ratios; so dots, and no bars.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = sorted((row for row in rows if "docs_per_s" in row), key=lambda row: row["docs_per_s"])
    figure = Figure(figsize=(7.5, 1.3 + 0.42 * len(shown)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        color = _OURS if row["is_ours"] else _PEER
        rate, span = row["docs_per_s"], (row["docs_per_s_p10"], row["docs_per_s_p90"])
        axes.plot(span, [place, place], color=color, linewidth=3, alpha=0.35)
        axes.plot(rate, place, "o", color=color, markersize=8)
        axes.annotate(
            f"{rate:,.0f}", (rate, place), xytext=(0, 8), textcoords="offset points",
            ha="center", fontsize=8, color="#333333",
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [row["arm"] for row in shown])
    axes.set_ylim(-0.5, len(shown) - 0.3)
    axes.set_xscale("log")
    axes.set_xlim(shown[0]["docs_per_s_p10"] / 1.5, shown[-1]["docs_per_s_p90"] * 1.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate / 1000:,g}k"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("documents a second: median, and p10 to p90 of the epochs")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(file, format="png")
