"""What --tune may change: one table, a line for each flag.

Sizes and rates are multiples of what the untuned training has, which may follow the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the extra [tune]
    from optuna.distributions import BaseDistribution

Settings = Mapping[str, Any]
_SHARE_MUTATED = 0.3


@dataclass(frozen=True)
class Times:
    """From `least` to `most` times the untuned value, evenly on a logarithmic scale."""

    flag: str
    least: float
    most: float

    def fits(self, base: object) -> bool:
        return isinstance(base, float) and base > 0

    def build(self, base: float) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.least * base, self.most * base, log=True)

    def draw(self, base: float, random: Random) -> float:
        return base * math.exp(random.uniform(math.log(self.least), math.log(self.most)))

    def encode(self, base: float) -> float:
        return base

    def decode(self, value: float, base: float) -> float:
        return float(f"{value:.3g}")  # as one would type it


@dataclass(frozen=True)
class Sizes:
    """One of some multiples of the untuned whole number, in order."""

    flag: str
    factors: tuple[float, ...]

    def fits(self, base: object) -> bool:
        return isinstance(base, int) and base > 0

    def build(self, base: int) -> BaseDistribution:
        from optuna.distributions import IntDistribution

        return IntDistribution(0, len(self.factors) - 1)

    def draw(self, base: int, random: Random) -> int:
        return random.randrange(len(self.factors))

    def encode(self, base: int) -> int:
        return self.factors.index(1)

    def decode(self, value: int, base: int) -> int:
        factor = self.factors[value]
        return max(1, round(base * factor)) if factor else 0  # 0: without


@dataclass(frozen=True)
class Between:
    """A share; the bounds make room for the untuned value."""

    flag: str
    low: float
    high: float

    def fits(self, base: object) -> bool:
        return isinstance(base, float)

    def build(self, base: float) -> BaseDistribution:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(min(self.low, base), max(self.high, base))

    def draw(self, base: float, random: Random) -> float:
        return random.uniform(min(self.low, base), max(self.high, base))

    def encode(self, base: float) -> float:
        return base

    def decode(self, value: float, base: float) -> float:
        return round(value, 3)


@dataclass(frozen=True)
class OneOf:
    """One of some values, and the untuned one, without an order."""

    flag: str
    values: tuple[Any, ...]

    def fits(self, base: object) -> bool:
        return True

    def build(self, base: Any) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self._choices(base))

    def draw(self, base: Any, random: Random) -> Any:
        return random.choice(self._choices(base))

    def _choices(self, base: Any) -> tuple[Any, ...]:
        return tuple(dict.fromkeys((*self.values, base)))

    def encode(self, base: Any) -> Any:
        return base

    def decode(self, value: Any, base: Any) -> Any:
        return value


Axis = Times | Sizes | Between | OneOf

SPACE: tuple[Axis, ...] = (
    Times("learning_rate", 0.25, 4.0),
    Sizes("epochs", (0.5, 1, 1.5, 2)),
    Sizes("batch_size", (0.5, 1, 2)),
    Sizes("hidden", (0.5, 1, 1.5, 2)),
    Sizes("embedding_dim", (0.5, 1, 1.5, 2)),
    Sizes("vocab_size", (0.5, 1, 2)),
    OneOf("num_layers", (1, 2)),
    OneOf("pooling", ("max", "max_mean")),
    Between("dropout", 0.0, 0.6),
    Between("word_dropout", 0.0, 0.3),
    Between("label_smoothing", 0.0, 0.2),
    Sizes("pairs_dim", (0.5, 1, 2)),
    Sizes("pieces", (0.5, 1, 2)),
    OneOf("bag", (True, False)),
    OneOf("weight_decay", (0.0, 1e-3, 1e-2)),
    OneOf("class_weights", ("none", "effective", "balanced")),
)


def choose_axes(base: Settings, fixed: set[str]) -> list[Axis]:
    """What is to be searched, given the untuned settings, and the flags that the user has set."""
    return [
        axis
        for axis in SPACE
        if axis.flag not in fixed and axis.flag in base and axis.fits(base[axis.flag])
    ]


def build_distributions(axes: list[Axis], base: Settings) -> dict[str, BaseDistribution]:
    """By flag, for optuna."""
    return {axis.flag: axis.build(base[axis.flag]) for axis in axes}


def encode(axes: list[Axis], base: Settings) -> dict[str, Any]:
    """The untuned settings as optuna has them."""
    return {axis.flag: axis.encode(base[axis.flag]) for axis in axes}


def mutate(axes: list[Axis], params: Settings, base: Settings, random: Random) -> dict[str, Any]:
    """A neighbour: about a third of the flags drawn anew, one at least, the others as they are.

    Args:
      params: as optuna has them.
    """
    chosen = [axis for axis in axes if random.random() < _SHARE_MUTATED] or [random.choice(axes)]
    return {**params, **{axis.flag: axis.draw(base[axis.flag], random) for axis in chosen}}


def decode(axes: list[Axis], params: Settings, base: Settings) -> dict[str, Any]:
    """Settings, of those that differ from the untuned ones."""
    values = {axis.flag: axis.decode(params[axis.flag], base[axis.flag]) for axis in axes}
    return {flag: value for flag, value in values.items() if value != base[flag]}


def as_flags(settings: Settings) -> str:
    """As one types them.

    >>> as_flags({"learning_rate": 0.001, "bidirectional": False})
    '--learning-rate 0.001 --no-bidirectional'
    """
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        else:
            words.append(f"--{flag} {value:g}" if isinstance(value, float) else f"--{flag} {value}")
    return " ".join(words)
