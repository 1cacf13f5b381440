"""Whether probabilities are honest, and what is won by answering the sure documents alone.

Legend: D documents. `probabilities` float[D] are those of the predicted classes, `right` bool[D]
whether the prediction is the label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NUM_BINS = 15
_LEAST_DRAWS, _MOST_DRAWS, _DRAWN = 20, 500, 5_000_000  # of many documents few draws tell as much


class Reliability(NamedTuple):
    """Documents by probability, in bins of equal width from 0 to 1."""

    num_docs: np.ndarray
    """int64[NUM_BINS]."""
    probability: np.ndarray
    """float64[NUM_BINS], the mean of a bin's documents; 0 where there are none."""
    accuracy: np.ndarray
    """float64[NUM_BINS], likewise."""

    @property
    def error(self) -> float:
        """Expected calibration error: the mean, over documents, of their bin's |accuracy −
        probability| (Guo et al. 2017)."""
        gaps = np.abs(self.accuracy - self.probability)
        return float(gaps @ self.num_docs / max(1, self.num_docs.sum()))


def bin_reliability(probabilities: np.ndarray, right: np.ndarray) -> Reliability:
    """
    >>> bin_reliability(np.array([0.9, 0.9]), np.array([True, False])).error
    0.4
    """
    bins = np.minimum((probabilities * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    num_docs = np.bincount(bins, minlength=NUM_BINS)
    sums = (np.bincount(bins, values, NUM_BINS) for values in (probabilities, right))
    means = (total / np.maximum(num_docs, 1) for total in sums)
    return Reliability(num_docs, *means)


def chance_error(probabilities: np.ndarray) -> float:
    """The calibration error that perfectly honest probabilities would show on as few documents.

    A mean over draws of which documents are right, each by its own probability; the same whatever
    the order of the documents.
    """
    rng = np.random.default_rng(0)
    probabilities = np.sort(probabilities)
    num_draws = int(np.clip(_DRAWN // max(1, len(probabilities)), _LEAST_DRAWS, _MOST_DRAWS))
    drawn = (rng.random(len(probabilities)) < probabilities for _ in range(num_draws))
    errors = [bin_reliability(probabilities, right).error for right in drawn]
    return float(np.mean(errors))


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, the documents taken as independent.

    >>> [round(end, 3) for end in share_interval(0.9, 100)]
    [0.826, 0.945]
    """
    if not count:
        return 0.0, 1.0
    z = 1.96
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    whole = 1 + z * z / count
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)


def check_threshold(abstain: float | None) -> None:
    """Raises ValueError for what is no probability to abstain below."""
    if abstain is not None and not 0 < abstain <= 1:
        raise ValueError(f"--abstain {abstain:g}: must be above 0, and at most 1")


def answered(probabilities: np.ndarray, right: np.ndarray, threshold: float) -> dict[str, Any]:
    """What is left of the documents at `threshold` and above.

    Returns:
      threshold, coverage (share of documents answered), accuracy of those (None without any), and
      num_answered.
    """
    kept = probabilities >= threshold
    num_answered = int(kept.sum())
    return {
        "threshold": threshold,
        "coverage": num_answered / max(1, len(kept)),
        "accuracy": float(right[kept].mean()) if num_answered else None,
        "num_answered": num_answered,
    }


def coverage_curve(probabilities: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and accuracy float64[n] as the threshold falls past each distinct probability."""
    order = np.argsort(-probabilities, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True))
    ends = ends[ends < len(order)]
    hits = np.cumsum(right[order])
    return (ends + 1) / max(1, len(order)), hits[ends] / (ends + 1)


def threshold_for(
    probabilities: np.ndarray, right: np.ndarray, accuracies: Sequence[float]
) -> list[dict[str, Any]]:
    """For each accuracy asked for, `answered` at the lowest threshold that gives it; those that
    none gives are left out."""
    order = np.sort(np.unique(probabilities))
    accuracy = coverage_curve(probabilities, right)[1]
    found = []
    for asked in accuracies:
        enough = np.flatnonzero(accuracy >= asked)
        if len(enough):
            threshold = float(order[len(order) - 1 - enough[-1]])
            found.append({"asked": asked, **answered(probabilities, right, threshold)})
    return found
