"""What is kept of the trials of --tune: trials.csv and trials.png."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from shortline import write_whole

Row = dict[str, Any]
_FIGURES = ("trial", "outcome", "macro_f1", "accuracy", "epochs", "seconds", "error")


def write_trials(folder: Path, rows: Sequence[Row]) -> None:
    """Writes both.

    Args:
      rows: in the order of the trials, the untuned one first; with _FIGURES, and in `flags` what
        each trial had of the flags that are searched, a column each.
    """
    flags = list(rows[0]["flags"]) if rows else []
    with write_whole(folder / "trials.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_FIGURES, *(f"set_{flag}" for flag in flags)])
        for row in rows:
            cells = [*(row[name] for name in _FIGURES), *(row["flags"][flag] for flag in flags)]
            writer.writerow(map(_safe, cells))
    with write_whole(folder / "trials.png", "wb") as file:
        draw_trials(file, rows)


def count_trials(folder: Path) -> int:
    """How many of a search came to their end; 0 where there was none."""
    try:
        with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
            return sum(row["outcome"] == "done" for row in csv.DictReader(file))
    except FileNotFoundError:
        return 0


def _safe(value: Any) -> Any:
    """What a spreadsheet would take for a formula, and run, behind an apostrophe."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def draw_trials(file: IO[bytes], rows: Sequence[Row]) -> None:
    """Validation macro-F1 against the minutes of tuning, and the best so far."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    minutes, points, best = 0.0, {"done": [], "pruned": [], "cut short": []}, []
    for row in rows:
        minutes += row["seconds"] / 60
        if row["macro_f1"] is None or row["outcome"] not in points:
            continue
        points[row["outcome"]].append((minutes, row["macro_f1"]))
        if row["outcome"] == "done":
            best.append((minutes, max(row["macro_f1"], best[-1][1] if best else 0)))
    if best:
        axes.step(*zip(*best, strict=True), where="post", color="#c8384c", label="best so far")
        axes.axhline(best[0][1], color="#888888", linewidth=0.8, linestyle="--", label="untuned")
    looks = {"done": ("o", "#4c78c8"), "pruned": ("x", "#999999"), "cut short": ("+", "#999999")}
    for outcome, (marker, color) in looks.items():
        if points[outcome]:
            axes.scatter(
                *zip(*points[outcome], strict=True), marker=marker, color=color, s=24, label=outcome
            )
    axes.set_xlabel("minutes of trials")
    axes.set_ylabel("validation macro-F1")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.has_data():
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, format="png")
