"""The report's section on what the probabilities are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.calibration import CalibrationCheck, show_temperature
from model.calibration_plots import plot_coverage, plot_reliability
from model.confidence import NUM_BINS, answered, threshold_for
from model.page import bullet_list, section, side_by_side, table

_ACCURACIES = (0.9, 0.95, 0.98, 0.99)
_THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def probabilities_section(summary: Mapping[str, Any], check: CalibrationCheck | None) -> str:
    """HTML.

    Args:
      summary: as summary.json has it.
      check: None where there was no validation part that was large enough.
    """
    if check is None:
        return section(
            "Probabilities",
            "<p>They are those of the network as it was trained: to tell whether they are honest "
            "takes a validation part of 100 documents or more.</p>",
        )
    figures = summary["calibration"]
    about = (
        f"Logits are divided by a temperature of {show_temperature(summary['temperature'])}, the "
        f"one of the least cross-entropy on {figures['num_docs']:,} validation documents. All that "
        "is shown here is by halves: the documents of one half are scaled by the temperature that "
        "fits the other. The same documents chose the best epoch, so it flatters a little. "
        "Calibration error: the mean gap between accuracy and probability, over "
        f"{NUM_BINS} bins of equal width (ECE)."
    )
    rows: list[tuple[Any, ...]] = [_errors("validation", figures)]
    if "test" in figures:
        rows.append(_errors("test", figures["test"]))
    titles = ("documents", "number", "error as trained", "error scaled", "error by chance alone")
    errors = table(titles, rows) + (
        "<p>By chance alone: what probabilities that are perfectly honest would show on as many "
        "documents.</p>"
    )
    plots = side_by_side(plot_reliability(check), plot_coverage(check))
    return section("Probabilities", errors + plots + _thresholds(check) + _notes(summary), about)


def _errors(name: str, figures: Mapping[str, Any]) -> tuple[Any, ...]:
    errors = (float(figures[key]) for key in ("ece_before", "ece_after", "ece_by_chance"))
    return (name, figures["num_docs"], *errors)


def _thresholds(check: CalibrationCheck) -> str:
    points = [(None, answered(check.after, check.right, t)) for t in _THRESHOLDS]
    found = threshold_for(check.after, check.right, _ACCURACIES)
    points += [(point["asked"], point) for point in found]
    rows = [
        ("–" if asked is None else f"accuracy {asked:.0%}", point["threshold"],
         float(point["coverage"]), point["accuracy"], point["num_answered"])
        for asked, point in points
    ]  # fmt: skip
    titles = ("wanted", "--abstain", "answered", "accuracy of the answers", "documents")
    return table(titles, rows)


def _notes(summary: Mapping[str, Any]) -> str:
    notes = []
    figures = summary["calibration"]
    if summary["temperature"] == 1:
        notes.append(
            "No temperature made the documents of the other half likelier, so nothing is scaled."
        )
    if figures["ece_after"] > max(0.03, 2 * figures["ece_by_chance"]):
        notes.append(
            "Scaled, the probabilities are still off by more than chance explains: set thresholds "
            "by the accuracy shown here, not by what a probability seems to say."
        )
    return bullet_list(notes)
