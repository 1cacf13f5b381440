"""Where a training stands: with the variables, all that a checkpoint needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.step import ChunkMetrics


@dataclass
class State:
    """Counts of steps, of the epoch so far, and of the epochs before; JSON can hold them all."""

    epoch: int = 0
    window: int = 0
    batch: int = 0
    step: int = 0
    num_docs: int = 0
    """Of this epoch so far, like the next eight."""
    num_correct: int = 0
    loss: float = 0.0
    num_loss_docs: int = 0
    seconds: float = 0.0
    num_tokens: int = 0
    num_padded: int = 0
    num_steps: int = 0
    skipped: int = 0
    """Steps of --skip-nonfinite whose update was left out ..."""
    best_score: float = -1.0
    best_loss: float = 0.0
    """Of the best epoch's validation documents: of two epochs of one score, the lower is better."""
    best_epoch: int = 0
    """Counted from 1; 0 before the first."""
    epochs_without_gain: int = 0
    epoch_seconds: list[float] = field(default_factory=list)
    padding_fraction: float = 0.0
    startup_seconds: float = 0.0
    """From the first process's start to its first training step."""
    startup: dict[str, float] = field(default_factory=dict)
    """The same by phase."""
    num_skipped: int = 0
    """... and those of all epochs."""
    is_done: bool = False

    @property
    def mean_loss(self) -> float:
        """Of a document of this epoch so far; NaN where every step was skipped."""
        return self.loss / self.num_loss_docs if self.num_loss_docs else math.nan

    def add_chunk(self, sums: ChunkMetrics, num_steps: int, seconds: float) -> None:
        """Counts a chunk of steps that took so many seconds."""
        self.step += num_steps
        self.batch += num_steps
        self.num_steps += num_steps
        self.seconds += seconds
        self.num_docs += sums.num_docs
        self.num_correct += sums.num_correct
        self.loss += sums.loss
        self.num_loss_docs += sums.num_loss_docs
        self.skipped += sums.num_bad_steps
        self.num_skipped += sums.num_bad_steps

    def add_epoch(self) -> None:
        """Counts the epoch that has come to its end."""
        self.epoch += 1
        self.epoch_seconds.append(self.seconds)
        self.padding_fraction = 1 - self.num_tokens / self.num_padded

    def begin_epoch(self) -> None:
        """Sets all counts of an epoch to zero."""
        self.window = self.batch = self.num_docs = self.num_correct = self.num_steps = 0
        self.num_tokens = self.num_padded = self.skipped = self.num_loss_docs = 0
        self.loss = self.seconds = 0.0
