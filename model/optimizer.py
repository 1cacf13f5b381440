"""Adam with decoupled weight decay, fused: one op a weight, state in plain variables.

The state is a handful of named variables, so a checkpoint holds it whole and a resumed run goes on
bitwise. `tf.raw_ops.ResourceApplyAdam` computes what keras.optimizers.Adam does (Kingma & Ba 2015,
with epsilon outside the correction) in one pass over the memory.
"""

from __future__ import annotations

import math

import tensorflow as tf

from model.config import TrainConfig

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7
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

    @property
    def state_by_name(self) -> dict[str, tf.Variable]:
        named = {f"adam_first/{name}": value for name, value in self._first.items()}
        named |= {f"adam_second/{name}": value for name, value in self._second.items()}
        named["adam_applied"] = self._applied
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

    def apply(self, gradients: dict[str, tf.Tensor], step: tf.Tensor) -> None:
        """One update, in replica context, from gradients of `scaled` summed over the replicas."""
        if not self._scales:
            self._update(gradients, step)
            return
        scale = self._scale.read_value()
        gradients = {name: gradient / scale for name, gradient in gradients.items()}
        finite = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients.values()]
        )
        if finite:
            self._update(gradients, step)
            good = self._good_steps.read_value() + 1
            due = good >= _GROWTH_STEPS
            _assign(self._scale, tf.where(due, tf.minimum(scale * 2.0, _LARGEST_SCALE), scale))
            _assign(self._good_steps, tf.where(due, tf.zeros_like(good), good))
        else:  # overflow: leave the weights as they are and try a smaller scale
            _assign(self._scale, tf.maximum(scale / 2.0, 1.0))
            _assign(self._good_steps, tf.zeros([], tf.int64))

    def _update(self, gradients: dict[str, tf.Tensor], step: tf.Tensor) -> None:
        config = self._config
        rate = self.learning_rate(step)
        if config.clip_norm is not None:
            clipped, _ = tf.clip_by_global_norm(list(gradients.values()), config.clip_norm)
            gradients = dict(zip(gradients, clipped, strict=True))
        power = tf.cast(self._applied.read_value() + 1, tf.float32)
        for name, weight in self._weights.items():
            if config.weight_decay and name.endswith("kernel"):
                decayed = weight.read_value() * (1.0 - rate * config.weight_decay)
                _assign(weight, decayed)
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=self._first[name].handle,
                v=self._second[name].handle,
                beta1_power=tf.pow(_BETA_1, power),
                beta2_power=tf.pow(_BETA_2, power),
                lr=rate,
                beta1=_BETA_1,
                beta2=_BETA_2,
                epsilon=_EPSILON,
                grad=gradients[name],
            )
        _assign(self._applied, self._applied.read_value() + 1)


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Assigns this replica's copy: all replicas compute the same, so none need ask the others."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
