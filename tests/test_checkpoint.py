"""Checkpoints: whole or not at all, any damage is noticed, and training goes on meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import model.checkpoint as checkpoint
import train
from model import signals
from model.checkpoint import CheckpointWriter, load_best, load_checkpoint, load_newest, restore
from shortline import EXIT_STOPPED, UserError

STATE = {"step": 7, "epoch": 3, "epoch_seconds": [1.5, 1.25], "is_done": False}


def _save(path: Path, variables, state) -> None:
    with CheckpointWriter() as writer:
        writer.save([path], variables, state)


@pytest.fixture
def saved(tmp_path):
    variables = {"a/kernel": tf.Variable([[1.5, -2.0]]), "count": tf.Variable(7, dtype=tf.int64)}
    _save(tmp_path / "checkpoints" / "last.npz", variables, STATE)
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
    encrypted = whole.index(b"PK\1\2") + 8  # a bit of the archive's list of files
    path.write_bytes(whole[:encrypted] + bytes([whole[encrypted] ^ 1]) + whole[encrypted + 1 :])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)
    for length in range(0, len(whole), 50):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EMFILE])
def test_what_cannot_be_opened_now_is_not_taken_for_damaged(saved, monkeypatch, number):
    path, _ = saved
    path.with_name("last-1.npz").write_bytes(path.read_bytes())
    path.write_bytes(path.read_bytes() + b"newer")
    before = path.read_bytes()

    def refuse(name, *rest, **options):
        raise OSError(number, os.strerror(number), str(name))

    with monkeypatch.context() as patched:
        patched.setattr(np, "load", refuse)
        with pytest.raises(UserError, match=f"last.npz: {os.strerror(number)}; "):
            load_newest(path)
    assert path.read_bytes() == before


def test_a_damaged_one_is_kept_to_be_looked_at(saved):
    path, _ = saved
    path.with_name("last-1.npz").write_bytes(path.read_bytes())
    path.write_bytes(b"damaged")
    assert load_newest(path)[1] == STATE
    assert load_checkpoint(path)[1] == STATE
    assert path.with_name("last.npz.damaged").read_bytes() == b"damaged"
    assert load_newest(path)[1] == STATE
    assert len([*path.parent.iterdir()]) == 3


def test_a_failed_save_does_not_hide_the_error_under_way(tmp_path, capsys):
    def train_and_fail():
        with CheckpointWriter() as writer:
            writer.save([tmp_path / "last.npz"], {"w": tf.Variable(np.nan)}, {"step": 1})
            raise UserError("the shard is damaged")

    with pytest.raises(UserError, match="the shard is damaged"):
        train_and_fail()
    assert "note: the last checkpoint was not saved: w is not finite" in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_one(saved, monkeypatch):
    path, variables = saved
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space"):
        _save(path, variables, {"step": 8})
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


@pytest.fixture
def held_writes(monkeypatch):
    """The thread does not begin before the event that this gives is set."""
    go, save = threading.Event(), checkpoint._save

    def wait_and_save(*args):
        assert go.wait(30)
        save(*args)

    monkeypatch.setattr(checkpoint, "_save", wait_and_save)
    yield go
    go.set()


def _weight(path: Path) -> float:
    return load_checkpoint(path)[0]["weight"].item()


def test_training_goes_on_while_the_values_of_now_are_written(tmp_path, held_writes):
    last, weight = tmp_path / "checkpoints" / "last.npz", tf.Variable(1.0)
    slots = [tf.Variable(0.0), tf.Variable(0.0)]
    state = {"step": 1, "epoch_seconds": [1.0]}
    with CheckpointWriter() as writer:
        writer.save([last], {"weight": weight}, state)
        state["epoch_seconds"].append(2.0)  # type: ignore[attr-defined]
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle, m=slots[0].handle, v=slots[1].handle, beta1_power=0.9,
            beta2_power=0.999, lr=0.5, beta1=0.9, beta2=0.999, epsilon=1e-7, grad=1.0,
        )  # fmt: skip
        assert weight.numpy() == pytest.approx(0.5, rel=1e-4)
        writer.check()
        assert not last.exists()
        held_writes.set()
    assert load_checkpoint(last)[1] == {"step": 1, "epoch_seconds": [1.0]}
    assert _weight(last) == 1.0


def test_a_save_waits_for_the_one_before(tmp_path, held_writes):
    last, weight = tmp_path / "last.npz", tf.Variable(1.0)
    with CheckpointWriter() as writer:
        writer.save([last], {"weight": weight}, {"step": 1})
        weight.assign(2.0)
        threading.Timer(0.2, held_writes.set).start()
        writer.save([last], {"weight": weight}, {"step": 2})
        assert last.exists()
    assert load_checkpoint(last)[1] == {"step": 2}
    assert _weight(last) == 2.0


@pytest.mark.parametrize("has_links", [True, False])
def test_the_best_is_kept_when_the_last_moves_on(tmp_path, monkeypatch, has_links):
    def refuse(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    best, last, weight = tmp_path / "best.npz", tmp_path / "last.npz", tf.Variable(1.0)
    with CheckpointWriter() as writer:
        for step in (1, 2):
            writer.save([best, last], {"weight": weight}, {"step": step})
            writer.wait()
            assert best.read_bytes() == last.read_bytes()
            assert os.path.samefile(best, last) == has_links
        weight.assign(2.0)
        writer.save([last], {"weight": weight}, {"step": 3})
    assert (_weight(best), _weight(last)) == (1.0, 2.0)
    assert {path.name for path in tmp_path.iterdir()} == {"best.npz", "best-copy.npz", "last.npz"}


@pytest.mark.parametrize("is_gone", [True, False])
def test_of_the_best_there_is_a_copy_on_other_blocks(tmp_path, capsys, is_gone):
    best, last = tmp_path / "best.npz", tmp_path / "last.npz"
    with CheckpointWriter() as writer:
        writer.save([best, last], {"weight": tf.Variable(1.0)}, {"step": 1})
    expected = load_best(best)
    data = best.read_bytes()
    with open(best, "r+b") as file:  # in place, as a disk does: `last` is the same file
        file.seek(data.index(np.float32(1).tobytes()))
        file.write(b"\1")
    if is_gone:
        best.unlink()
    arrays, state = load_best(best)
    assert (arrays["weight"], state) == (expected[0]["weight"], expected[1])
    said = capsys.readouterr().err
    assert f"note: {best}: {'missing' if is_gone else 'damaged'}" in said
    assert "its copy best-copy.npz is used" in said
    (tmp_path / "best-copy.npz").write_bytes(b"damaged too")
    with pytest.raises(UserError, match=r"best\.npz: (damaged|no such checkpoint)"):
        load_best(best)


@pytest.mark.parametrize("ask", ["save", "check", "leave"])
def test_what_is_not_finite_is_not_written_and_told_in_the_end(tmp_path, ask):
    last, weight = tmp_path / "last.npz", tf.Variable(1.0)

    def save_and_ask():
        with CheckpointWriter() as writer:
            writer.save([last], {"weight": weight}, {"step": 1})
            writer.wait()
            weight.assign(np.nan)
            writer.save([last], {"weight": weight}, {"step": 2})
            if ask == "save":
                writer.save([last], {"weight": weight}, {"step": 3})
            while ask == "check":
                writer.check()

    with pytest.raises(UserError, match="weight is not finite after step 2"):
        save_and_ask()
    assert load_checkpoint(last)[1] == {"step": 1}
    assert _weight(last) == 1.0


def test_a_full_disk_is_told_once(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    last, weight = tmp_path / "last.npz", tf.Variable(1.0)
    with CheckpointWriter() as writer:
        with monkeypatch.context() as patched:
            patched.setattr(np, "savez", fail)
            writer.save([last], {"weight": weight}, {"step": 1})
            with pytest.raises(OSError, match="No space"):
                writer.wait()
        writer.save([last], {"weight": weight}, {"step": 2})
    assert load_checkpoint(last)[1] == {"step": 2}


def test_a_stopped_run_ends_after_its_checkpoint_is_written(small_shards, tmp_path, monkeypatch):
    savez, run_chunk, out = np.savez, train.run_chunk, tmp_path / "run"

    def save_slowly(*args, **kwargs):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)  # another, while the run waits for the disk
        savez(*args, **kwargs)

    def run_and_stop(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return run_chunk(*args)

    monkeypatch.setattr(np, "savez", save_slowly)
    monkeypatch.setattr(train, "run_chunk", run_and_stop)
    monkeypatch.setattr(signals, "_ONE_REQUEST_SECONDS", 600)  # on a busy machine, too
    args = ["--data", str(small_shards.folder), "--out", str(out), "--hidden=4"]
    assert train.main(args) == EXIT_STOPPED
    _, state = load_checkpoint(out / "checkpoints" / "last.npz")
    assert state["step"] > 0
