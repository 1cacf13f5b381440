"""How good the predictions are. Legend: D documents, C classes that training knows.

Labels of C and more stand for classes that training lacks: always wrong, and each a class of its
own with an F1 of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.step import Predictions


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures over D documents; the arrays have an entry for each of the C classes."""

    num_docs: int
    num_unseen: int
    """Documents whose label training lacks."""
    accuracy: float
    macro_f1: float
    """Mean F1 over the classes that occur in labels or predictions, as scikit-learn has it."""
    weighted_f1: float
    """Mean F1, weighted by the documents of a class."""
    loss: float
    """Mean cross-entropy of the documents whose label training knows; NaN without any."""
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    """int64[C], documents of the class."""
    predicted: np.ndarray
    """int64[C], documents predicted to be of the class."""
    thirds: dict[str, dict[str, Any]]
    """head, mid and tail of the classes by training documents: num_classes, num_docs, accuracy and
    macro_f1, the last two None where no document is there to score."""

    @property
    def mean(self) -> float:
        """Of accuracy and macro-F1, by which epochs are told apart.

        Where labels are noisy, rare classes go on gaining long after the accuracy has begun to
        fall, and macro-F1 alone would take the last epoch.
        """
        return (self.accuracy + self.macro_f1) / 2

    @property
    def shown_loss(self) -> str:
        """The loss, for people."""
        return "none" if np.isnan(self.loss) else f"{self.loss:.4f}"

    def summary(self) -> dict[str, Any]:
        """The single figures, for JSON."""
        return {
            "num_docs": self.num_docs,
            "num_unseen_labels": self.num_unseen,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "weighted_f1": self.weighted_f1,
            "loss": None if np.isnan(self.loss) else self.loss,  # JSON has no NaN
            "thirds": self.thirds,
        }


@dataclass(frozen=True)
class Confusion:
    """Documents of one class taken for another."""

    label: int
    predicted: int
    num_docs: int
    examples: tuple[int, ...]
    """Numbers of some of the documents, the most confident mistakes first."""


def score(predictions: Predictions, label_counts: np.ndarray) -> Scores:
    """Scores against the labels.

    Args:
      label_counts: int64[C], training documents of each class.
    """
    num_classes = len(label_counts)
    labels, predicted = predictions.labels, predictions.predicted
    known = labels < num_classes
    right = labels == predicted
    support = np.bincount(labels[known], minlength=num_classes)
    num_predicted = np.bincount(predicted, minlength=num_classes)
    hits = np.bincount(labels[right], minlength=num_classes)
    precision = hits / np.maximum(num_predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + num_predicted, 1)
    occurs = support + num_predicted > 0
    num_macro = occurs.sum() + len(np.unique(labels[~known]))
    num_docs = len(labels)
    return Scores(
        num_docs=num_docs,
        num_unseen=int((~known).sum()),
        accuracy=float(right.mean()) if num_docs else 0.0,
        macro_f1=float(f1[occurs].sum() / max(1, num_macro)),
        weighted_f1=float(f1 @ support / max(1, num_docs)),
        loss=float(predictions.losses[known].mean()) if known.any() else np.nan,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        predicted=num_predicted,
        thirds=_score_thirds(label_counts, support, hits, f1, occurs),
    )


def _score_thirds(label_counts, support, hits, f1, occurs) -> dict[str, dict[str, Any]]:
    by_size = np.argsort(-label_counts, kind="stable")
    thirds = {}
    for name, classes in zip(("head", "mid", "tail"), np.array_split(by_size, 3), strict=True):
        present = classes[occurs[classes]]
        num_docs = int(support[classes].sum())
        thirds[name] = {
            "num_classes": len(classes),
            "num_docs": num_docs,
            "accuracy": float(hits[classes].sum() / num_docs) if num_docs else None,
            "macro_f1": float(f1[present].mean()) if num_docs else None,
        }
    return thirds


def worst_confusions(
    predictions: Predictions, num_classes: int, most: int = 20, num_examples: int = 3
) -> list[Confusion]:
    """The pairs of (label, predicted) with the most documents, most first."""
    wrong = np.flatnonzero(predictions.labels != predictions.predicted)
    wrong = wrong[np.argsort(-predictions.probabilities[wrong], kind="stable")]
    width = max(num_classes, int(predictions.labels.max(initial=0)) + 1)
    pairs = predictions.labels[wrong].astype(np.int64) * width + predictions.predicted[wrong]
    by_pair = np.argsort(pairs, kind="stable")  # within a pair the most confident stay first
    distinct, starts, counts = np.unique(pairs[by_pair], return_index=True, return_counts=True)
    confusions = []
    for at in np.lexsort((distinct, -counts))[:most]:
        docs = wrong[by_pair[starts[at] : starts[at] + min(counts[at], num_examples)]]
        label, predicted = divmod(int(distinct[at]), width)
        confusions.append(Confusion(label, predicted, int(counts[at]), tuple(docs.tolist())))
    return confusions


def surest_mistakes(
    predictions: Predictions, confusions: Sequence[Confusion], most: int
) -> list[int]:
    """Documents with the most probable wrong answers, one of a confusion, the surest first."""
    surest = [confusion.examples[0] for confusion in confusions]
    return sorted(surest, key=lambda doc: -predictions.probabilities[doc])[:most]


def typical_documents(predictions: Predictions, label_counts: np.ndarray, most: int) -> list[int]:
    """Documents that are answered rightly, one of a class, from the biggest class to the smallest:
    that with its class's median probability.
    """
    right = np.flatnonzero(predictions.labels == predictions.predicted)
    classes = predictions.labels[right]
    by_size = np.argsort(-label_counts, kind="stable")
    present = by_size[np.isin(by_size, classes)]
    steps = np.unique(np.linspace(0, len(present) - 1, min(most, len(present))).astype(int))
    documents = []
    for label in present[steps]:
        own = right[classes == label]
        own = own[np.argsort(predictions.probabilities[own], kind="stable")]
        documents.append(int(own[(len(own) - 1) // 2]))
    return documents
