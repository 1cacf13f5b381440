"""Classes that are rare in training, made to count: logits less a power of the classes' shares.

A network learns how frequent classes are along with what tells them apart. Menon et al. 2021
("Long-tail learning via logit adjustment", arXiv:2007.07314) take the first away after training:
logit − power · log(share). Here validation documents choose the power, for the best macro-F1 that
costs next to no accuracy.
Legend: D documents of the validation part (some of them, where they are many), C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_POWERS = np.linspace(-1.0, 1.0, 41)
_MOST_ACCURACY = 0.005
"""Of accuracy, at most, is given for macro-F1."""
_LEAST_DOCS = 100


@dataclass(frozen=True, kw_only=True)
class Adjustment:
    """What was chosen, and what it does to documents that it was not chosen by."""

    power: float
    """Of the classes' shares that the logits lose; 0: nothing is changed."""
    before: tuple[float, float]
    """Accuracy and macro-F1 as the network answers."""
    after: tuple[float, float]
    """The same, each half of the documents by the power that the other half chose."""


def choose_power(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> Adjustment | None:
    """The power of the best macro-F1; 0 where one half's choice did not help the other half.

    None where there are too few documents to choose by.

    Args:
      logits: float32[D, C].
      labels: int[D]; of C and more: labels that training lacks.
      counts: int64[C], training documents of each class.
    """
    if len(labels) < _LEAST_DOCS or logits.shape[1] < 2:
        return None
    answers = [answer(logits, counts, power) for power in _POWERS]
    plain = answers[int(np.abs(_POWERS).argmin())]
    half = np.random.default_rng(0).permutation(len(labels)) % 2
    by_half = [_best(answers, plain, labels, half != h) for h in (0, 1)]
    crossed = np.where(half == 0, answers[by_half[0]], answers[by_half[1]])
    before, after = score_answers(plain, labels), score_answers(crossed, labels)
    chosen = _best(answers, plain, labels, np.ones(len(labels), np.bool_))
    is_better = after[1] > before[1] and after[0] >= before[0] - _MOST_ACCURACY
    power = float(_POWERS[chosen]) if is_better else 0.0
    return Adjustment(power=round(power, 3), before=before, after=after if is_better else before)


def find_shift(counts: np.ndarray, power: float) -> np.ndarray:
    """float32[C], to add to the logits.

    >>> find_shift(np.array([90, 10]), 1.0).round(2).tolist()
    [0.11, 2.3]
    """
    counts = np.maximum(counts, 1).astype(np.float64)
    return (-power * np.log(counts / counts.sum())).astype(np.float32)


def answer(logits: np.ndarray, counts: np.ndarray, power: float) -> np.ndarray:
    """int64[D]: the predicted classes under a power."""
    return (logits + find_shift(counts, power)).argmax(axis=1)


def _best(
    answers: list[np.ndarray], plain: np.ndarray, labels: np.ndarray, among: np.ndarray
) -> int:
    """Number of the power of the best macro-F1, of those that keep the accuracy.

    The scores of neighbours are averaged: one document of a rare class moves a single one by much.
    """
    scores = np.array([score_answers(predicted[among], labels[among]) for predicted in answers])
    smooth = np.convolve(np.pad(scores[:, 1], 1, "edge"), [0.25, 0.5, 0.25], "valid")
    least = score_answers(plain[among], labels[among])[0] - _MOST_ACCURACY
    return int(np.where(scores[:, 0] >= least, smooth, -1.0).argmax())


def score_answers(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Accuracy, and macro-F1 over the classes that occur in either."""
    num_classes = int(max(predicted.max(initial=0), labels.max(initial=0))) + 1
    right = np.bincount(labels[predicted == labels], minlength=num_classes)
    occurs = np.bincount(predicted, minlength=num_classes) + np.bincount(
        labels, minlength=num_classes
    )
    f1 = 2 * right[occurs > 0] / occurs[occurs > 0]
    return float(np.mean(predicted == labels)), float(f1.mean())
