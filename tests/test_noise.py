"""Random rows: reproducible, uniform, and the same however the rows are shared out."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from model.noise import dropout, dropout_tokens, uniform_rows

SEED = tf.constant([3, 5], tf.int64)


@pytest.mark.parametrize("row_size", [1, 3, 4, 10, 128])
@pytest.mark.parametrize("share", [1, 2, 4])
def test_rows_do_not_depend_on_the_share_of_a_replica(row_size, share):
    whole = uniform_rows(8, row_size, SEED, 0).numpy()
    each = 8 // share
    parts = [uniform_rows(each, row_size, SEED, r * each).numpy() for r in range(share)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_large_offsets_and_parallel_filling():
    whole = uniform_rows(5_000, 40, SEED, 0).numpy()
    np.testing.assert_array_equal(uniform_rows(100, 40, SEED, 4_900).numpy(), whole[4_900:])


def test_uniform_and_different_for_other_seeds():
    numbers = uniform_rows(1_000, 100, SEED, 0).numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.005
    other = uniform_rows(1_000, 100, tf.constant([3, 6], tf.int64), 0).numpy()
    assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < 0.01


def test_dropout_keeps_the_mean_and_the_rows_of_a_replica():
    dropped = dropout(tf.ones([80, 64]), 0.25, SEED, 0).numpy()
    assert set(np.unique(dropped).round(4)) == {0.0, np.float32(1 / 0.75).round(4)}
    assert abs(dropped.mean() - 1) < 0.02
    half = dropout(tf.ones([40, 64]), 0.25, SEED, 40).numpy()
    np.testing.assert_array_equal(half, dropped[40:])


def test_dropout_of_tokens_does_not_depend_on_how_rows_are_cut():
    dropped = dropout_tokens(tf.ones([50, 8, 6]), 0.25, SEED, 0, 50).numpy()
    assert abs(dropped.mean() - 1) < 0.02
    part = dropout_tokens(tf.ones([30, 4, 6]), 0.25, SEED, 4, 50).numpy()
    np.testing.assert_array_equal(part, dropped[:30, 4:])
