"""How much a linear classifier's decision values (model.linear) count beside the network's logits.

Validation documents choose: the weight of the least cross-entropy, or a larger one, if its mean of
accuracy and macro-F1 is better by more than chance would explain. Decision values are no logits, so
where the linear classifier is the better one, cross-entropy alone would give it too little. Nor is
any weight less than 1 tried: who helps at all helps as much, and a few hundred documents could not
tell such weights from 0 by their answers. Nor is one above 4: for one network alone more may be
better, but not for the mean of two that answers in the end (model.refit; bench/LOG.md). Where
answers are surely worse, the network stays alone.
Legend: D documents of the validation part (some of them, where they are many), C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.calibration import fit_temperature, mean_loss
from model.longtail import score_answers

WEIGHTS = (0.0, 1.0, 1.5, 2.0, 3.0, 4.0)
LEAST_DOCS = 100
"""Of the validation part: with fewer, the network answers alone."""
_MOST_LOGITS = 1 << 19  # of the documents that cross-entropy is taken of
_LEAST_ERRORS = 2.0  # roots of the number of documents that are answered otherwise


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What was chosen, and what it does to documents that it was not chosen by."""

    weight: float
    """Of the decision values; 0: the network answers alone."""
    before: tuple[float, float]
    """Accuracy and macro-F1 of the network alone."""
    after: tuple[float, float]
    """The same, each half of the documents by the weight that the other half chose."""
    alone: tuple[float, float]
    """Of the linear classifier alone."""


def choose_weight(logits: np.ndarray, values: np.ndarray, labels: np.ndarray) -> Mixture | None:
    """The weight, and what it does; 0 where it would surely make answers worse.

    None where there are too few documents to choose by.

    Args:
      logits: float32[D, C], of the network.
      values: float32[D, C], decision values of the linear classifier.
      labels: int[D]; of C and more: labels that training lacks.
    """
    known = labels < logits.shape[1]
    if known.sum() < LEAST_DOCS or logits.shape[1] < 2:
        return None
    answers = [(logits + np.float32(weight) * values).argmax(axis=1) for weight in WEIGHTS]
    half = np.random.default_rng(0).permutation(len(labels)) % 2
    by_half = [_choose(logits, values, answers, labels, known & (half != h)) for h in (0, 1)]
    crossed = np.where(half == 0, answers[by_half[0]], answers[by_half[1]])
    before, after = score_answers(answers[0], labels), score_answers(crossed, labels)
    is_worse = _is_sure((sum(before) - sum(after)) / 2, answers[0] != crossed)
    chosen = 0 if is_worse else _choose(logits, values, answers, labels, known)
    return Mixture(
        weight=WEIGHTS[chosen], before=before, after=before if is_worse else after,
        alone=score_answers(values.argmax(axis=1), labels),
    )  # fmt: skip


def _choose(
    logits: np.ndarray, values: np.ndarray, answers: list[np.ndarray], labels: np.ndarray,
    among: np.ndarray,
) -> int:  # fmt: skip
    """Number of the weight that the documents `among` bool[D] choose."""
    most = max(LEAST_DOCS, _MOST_LOGITS // logits.shape[1])
    docs = np.flatnonzero(among)[:most]
    losses = []
    for weight in WEIGHTS:
        mixed = logits[docs] + np.float32(weight) * values[docs]
        losses.append(mean_loss(mixed / fit_temperature(mixed, labels[docs]), labels[docs]))
        if losses[-1] > 1.5 * min(losses) + 0.1:
            break  # it has one minimum
    calm = int(np.argmin(losses))
    scores = np.array([sum(score_answers(some[among], labels[among])) for some in answers])
    smooth = np.convolve(np.pad(scores, 1, "edge"), [0.25, 0.5, 0.25], "valid")
    bold = int(smooth.argmax())
    gain = (scores[bold] - scores[calm]) / 2
    is_sure = _is_sure(gain, answers[bold][among] != answers[calm][among])
    return bold if is_sure and bold > calm else calm


def _is_sure(gain: float, is_other: np.ndarray) -> bool:
    """Whether a gain is more than chance would explain, given which bool[D] were answered
    otherwise."""
    return bool(gain > _LEAST_ERRORS * np.sqrt(is_other.sum()) / len(is_other))
