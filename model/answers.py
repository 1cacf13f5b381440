"""What a run says of labelled documents, and what that is worth.

Legend: D documents, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from model.confidence import answered, bin_reliability, chance_error
from model.scope import auroc
from model.scores import score
from model.step import Predictions
from shortline import UserError


class Answers(NamedTuple):
    """What the run says of D documents."""

    predictions: Predictions
    """Its probabilities are calibrated, its losses not."""
    calibrated_losses: np.ndarray
    """float32[D]; 0 where training lacks the label."""
    energies: np.ndarray
    """float32[D], of model.scope."""
    out_log_odds: np.ndarray
    """float32[D], of the class of documents out of scope; 0 without such a class."""


def measure_probabilities(
    answers: Answers, num_classes: int, abstain: float | None
) -> dict[str, Any]:
    """How honest they are, in words to the terminal, and as figures."""
    labels, predicted, probabilities, _ = answers.predictions
    right, known = labels == predicted, labels < num_classes
    ece, by_chance = bin_reliability(probabilities, right).error, chance_error(probabilities)
    print(
        f"probabilities: calibration error {ece:.4f}; perfectly honest ones would show "
        f"{by_chance:.4f} on so many documents"
    )
    figures: dict[str, Any] = {
        "ece": ece, "ece_by_chance": by_chance,
        "calibrated_loss": float(answers.calibrated_losses[known].mean()) if known.any() else None,
    }  # fmt: skip
    if abstain is not None:
        kept = answered(probabilities, right, abstain)
        print(
            f"--abstain {abstain:g}: {kept['num_answered']:,} documents answered "
            f"({kept['coverage']:.2%})"
            + (f", accuracy {kept['accuracy']:.4f}" if kept["num_answered"] else "")
        )
        figures["abstain"] = kept
    return figures


def measure_scope(answers: Answers, num_classes: int, out_id: int, name: str) -> dict[str, Any]:
    """How well documents out of scope are known from the others.

    Raises:
      UserError: there are none, or no others.
    """
    is_out = answers.predictions.labels == out_id
    if is_out.all() or not is_out.any():
        which = "all documents have" if is_out.any() else "no document has"
        raise UserError(f"--oos-label {name}: {which} that label; name that of some of them")
    aurocs = {
        "energy": auroc(answers.energies, is_out),
        "probability": auroc(answers.predictions.probabilities, is_out),
    }
    by = "energy"
    if out_id < num_classes:
        by = "class"
        aurocs[by] = auroc(-answers.out_log_odds, is_out)
    inside = Predictions(*(values[~is_out] for values in answers.predictions))
    scores = score(inside, np.arange(num_classes, 0, -1))
    ece = bin_reliability(inside.probabilities, inside.labels == inside.predicted).error
    others = ", ".join(f"by {key} {value:.4f}" for key, value in aurocs.items() if key != by)
    print(
        f"out of scope: {is_out.sum():,} documents, AUROC {aurocs[by]:.4f} by {by} ({others}); "
        f"in scope: accuracy {scores.accuracy:.4f}, macro-F1 {scores.macro_f1:.4f}, calibration "
        f"error {ece:.4f}"
    )
    return {
        "oos_auroc": aurocs[by], "oos_score": by, "oos_aurocs": aurocs,
        "num_oos": int(is_out.sum()), "in_scope_accuracy": scores.accuracy,
        "in_scope_macro_f1": scores.macro_f1, "in_scope_ece": ece,
    }  # fmt: skip
