"""Figures of the report as inline SVG. Legend: C classes.

Text and axes take the page's colours, so that one figure serves light and dark. matplotlib never
sees a string from the data (its font lacks scripts, and `$` would be mathematics): the confusion
map, the only figure with labels, is written here, and the browser's fonts draw them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from model.page import display_width, escape, shorten

if TYPE_CHECKING:  # imported when a report is written, not whenever training starts
    from matplotlib.axes import Axes

_INK, _GRID = "#010203", "#040506"  # stand-ins, replaced by the page's colours
FIRST_COLOR, SECOND_COLOR, THIRD_COLOR = "#4c78c8", "#e0752d", "#2f9e77"
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.size": 9,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "text.color": _INK,
    "xtick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.color": _GRID,
    "ytick.labelcolor": _INK,
}
MOST_POINTS = 400  # of a curve over steps; more would not show at this width
_MOST_MARKS = 4000  # of a scatter as vectors, some 90 bytes each


def plot_loss(events: Sequence[Mapping[str, Any]]) -> str:
    """Cross-entropy by epoch, and of the steps behind it."""
    return _plot_curves(
        events,
        "Loss",
        {"training": ("loss", FIRST_COLOR), "validation": ("valid_loss", SECOND_COLOR)},
    )


def plot_accuracy(events: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy and macro-F1 by epoch, and the accuracy of the steps behind them."""
    curves = {
        "training accuracy": ("accuracy", FIRST_COLOR),
        "validation accuracy": ("valid_accuracy", SECOND_COLOR),
        "validation macro-F1": ("valid_macro_f1", THIRD_COLOR),
    }
    return _plot_curves(events, "Accuracy and macro-F1", curves)


def _plot_curves(
    events: Sequence[Mapping[str, Any]], title: str, curves: Mapping[str, tuple[str, str]]
) -> str:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        epochs = [event for event in events if event["event"] == "epoch"]
        faint = next(iter(curves.values()))
        at, values = _steps(events, faint[0])
        axes.plot(at, values, color=faint[1], alpha=0.45, linewidth=0.9)
        for name, (key, color) in curves.items():
            known = [event for event in epochs if key in event]
            if known:
                x, y = [e["epoch"] for e in known], [e[key] for e in known]
                axes.plot(x, y, color=color, marker="o", label=name)
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.set_xlim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if epochs:
            axes.legend()

    return to_figure(title, draw)


