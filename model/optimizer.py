"""Adam with decoupled weight decay, fused: one op a weight, state in plain variables.

The state is a handful of named variables, so a checkpoint holds it whole and a resumed run goes on
bitwise. `tf.raw_ops.ResourceApplyAdam` computes what keras.optimizers.Adam does (Kingma & Ba 2015,
with epsilon outside the correction) in one pass over the memory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from model.config import TrainConfig
from model.lazy_rows import BETA_1, BETA_2, EPSILON, LazyRows, Rows
from model.words import TABLES

_PIECES_READ = 5  # for each token of a batch: 1.7 distinct ones, and lazy passes cost threefold
_NO_ROWS: Mapping[str, Rows] = {}
_FIRST_SCALE, _LARGEST_SCALE, _GROWTH_STEPS = 2.0**15, 2.0**24, 2000


class Adam(tf.Module):
    """Applies gradients; make it under the strategy scope of its weights."""

    def __init__(
        self, weights: dict[str, tf.Variable], config: TrainConfig, num_steps: int, scale_loss: bool
    ):
        """Args:
        num_steps: of the whole training, for warm-up and decay.
        scale_loss: dynamic loss scaling, for float16.
        """
        super().__init__()
        self._config, self._num_steps, self._scales = config, max(1, num_steps), scale_loss
        self._weights = weights
        self._first = {n: tf.Variable(tf.zeros(w.shape), False) for n, w in weights.items()}
        self._second = {n: tf.Variable(tf.zeros(w.shape), False) for n, w in weights.items()}
        self._applied = tf.Variable(0, False, dtype=tf.int64)
        self._scale = tf.Variable(_FIRST_SCALE, False)
        self._good_steps = tf.Variable(0, False, dtype=tf.int64)
        self.lazy_tables: frozenset[str] = frozenset()
        # more than are planned: where batches differ in size, their number is an estimate
        rates = self._step_sizes(num_steps + num_steps // 10 + 1000)
        self._rows = {
            name: LazyRows(weights[name], self._first[name], self._second[name], rates)
            for name in TABLES
            if name in weights
        }

    def _step_sizes(self, num_steps: int) -> np.ndarray:
        """float64[num_steps]: the learning rates, each with its step's bias correction."""
        rates = tf.ones(num_steps) * self.learning_rate(tf.range(num_steps))
        power = np.arange(1, num_steps + 1)
        return rates.numpy() * np.sqrt(1 - BETA_2**power) / (1 - BETA_1**power)

    def begin(self, step: int, lazy_tables: Collection[str] = ()) -> None:
        """Before training goes on from `step`, new or restored, and before its graph is traced.

        Args:
          lazy_tables: those updated row by row (model.lazy_rows); for a single replica.
        """
        # a step that is skipped would count as one that was missed
        skips = self._scales or self._config.skip_nonfinite
        self.lazy_tables = frozenset() if skips else frozenset(lazy_tables) & self._rows.keys()
        for name, rows in self._rows.items():
            rows.begin(step, name in self.lazy_tables)

    def catch_up(self, step: int) -> None:
        """Brings all weights up to `step`, as lazy tables are not in between."""
        for name in self.lazy_tables:
            self._rows[name].catch_up(step)

    def take_rows(self, table: str, numbers: tf.Tensor, step: tf.Tensor) -> tuple[Rows, tf.Tensor]:
        """A lazy table's rows of `numbers` int[N], for `apply`, and each number's place there."""
        return self._rows[table].take(numbers, step)

    @property
    def state_by_name(self) -> dict[str, tf.Variable]:
        named = {f"adam_first/{name}": value for name, value in self._first.items()}
        named |= {f"adam_second/{name}": value for name, value in self._second.items()}
        named["adam_applied"] = self._applied
        for name, rows in self._rows.items():
            named[f"adam_steps_of_rows/{name}"] = rows.steps_of_rows
        return named | {"loss_scale": self._scale, "loss_scale_good_steps": self._good_steps}

    def scaled(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss to differentiate: small float16 gradients would vanish."""
        return loss * self._scale if self._scales else loss

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """float32[] at a step, counted from 0: linear warm-up, then decay to 0 at the last."""
        config = self._config
        step = tf.cast(step, tf.float32)
        warmup = float(int(config.warmup * self._num_steps))
        rate = tf.minimum(1.0, (step + 1.0) / max(1.0, warmup)) if warmup else tf.ones([])
        progress = tf.clip_by_value((step - warmup) / max(1.0, self._num_steps - warmup), 0.0, 1.0)
        if config.decay == "cosine":
            rate *= 0.5 * (1.0 + tf.cos(math.pi * progress))
        elif config.decay == "linear":
            rate *= 1.0 - progress
        return config.learning_rate * rate

    def apply(
        self, gradients: dict[str, tf.Tensor], step: tf.Tensor, rows: Mapping[str, Rows] = _NO_ROWS
    ) -> tf.Tensor | None:
        """One update, in replica context, from gradients of `scaled` summed over the replicas.

        With `rows` of `take_rows`, by table, its gradient is theirs. It gives bool[], the same
        on all replicas: whether the gradient was finite; None where nothing here has to know, or
        loss scaling sees to it. `skip_nonfinite` leaves out the update of one that was not.
        """
        if not self._scales:
            return self._update(gradients, step, rows)
        scale = self._scale.read_value()
        gradients = {name: gradient / scale for name, gradient in gradients.items()}
        finite = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients.values()]
        )

        def update() -> None:
            self._update(gradients, step, rows)
            good = self._good_steps.read_value() + 1
            due = good >= _GROWTH_STEPS
            _assign(self._scale, tf.where(due, tf.minimum(scale * 2.0, _LARGEST_SCALE), scale))
            _assign(self._good_steps, tf.where(due, tf.zeros_like(good), good))

        def shrink() -> None:  # overflow: leave the weights as they are and try a smaller scale
            _assign(self._scale, tf.maximum(scale / 2.0, 1.0))
            _assign(self._good_steps, tf.zeros([], tf.int64))

        tf.cond(finite, update, shrink)  # not `if`: the step is not converted by autograph
        return None

    def _update(
        self, gradients: dict[str, tf.Tensor], step: tf.Tensor, rows: Mapping[str, Rows]
    ) -> tf.Tensor | None:
        config = self._config
        with tf.device("CPU:0"):  # where `step` is: one number to send, not a dozen tiny kernels
            rate = self.learning_rate(step)
        is_finite = None
        if config.clip_norm is not None:
            clipped, norm = tf.clip_by_global_norm(list(gradients.values()), config.clip_norm)
            gradients = dict(zip(gradients, clipped, strict=True))
            is_finite = tf.math.is_finite(norm)
        elif config.skip_nonfinite:
            is_finite = tf.math.is_finite(tf.linalg.global_norm(list(gradients.values())))
        beta_1, beta_2, one = BETA_1, BETA_2, 1
        if config.skip_nonfinite:  # an update that changes nothing: no branch, for which a GPU's
            assert is_finite is not None  # host would wait
            gradients = {n: tf.where(is_finite, g, 0.0) for n, g in gradients.items()}
            rate = tf.where(is_finite, rate, 0.0)
            beta_1, beta_2 = (tf.where(is_finite, beta, 1.0) for beta in (BETA_1, BETA_2))
            one = tf.cast(is_finite, tf.int64)
        power = tf.cast(self._applied.read_value() + 1, tf.float32)
        for name, weight in self._weights.items():
            if name in rows:
                corrected = rate * tf.sqrt(1 - BETA_2**power) / (1 - BETA_1**power)
                self._rows[name].put(rows[name], gradients[name], corrected, step)
                continue
            if config.weight_decay and name.endswith("kernel"):
                decayed = weight.read_value() * (1.0 - rate * config.weight_decay)
                _assign(weight, decayed)
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=self._first[name].handle,
                v=self._second[name].handle,
                beta1_power=tf.pow(BETA_1, power),
                beta2_power=tf.pow(BETA_2, power),
                lr=rate,
                beta1=beta_1,
                beta2=beta_2,
                epsilon=EPSILON,
                grad=gradients[name],
            )
        _assign(self._applied, self._applied.read_value() + one)
        return is_finite


def choose_lazy(batch_tokens: int, weights: Mapping[str, tf.Variable]) -> frozenset[str]:
    """The tables of which a CPU has less work with the rows that a batch reads than with all.

    Measured on two cores: .75 against 1.96 ms a step with 5,120 tokens and 20,000 rows of 50, the
    same with 41,000 tokens; 1.5 against 19 ms with 100,000 rows of 64. With 9,000 of 32,768 rows of
    128 read (the pieces of 5,400 tokens) both took 190 ms a step of processor time.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        return frozenset()
    reads = {name: batch_tokens * (_PIECES_READ if name == "pieces" else 1) for name in TABLES}
    tables = weights.keys() & reads.keys()
    return frozenset(name for name in tables if reads[name] < weights[name].shape[0])


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Assigns this replica's copy: all replicas compute the same, so none need ask the others."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
