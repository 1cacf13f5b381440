"""Adam for a table of which a step reads few rows: only those are touched.

Dense Adam moves every row at every step, also those without a gradient, by what is left of their
momentum. Here a row's missed moves are made up in closed form when it is next read, so the result
is dense Adam's (to rounding, and to epsilon's share in the missed moves), while the work goes with
the words of the batch and not with the vocabulary.

Legend: V rows of the table, E their size, U distinct rows of a step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
_DECAY = BETA_1 / BETA_2**0.5  # of a missed move against the one before it
_REACH = 256  # moves until next to nothing is left: _DECAY ** 256 is 2e-12
_UP_TO_DATE = -1


class Rows(NamedTuple):
    """The rows that a step reads, brought up to date."""

    numbers: tf.Tensor
    """int[U]."""
    weights: tf.Tensor
    """float32[U, E], like the next two."""
    first: tf.Tensor
    second: tf.Tensor


class LazyRows(tf.Module):
    """A table, its two moments, and up to which step each row has been moved."""

    def __init__(
        self, weights: tf.Variable, first: tf.Variable, second: tf.Variable, rates: np.ndarray
    ):
        """Args:
        rates: float[num_steps], step size of each step, Adam's bias correction included.
        """
        super().__init__()
        self._weights, self._first, self._second = weights, first, second
        self.steps_of_rows = tf.Variable(
            tf.fill([weights.shape[0]], _UP_TO_DATE), trainable=False, dtype=tf.int32
        )
        # reach[s] = sum over j >= 1 of rates[s + j - 1] * _DECAY ** j: all the missed moves of a
        # row from step s on, in units of first / sqrt(second)
        powers = _DECAY ** np.arange(_REACH, 0, -1)
        padded = np.concatenate([rates, np.full(_REACH, rates[-1])])  # steps beyond the plan
        self._reach = tf.constant(np.convolve(padded, powers)[_REACH - 1 :][: len(rates) + 1])

    def begin(self, step: int, lazy: bool) -> None:
        """Before the first step, or after a restore of a run that may have been lazy or not."""
        steps = self.steps_of_rows
        if lazy:
            steps.assign(tf.where(steps < 0, step, steps))
        elif tf.reduce_any(steps >= 0):
            steps.assign(tf.where(steps < 0, step, steps))
            self.catch_up(step)
            steps.assign(tf.fill(steps.shape, _UP_TO_DATE))

    def take(self, numbers: tf.Tensor, step: tf.Tensor) -> tuple[Rows, tf.Tensor]:
        """The rows of numbers int[N] as of `step`, and for each number its place among them."""
        numbers, places = tf.unique(numbers)
        tables = self._weights, self._first, self._second
        weights, first, second = (tf.gather(table, numbers) for table in tables)
        missed = tf.gather(self.steps_of_rows, numbers)
        return Rows(numbers, *self._move(weights, first, second, missed, step)), places

    def put(self, rows: Rows, gradient: tf.Tensor, rate: tf.Tensor, step: tf.Tensor) -> None:
        """One Adam update of these rows, from gradient float32[U, E]."""
        first = rows.first + (gradient - rows.first) * (1 - BETA_1)
        second = rows.second + (tf.square(gradient) - rows.second) * (1 - BETA_2)
        weights = rows.weights - rate * first / (tf.sqrt(second) + EPSILON)
        done = tf.fill(tf.shape(rows.numbers), tf.cast(step, tf.int32) + 1)
        for table, values in (
            (self._weights, weights),
            (self._first, first),
            (self._second, second),
            (self.steps_of_rows, done),
        ):
            tf.raw_ops.ResourceScatterUpdate(
                resource=table.handle, indices=rows.numbers, updates=values
            )

    def catch_up(self, step: int) -> None:
        """Brings every row up to `step`: before the table is evaluated or saved for use."""
        at = tf.constant(np.int32(step))
        moved = self._move(self._weights, self._first, self._second, self.steps_of_rows, at)
        for table, values in zip((self._weights, self._first, self._second), moved, strict=True):
            table.assign(values)
        self.steps_of_rows.assign(tf.fill(self.steps_of_rows.shape, at))

    def _move(self, weights, first, second, done, step) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The moves of steps `done` int32[U] … `step` - 1, without a gradient."""
        step = tf.cast(step, tf.int32)
        last = tf.size(self._reach) - 1
        missed = tf.cast(step - done, tf.float64)
        reach = tf.gather(self._reach, tf.minimum(done, last))
        reach -= _DECAY**missed * self._reach[tf.minimum(step, last)]
        reach = tf.cast(reach, tf.float32)[:, tf.newaxis]
        weights = weights - reach * first / (tf.sqrt(second) + EPSILON)
        first = first * tf.cast(BETA_1**missed, tf.float32)[:, tf.newaxis]
        second = second * tf.cast(BETA_2**missed, tf.float32)[:, tf.newaxis]
        return weights, first, second