def _steps(events: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs passed and `key`, of the training events; neighbours are averaged where many."""
    ends = [event for event in events if event["event"] == "epoch"]
    known = [event for event in events if event["event"] == "train" and key in event]
    steps = np.array([event["step"] for event in known], float)
    at = np.interp(steps, [0, *(e["step"] for e in ends)], [0, *(e["epoch"] for e in ends)])
    values = np.array([event[key] for event in known], float)
    if len(known) <= MOST_POINTS:
        return at, values
    parts = np.linspace(0, len(known), MOST_POINTS + 1).astype(int)
    sizes = np.diff(parts)
    return np.add.reduceat(at, parts[:-1]) / sizes, np.add.reduceat(values, parts[:-1]) / sizes


def plot_throughput(events: Sequence[Mapping[str, Any]]) -> str:
    """Documents a second over the training, evaluation and saving not counted."""

    def draw(axes: Axes) -> None:
        at, values = _steps(events, "docs_per_s")
        axes.plot(at, values, color=FIRST_COLOR, linewidth=1.1, marker="." if len(at) < 30 else "")
        axes.set_ylim(0, None)
        axes.set_xlim(0, None)
        axes.set_xlabel("epoch")
        axes.set_title("Documents per second")
        axes.yaxis.set_major_formatter(lambda value, _: _short(value, 6))

    return to_figure("Documents per second", draw)


def plot_class_f1(label_counts: np.ndarray, f1: np.ndarray, support: np.ndarray) -> str:
    """F1 of the classes that have scored documents, against their training documents.

    Args:
      label_counts, support: int64[C].
      f1: float[C].
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    shown = np.flatnonzero((support > 0) & (label_counts > 0))
    sizes, values = label_counts[shown], f1[shown]
    many = len(shown) > 60

    def draw(axes: Axes) -> None:
        axes.plot(
            sizes, values, "o", color=FIRST_COLOR, markeredgewidth=0, alpha=0.3 if many else 0.8,
            markersize=4 if many else 6, rasterized=len(shown) > _MOST_MARKS,
        )  # fmt: skip
        octaves = np.floor(np.log2(sizes))
        distinct = np.unique(octaves)
        if len(distinct) > 2 and len(shown) > 12:
            means = [values[octaves == octave].mean() for octave in distinct]
            middles = [np.exp(np.log(sizes[octaves == octave]).mean()) for octave in distinct]
            axes.plot(middles, means, color=SECOND_COLOR, marker="o", label="mean")
            axes.legend()
        axes.set_xscale("log")
        narrow = len(sizes) > 0 and sizes.max() < 100 * sizes.min()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        axes.xaxis.set_major_formatter(lambda value, _: _short(value, 6))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("training documents of the class")
        axes.set_title("F1 against class size")

    return to_figure("F1 against class size", draw)


def plot_lengths(length_counts: np.ndarray, widths: Sequence[int]) -> str:
    """Training documents by number of tokens, with the bucket widths as lines.

    Args:
      length_counts: int64[n], documents by number of tokens.
    """
    last = max(
        [int(np.searchsorted(np.cumsum(length_counts), 0.999 * length_counts.sum())), *widths]
    )
    counts = np.bincount(
        np.minimum(np.arange(len(length_counts)), last + 1), length_counts, minlength=last + 1
    )

    def draw(axes: Axes) -> None:
        edges = np.arange(len(counts) + 1) - 0.5
        axes.stairs(counts, edges, fill=True, color=FIRST_COLOR, alpha=0.75)
        for width in widths:
            axes.axvline(width + 0.5, color=SECOND_COLOR, linewidth=1, linestyle=(0, (3, 2)))
        if widths:
            axes.plot(
                [], [], color=SECOND_COLOR, linewidth=1, linestyle=(0, (3, 2)), label="buckets"
            )
            axes.legend(loc="upper right")
        axes.set_xlim(-0.5, len(counts) - 0.5)
        axes.set_xlabel("tokens (last bar: all longer texts)" if counts[-1] else "tokens")
        axes.set_title("Training documents by length")
        axes.yaxis.set_major_formatter(lambda value, _: _short(value, 6))

    return to_figure("Training documents by length", draw)


def to_figure(name: str, draw: Any) -> str:
    """A figure element of `draw(axes)`: the same bytes for the same figures, ids its own."""
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what the user's matplotlibrc says
        matplotlib.rcParams.update(_STYLE)
        matplotlib.rcParams["svg.hashsalt"] = name
        figure = Figure(figsize=(5.2, 3.1), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, dpi=150, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    svg = svg[svg.index("<svg") :]
    referenced = set(re.findall(r"""#([\w-]+)["')]""", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in referenced else "", svg)
    viewed = re.search(r'viewBox="[^"]*"', svg)
    assert viewed is not None
    opening = f'<svg class="plot" role="img" aria-label="{name}" {viewed[0]}>'
    svg = svg.replace(_INK, "currentColor").replace(_GRID, "var(--line)")
    svg = re.sub(r"<svg.*?>", lambda _: opening, svg, count=1, flags=re.S)
    return f"<figure>{svg}</figure>"


def _short(value: float, decimals: int = 1) -> str:
    """
    >>> _short(2.0), _short(9_876), _short(1_500_000), _short(9_876, 6), _short(1_234_563, 6)
    ('2', '9.9k', '1.5M', '9.876k', '1.234563M')

    Args:
      decimals: many, up to 6, where neighbours must differ: the ticks of a narrow axis.
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{f'{value / size:.{decimals}f}'.rstrip('0').rstrip('.')}{letter}"
    return f"{value:g}"


def draw_confusions(
    labels: Sequence[str], cells: Mapping[tuple[int, int], int], totals: Sequence[int]
) -> str:
    """A map of the confusions: rows are the labels, columns what they were taken for.

    Args:
      labels: names of the classes shown, n of them.
      cells: documents by (row, column).
      totals: documents of each row's class, shown or not.
    """
    side = int(np.clip(560 // len(labels), 13, 56))
    names = [shorten(label, 20) for label in labels]
    margin = 12 + int(6.3 * max(map(display_width, names)))
    size = side * len(labels)
    parts = [f'<rect x="{margin}" y="{margin}" width="{size}" height="{size}" class="frame"/>']
    for at, (name, label) in enumerate(zip(names, labels, strict=True)):
        text = f"{escape(name)}<title>{escape(label, 200)}</title>"
        near, middle = margin - 5, margin + (at + 0.5) * side + 3.5
        parts.append(f'<text x="{near}" y="{middle}" text-anchor="end">{text}</text>')
        parts.append(f'<text transform="translate({middle} {near}) rotate(-90)">{text}</text>')
    for (row, column), count in sorted(cells.items()):
        share = count / max(1, totals[row])
        tip = f"{count:,} of {totals[row]:,} ({share:.1%}) of {shorten(labels[row], 100)} "
        tip += "are right" if row == column else f"taken for {shorten(labels[column], 100)}"
        corner = margin + column * side, margin + row * side
        parts.append(_cell(*corner, side, "right" if row == column else "wrong", share, tip))
        if side >= 30:
            at = f'x="{corner[0] + side / 2}" y="{corner[1] + side / 2 + 3.5}"'
            parts.append(f'<text class="count" {at}>{_short(count)}</text>')
    whole = margin + size + 4
    return (
        f'<svg class="map" role="img" aria-label="Confusion map" viewBox="0 0 {whole} {whole}" '
        f'style="width:{whole}px">{"".join(parts)}</svg>'
    )


def _cell(x: int, y: int, side: int, kind: str, share: float, tip: str) -> str:
    strength = 0.12 + 0.88 * share**0.5  # a share of 1 % must still be seen
    return (
        f'<rect x="{x + 0.5}" y="{y + 0.5}" width="{side - 1}" height="{side - 1}" '
        f'class="{kind}" fill-opacity="{strength:.2f}"><title>{escape(tip)}</title></rect>'
    )
