"""Lazy embedding rows: dense Adam's result, from the rows that are read alone."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from model.config import TrainConfig
from model.optimizer import Adam

NUM_STEPS, NUM_ROWS = 400, 40


def _adam(config, is_lazy):
    table = np.random.default_rng(1).normal(size=(NUM_ROWS, 3)).astype(np.float32)
    weights = {"embedding": tf.Variable(table), "x/bias": tf.Variable([0.5])}
    adam = Adam(weights, config, NUM_STEPS, scale_loss=False)
    adam.begin(0, ["embedding"] if is_lazy else ())
    return weights, adam


def _batch(step):
    """Tokens of a step, rare ones among them, and their gradients; row 39 is read only once."""
    rng = np.random.default_rng(step)
    ids = np.minimum(rng.geometric(0.15, 20) - 1, NUM_ROWS - 2)
    if step == 3:
        ids[0] = NUM_ROWS - 1
    return tf.constant(ids, tf.int32), tf.constant(rng.normal(size=(20, 3)), tf.float32)


@tf.function
def _dense_step(adam, step, ids, gradient):
    total = tf.math.unsorted_segment_sum(gradient, ids, NUM_ROWS)
    adam.apply({"embedding": total, "x/bias": tf.ones([1])}, step)


@tf.function
def _lazy_step(adam, step, ids, gradient):
    rows, places = adam.take_rows("embedding", ids, step)
    total = tf.math.unsorted_segment_sum(gradient, places, tf.size(rows.numbers))
    adam.apply({"embedding": total, "x/bias": tf.ones([1])}, step, {"embedding": rows})


def _train(adam, first, last, take_step):
    for step in range(first, last):
        take_step(adam, tf.constant(step, tf.int64), *_batch(step))


@pytest.mark.parametrize("clip_norm", [None, 2.0])
@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_equals_dense_adam(decay, clip_norm):
    config = TrainConfig(learning_rate=0.02, warmup=0.1, decay=decay, clip_norm=clip_norm)
    expected, dense = _adam(config, False)
    weights, lazy = _adam(config, True)
    _train(dense, 0, NUM_STEPS, _dense_step)
    _train(lazy, 0, NUM_STEPS, _lazy_step)
    behind = np.abs(weights["embedding"].numpy() - expected["embedding"].numpy()).max()
    lazy.catch_up(NUM_STEPS)
    assert behind > 1e-3, "nothing was left to catch up with: the test shows nothing"
    for name in weights:
        # float32 after 400 steps of .02
        np.testing.assert_allclose(weights[name], expected[name], rtol=2e-5, atol=1e-5)
    moments = dense.state_by_name
    for name, value in lazy.state_by_name.items():
        if name.startswith("adam_first") or name.startswith("adam_second"):
            np.testing.assert_allclose(value, moments[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("then_lazy", [True, False])
@pytest.mark.parametrize("first_lazy", [True, False])
def test_restored_lazy_or_not_goes_on_the_same(first_lazy, then_lazy):
    config = TrainConfig(learning_rate=0.02, clip_norm=None)
    expected, dense = _adam(config, False)
    _train(dense, 0, 60, _dense_step)
    before, first = _adam(config, first_lazy)
    _train(first, 0, 30, _lazy_step if first_lazy else _dense_step)
    after, then = _adam(config, then_lazy)
    for name, value in (before | first.state_by_name).items():
        (after | then.state_by_name)[name].assign(value)
    then.begin(30, ["embedding"] if then_lazy else ())
    _train(then, 30, 60, _lazy_step if then_lazy else _dense_step)
    then.catch_up(60)
    np.testing.assert_allclose(after["embedding"], expected["embedding"], rtol=1e-4, atol=1e-5)


def test_resumed_in_the_middle_is_bitwise_the_straight_run():
    config = TrainConfig(learning_rate=0.02)
    expected, straight = _adam(config, True)
    _train(straight, 0, 60, _lazy_step)
    before, first = _adam(config, True)
    _train(first, 0, 30, _lazy_step)
    after, then = _adam(config, True)
    for name, value in (before | first.state_by_name).items():
        (after | then.state_by_name)[name].assign(value)
    then.begin(30, ["embedding"])
    _train(then, 30, 60, _lazy_step)
    np.testing.assert_array_equal(after["embedding"], expected["embedding"])


def test_goes_on_beyond_the_planned_steps():
    """How many steps there will be is an estimate where batches differ in size."""
    config = TrainConfig(learning_rate=0.02, warmup=0.0, decay="none")
    expected, dense = _adam(config, False)
    weights, lazy = _adam(config, True)
    _train(dense, 0, NUM_STEPS + 60, _dense_step)
    _train(lazy, 0, NUM_STEPS + 60, _lazy_step)
    lazy.catch_up(NUM_STEPS + 60)
    np.testing.assert_allclose(weights["embedding"], expected["embedding"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("scales", "skips"), [(True, False), (False, True)])
def test_what_skips_steps_is_never_lazy(scales, skips):
    weights = {"embedding": tf.Variable(tf.ones([3, 2]))}
    adam = Adam(weights, TrainConfig(skip_nonfinite=skips), 10, scale_loss=scales)
    adam.begin(0, ["embedding"])
    assert not adam.lazy_tables
