"""Curves of training and validation accuracy, a panel a cause, as a PNG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

_TRAIN, _VALID = "#4c78c8", "#e0752d"
_COLUMNS = 4


def draw_curves(file: IO[bytes], result: Mapping[str, Any]) -> None:
    """Draws `result["causes"]` of bench.overfitting."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    causes = list(result["causes"].values())
    num_columns = min(_COLUMNS, len(causes))
    num_rows = -(-len(causes) // num_columns)
    figure = Figure(
        figsize=(3.1 * num_columns, 2.3 * num_rows + 0.5), dpi=120, layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat:
        axes.set_visible(False)
    for axes, cause in zip(panels.flat, causes, strict=False):
        axes.set_visible(True)
        epochs = range(1, len(cause["train"]) + 1)
        axes.plot(epochs, cause["train"], color=_TRAIN, marker=".", label="training")
        axes.plot(epochs, cause["valid"], color=_VALID, marker=".", label="validation")
        axes.set_title(cause["title"], fontsize=8.5, loc="left")
        axes.set_ylim(0, 1.02)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
    panels[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
    panels[0, 0].set_ylabel("accuracy")
    panels[-1, 0].set_xlabel("epoch")
    figure.suptitle(
        f"{', '.join(result['data'])}: {result['num_docs']:,} documents, "
        f"{result['num_classes']:,} classes", x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    figure.savefig(file, format="png")
