"""The temperature that makes probabilities honest, and the file of a run that keeps it.

Legend: D documents of the validation part (some of them, where they are many), C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.confidence import bin_reliability, chance_error
from shortline import UserError, write_whole

MOST_LOGITS = 1 << 22  # 16 MiB; one number is fitted: more documents would not better it
_LEAST_DOCS, _FEW_DOCS, _MOST_DOCS = 100, 1000, 20_000
_NUM_QUANTILES = 201
_LARGEST = 20.0  # temperatures are sought from 1 / this to this
_HALVINGS = 22  # of that range, on a scale of logarithms: to six digits


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a run's answers are to be read by; as it stands: taken as the network gives them."""

    temperature: float = 1.0
    """Logits are divided by it before they become probabilities."""
    num_docs: int = 0
    """Validation documents that it comes from; 0: there were too few."""
    energies: tuple[float, ...] = ()
    """Quantiles, at equal steps from 0 to 1, of model.scope's energy of those documents."""
    logit_shift: tuple[float, ...] = ()
    """float[C], of model.longtail: added to the logits before all else; none: nothing is."""
    has_linear: bool = False
    """Whether it is of the network and model.linear's classifier together."""
    has_refit: bool = False
    """Whether another network, trained with the validation documents, too, answers along."""

    def scope(self, energy: np.ndarray) -> np.ndarray:
        """float[B] → float32[B]: the share of validation documents of no higher energy."""
        shares = np.linspace(0, 1, len(self.energies))
        return np.interp(energy, self.energies, shares).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class CalibrationCheck:
    """How honest probabilities were before and after, on documents that the temperature was not
    fitted on: each half of them by the temperature of the other half."""

    before: np.ndarray
    """float32[D], probabilities of the predicted classes as the network gives them."""
    after: np.ndarray
    """float32[D]."""
    right: np.ndarray
    """bool[D]; a label that training lacks is never right."""
    loss_before: float
    """Mean cross-entropy of the documents whose label training knows."""
    loss_after: float

    def summary(self) -> dict[str, Any]:
        """The single figures, for JSON."""
        return {
            "num_docs": len(self.right),
            "ece_before": bin_reliability(self.before, self.right).error,
            "ece_after": bin_reliability(self.after, self.right).error,
            "ece_by_chance": chance_error(self.after),
            "loss_before": self.loss_before,
            "loss_after": self.loss_after,
        }


