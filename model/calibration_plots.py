"""Figures of how honest the probabilities are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.calibration import CalibrationCheck
from model.confidence import NUM_BINS, bin_reliability, coverage_curve
from model.plots import FIRST_COLOR, MOST_POINTS, SECOND_COLOR, to_figure

if TYPE_CHECKING:  # imported when a report is written, not whenever training starts
    from matplotlib.axes import Axes


def plot_reliability(check: CalibrationCheck) -> str:
    """Accuracy by probability, before and after; bars: the share of the documents in a bin."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle=(0, (3, 2)))
        after = bin_reliability(check.after, check.right)
        middles = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
        shares = after.num_docs / max(1, len(check.right))
        axes.bar(middles, shares, 0.9 / NUM_BINS, color=FIRST_COLOR, alpha=0.18)
        for name, values, color in (
            ("as trained", check.before, SECOND_COLOR), ("scaled", check.after, FIRST_COLOR),
        ):  # fmt: skip
            found = bin_reliability(values, check.right)
            shown = found.num_docs > 0
            x, y = found.probability[shown], found.accuracy[shown]
            axes.plot(x, y, color=color, marker="o", label=name)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("probability (bars: share of the documents)")
        axes.set_title("Accuracy by probability")
        axes.legend(loc="upper left")

    return to_figure("Accuracy by probability", draw)


def plot_coverage(check: CalibrationCheck) -> str:
    """Accuracy of the documents that are answered, as more and more of them are."""
    coverage, accuracy = coverage_curve(check.after, check.right)
    shown = np.unique(np.linspace(0, len(coverage) - 1, MOST_POINTS).astype(int))
    # the accuracy of a handful of documents is noise
    shown = shown[coverage[shown] * len(check.right) >= min(20, len(check.right))]

    def draw(axes: Axes) -> None:
        axes.plot(coverage[shown], accuracy[shown], color=FIRST_COLOR)
        axes.set_xlim(0, 1.01)
        axes.set_xlabel("share of the documents that get an answer")
        axes.set_title("Accuracy of the answers, the surest first")

    return to_figure("Accuracy by coverage", draw)
