"""Checkpoints: whole or not at all, and any damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from model.checkpoint import load_checkpoint, restore, save_checkpoint
from shortline import UserError

STATE = {"epoch": 3, "epoch_seconds": [1.5, 1.25], "is_done": False}


@pytest.fixture
def saved(tmp_path):
    variables = {"a/kernel": tf.Variable([[1.5, -2.0]]), "count": tf.Variable(7, dtype=tf.int64)}
    save_checkpoint(tmp_path / "checkpoints" / "last.npz", variables, STATE)
    return tmp_path / "checkpoints" / "last.npz", variables


def test_comes_back_as_it_was(saved):
    path, variables = saved
    arrays, state = load_checkpoint(path)
    assert state == STATE
    fresh = {name: tf.Variable(tf.zeros_like(v)) for name, v in variables.items()}
    restore(fresh, arrays, path)
    for name, variable in variables.items():
        np.testing.assert_array_equal(fresh[name], variable)
    assert [p.name for p in path.parent.iterdir()] == ["last.npz"]


def test_every_flipped_byte_and_every_cut_is_noticed_or_harmless(saved):
    path, _ = saved
    whole = path.read_bytes()
    expected, _ = load_checkpoint(path)
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            arrays, state = load_checkpoint(path)
        except UserError:
            continue
        assert state == STATE  # a byte of zip's own that says nothing
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(path)


def test_a_failed_write_leaves_the_old_one(saved, monkeypatch):
    path, variables = saved
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, variables, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["last.npz"]


def test_another_network_is_refused_by_name(saved, tmp_path):
    path, _ = saved
    arrays, _ = load_checkpoint(path)
    with pytest.raises(UserError, match=r"a/kernel is of shape \(1, 2\)"):
        restore({"a/kernel": tf.Variable(tf.zeros([2, 2]))}, arrays, path)
    with pytest.raises(UserError, match="b/bias is missing"):
        restore({"b/bias": tf.Variable(0.0)}, arrays, path)
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.npz")


def test_pickled_arrays_are_not_loaded(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, **{"state.json": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)
