"""Sentences that a reader of the scores should know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.scores import Scores

_GAP = 0.1  # training accuracy above validation that is worth a note
_COUNTED = {
    "dropped_null_text": "rows were dropped: they have no text",
    "dropped_null_label": "rows were dropped: they have no label",
    "bad_rows": "rows were skipped: they do not parse",
    "invalid_utf8": "documents have invalid UTF-8, replaced by U+FFFD",
    "empty_text": "documents have an empty text, and were kept",
    "duplicates": "documents repeat the text and label of another",
    "texts_with_several_labels": "texts stand under several labels: no classifier gets all right",
    "texts_on_both_sides": "texts of the training part are also in the --valid or --test file",
}


def note_scores(
    summary: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    scores: Scores,
) -> list[str]:
    """What keeps the scores from meaning what they seem to, and what may better them."""
    notes = []
    on_training = summary.get("scored_on") == "train"
    if on_training:
        notes.append(
            "There is no validation part: all scores are on the very documents that training saw, "
            "and say little about new ones. Keep some apart, as with --valid 0.1."
        )
    elif "test" not in summary:
        notes.append(
            "The validation documents also chose the best epoch, so these scores flatter a little; "
            "those of a test part (--test 0.1) would not."
        )
    if "tuned" in summary:
        notes.append(
            f"--tune chose the recipe, the best of {summary['tuned']:,} trials, by the validation "
            "documents, too: their scores flatter the more, the fewer they are."
        )
    answering = []
    if "refit" in summary:
        answering.append("the mean of this network and of another one, trained on both parts")
    if "linear_refit" in summary:
        answering.append("a linear classifier, fitted to both parts")
    if answering:
        notes.append(
            "Scores, probabilities and words of validation documents are those of what had not "
            f"learned from them. What answers has: it is {', with '.join(answering)}. A test part "
            "is scored with what answers (--refit none: that has not learned from them either)."
        )
    if scores.num_unseen:
        notes.append(
            f"{scores.num_unseen:,} scored documents have labels that training lacks: they count "
            "as wrong, and each such label as a class of F1 0."
        )
    absent = int((scores.support == 0).sum())
    if absent:
        notes.append(
            f"{absent:,} of {len(scores.support):,} classes have no scored documents: nothing here "
            "tells how well they are recognised."
        )
    epochs = {event["epoch"]: event for event in events if event["event"] == "epoch"}
    best = epochs.get(summary.get("best_epoch"), {})
    if best.get("accuracy", 0) - best.get("valid_accuracy", 1) > _GAP:
        notes.append(
            f"In the best epoch training accuracy is {best['accuracy']:.1%}, but validation "
            f"{best['valid_accuracy']:.1%}: the network learns documents by heart. More dropout, "
            "fewer epochs or more varied documents help."
        )
    if not on_training and len(epochs) > 1 and summary.get("best_epoch") == max(epochs):
        notes.append("The last epoch is the best one: more --epochs may still gain.")
    return notes


def note_data(summary: Mapping[str, Any], length_counts: np.ndarray) -> list[str]:
    """What was cut, dropped, repeated or contradictory in the data."""
    notes = []
    max_len = max(summary.get("bucket_widths", ()), default=len(length_counts))
    cut = length_counts[max_len + 1 :].sum()
    if cut:
        share = cut / length_counts.sum()
        notes.append(f"{cut:,} training documents ({share:.2%}) are cut to {max_len:,} tokens.")
    counts = summary.get("counts", {})
    return notes + [f"{counts[key]:,} {what}." for key, what in _COUNTED.items() if counts.get(key)]