def sample_size(num_classes: int) -> int:
    """Documents whose logits are kept for the fit."""
    return int(np.clip(MOST_LOGITS // max(1, num_classes), _FEW_DOCS, _MOST_DOCS))


def calibrate(logits: np.ndarray, labels: np.ndarray) -> tuple[float, CalibrationCheck] | None:
    """The temperature, and how much it helps; None where the documents are too few to tell.

    It is 1, which changes nothing, where a temperature fitted on one half of the documents did not
    lower the cross-entropy of the other.

    Args:
      logits: float32[D, C].
      labels: int[D]; of C and more: labels that training lacks.
    """
    num_docs, num_classes = logits.shape
    known = labels < num_classes
    if num_classes < 2 or known.sum() < _LEAST_DOCS:
        return None
    half = np.random.default_rng(0).permutation(num_docs) % 2
    by_half = [fit_temperature(logits[w], labels[w]) for w in (known & (half != h) for h in (0, 1))]
    predicted = logits.argmax(axis=1)
    before, losses_before = _probabilities(logits, labels, predicted, np.ones(num_docs))
    after, losses_after = _probabilities(logits, labels, predicted, np.take(by_half, half))
    loss_before, loss_after = losses_before[known].mean(), losses_after[known].mean()
    temperature = fit_temperature(logits[known], labels[known])
    if loss_after >= loss_before:
        temperature, after, loss_after = 1.0, before, loss_before
    check = CalibrationCheck(
        before=before, after=after, right=predicted == labels,
        loss_before=float(loss_before), loss_after=float(loss_after),
    )  # fmt: skip
    return temperature, check


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least cross-entropy, from 0.05 to 20 (Guo et al. 2017).

    The cross-entropy is convex in 1 / temperature, so its slope has one root, found by halving. To
    the documents comes one more, its label spread over all classes: without a single mistake the
    best temperature would else be 0.

    Args:
      logits: float32[D, C].
      labels: int[D], below C.
    """
    gaps = logits - logits.max(axis=1, keepdims=True)
    target = np.take_along_axis(gaps, labels[:, np.newaxis], 1).mean(dtype=np.float64)
    spread = gaps.mean(dtype=np.float64)
    extra = 1 / len(gaps)
    low, high = -np.log(_LARGEST), np.log(_LARGEST)  # of the factor, 1 / temperature
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weights = np.exp(gaps * np.float32(np.exp(middle)))
        mean = ((weights * gaps).sum(axis=1) / weights.sum(axis=1)).mean(dtype=np.float64)
        slope = mean - target + extra * (mean - spread)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def show_temperature(temperature: float) -> str:
    """For people: with a word where the best may lie beyond what is tried.

    >>> show_temperature(0.4567), show_temperature(0.05)
    ('0.457', '0.050 (the least that is tried)')
    """
    end = ""
    if np.isclose(temperature, [1 / _LARGEST, _LARGEST], rtol=1e-4).any():
        end = f" (the {'least' if temperature < 1 else 'most'} that is tried)"
    return f"{temperature:.3f}{end}"


def mean_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean cross-entropy of float32[D, C] and int[D], below C."""
    predicted = np.zeros(len(labels), np.int64)
    _, losses = _probabilities(logits, labels, predicted, np.ones(len(labels)))
    return float(losses.mean(dtype=np.float64))


def _probabilities(logits, labels, predicted, temperatures) -> tuple[np.ndarray, np.ndarray]:
    """float32[D] of the predicted classes, and the cross-entropy float32[D]; junk for labels that
    training lacks."""
    scaled = logits / temperatures[:, np.newaxis].astype(np.float32)
    scaled -= scaled.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(scaled).sum(axis=1))
    rows = np.arange(len(scaled))
    losses = log_sums - scaled[rows, np.minimum(labels, scaled.shape[1] - 1)]
    return np.exp(scaled[rows, predicted] - log_sums), losses


def quantiles(energies: np.ndarray) -> tuple[float, ...]:
    """Of float32[D], for `Calibration.energies`."""
    return tuple(np.quantile(energies, np.linspace(0, 1, _NUM_QUANTILES)).tolist())


def write_calibration(path: Path, calibration: Calibration) -> None:
    with write_whole(path) as file:
        json.dump(asdict(calibration), file, indent=2)


def read_calibration(path: Path) -> Calibration:
    """What a run's file says; of a run without one, that nothing is to be changed.

    Raises:
      UserError: the file is damaged.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        calibration = Calibration(
            temperature=float(values["temperature"]),
            num_docs=int(values["num_docs"]),
            energies=_numbers(values, "energies"),
            logit_shift=_numbers(values, "logit_shift"),
            has_linear=bool(values.get("has_linear")),
            has_refit=bool(values.get("has_refit")),
        )
        if not 1e-3 < calibration.temperature < 1e3:
            raise ValueError(f"temperature {calibration.temperature}")
    except FileNotFoundError:
        return Calibration()
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged: {error}; restore it, or delete it: probabilities are then those of "
            "the network as it was trained"
        ) from None
    return calibration


def _numbers(values: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """Those under a name, if there are any; they must be finite float32."""
    found = values.get(name, [])
    if not isinstance(found, list) or not (np.abs(np.array(found, np.float64)) < 3e38).all():
        raise ValueError(f"{name} must be finite numbers")
    return tuple(map(float, found))
