"""Adam against Keras's, its schedule, and its loss scaling."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.config import TrainConfig
from model.optimizer import Adam


def _weights():
    return {"a/kernel": tf.Variable([[1.0, -2.0], [3.0, 0.5]]), "a/bias": tf.Variable([0.1, 0.2])}


def _plain(**settings):
    return TrainConfig(warmup=0.0, decay="none", **{"clip_norm": None, **settings})


def _gradients(step):
    rng = np.random.default_rng(step)
    return {
        "a/kernel": tf.constant(rng.normal(size=(2, 2)), tf.float32),
        "a/bias": tf.constant(rng.normal(size=2), tf.float32),
    }


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_equals_keras_adam_over_many_steps(clip_norm):
    ours, theirs = _weights(), [keras.Variable(w.numpy()) for w in _weights().values()]
    adam = Adam(ours, _plain(learning_rate=0.03, clip_norm=clip_norm), 30, scale_loss=False)
    oracle = keras.optimizers.Adam(0.03, global_clipnorm=clip_norm)
    for step in range(30):
        adam.apply(_gradients(step), tf.constant(step))
        oracle.apply(list(_gradients(step).values()), theirs)
    for weight, expected in zip(ours.values(), theirs, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)


def test_weight_decay_equals_keras_adamw_on_kernels_alone():
    ours, theirs = _weights(), [keras.Variable(w.numpy()) for w in _weights().values()]
    adam = Adam(ours, _plain(learning_rate=0.01, weight_decay=0.1), 9, scale_loss=False)
    oracle = keras.optimizers.AdamW(0.01, weight_decay=0.1)
    oracle.exclude_from_weight_decay([theirs[1]])
    for step in range(9):
        adam.apply(_gradients(step), tf.constant(step))
        oracle.apply(list(_gradients(step).values()), theirs)
    for weight, expected in zip(ours.values(), theirs, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", ["none", "linear", "cosine"])
def test_schedule_warms_up_and_ends_low(decay):
    config = TrainConfig(learning_rate=0.5, warmup=0.1, decay=decay)
    adam = Adam(_weights(), config, 100, scale_loss=False)
    rates = [float(adam.learning_rate(tf.constant(step))) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10 * 0.5, rtol=1e-5)
    assert rates[9] == pytest.approx(0.5)
    assert (np.diff(rates[10:]) <= 1e-6).all()
    assert rates[-1] == pytest.approx(0.5) if decay == "none" else rates[-1] < 0.01


def test_an_overflow_leaves_the_weights_and_halves_the_scale():
    weights = _weights()
    adam = Adam(weights, _plain(), 10, scale_loss=True)
    before = {name: weight.numpy() for name, weight in weights.items()}
    scale = float(adam.scaled(tf.constant(1.0)))
    step = tf.function(adam.apply)
    step(_gradients(0) | {"a/bias": tf.constant([np.inf, 0.0], tf.float32)}, tf.constant(0))
    for name, weight in weights.items():
        np.testing.assert_array_equal(weight, before[name])
    assert float(adam.scaled(tf.constant(1.0))) == scale / 2
    assert int(adam.state_by_name["adam_applied"]) == 0


def test_scaled_gradients_are_the_same_step():
    plain, scaled = _weights(), _weights()
    config = _plain(clip_norm=0.5)
    Adam(plain, config, 10, scale_loss=False).apply(_gradients(0), tf.constant(0))
    adam = Adam(scaled, config, 10, scale_loss=True)
    gradients = {name: adam.scaled(g) for name, g in _gradients(0).items()}
    adam.apply(gradients, tf.constant(0))
    for name, weight in plain.items():
        np.testing.assert_allclose(scaled[name], weight, rtol=1e-6)


def test_state_holds_all_that_a_resumed_run_needs():
    straight, stopped = _weights(), _weights()
    config = TrainConfig(warmup=0.2, decay="cosine")
    adam = Adam(straight, config, 10, scale_loss=False)
    for step in range(6):
        adam.apply(_gradients(step), tf.constant(step))
    first = Adam(stopped, config, 10, scale_loss=False)
    for step in range(3):
        first.apply(_gradients(step), tf.constant(step))
    second = Adam(stopped, config, 10, scale_loss=False)
    for name, variable in second.state_by_name.items():
        variable.assign(first.state_by_name[name])
    for step in range(3, 6):
        second.apply(_gradients(step), tf.constant(step))
    for name, weight in straight.items():
        np.testing.assert_array_equal(stopped[name], weight)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_skipped_update_leaves_weights_and_state_bitwise(clip_norm, bad):
    settings = {"learning_rate": 0.03, "weight_decay": 0.1, "clip_norm": clip_norm}
    ours, theirs = _weights(), _weights()
    skips = Adam(ours, _plain(**settings, skip_nonfinite=True), 30, scale_loss=False)
    plain = Adam(theirs, _plain(**settings), 30, scale_loss=False)
    for step in range(20):
        if step in (0, 7, 8):  # the first, when the moments are still zero, and two in a row
            gradients = _gradients(step) | {"a/bias": tf.constant([bad, 1.0])}
            assert not skips.apply(gradients, tf.constant(step))
        assert skips.apply(_gradients(step), tf.constant(step))
        plain.apply(_gradients(step), tf.constant(step))
    for name, variable in (ours | skips.state_by_name).items():
        np.testing.assert_array_equal(variable, (theirs | plain.state_by_name)[name], name)
