"""What goes wrong during a training is told in a line, and what was saved is kept."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import model.checkpoint as checkpoint
import model.step as step
import tests.runs
import train
from model.signals import _ONE_REQUEST_SECONDS, catch_signals
from shortline import EXIT_STOPPED, UserError, run_command
from tests.runs import SMALL, arrays_of, same_weights
from tfdata import shards


@pytest.fixture
def args(small_shards, tmp_path):
    return ["--data", str(small_shards.folder), "--out", str(tmp_path / "run"), *SMALL]


def _fail_in_epoch(monkeypatch, epoch: int, fail) -> None:
    """Calls `fail` before the first chunk of an epoch, counted from 0."""
    run_chunk = train.run_chunk

    def run_or_fail(trainer, state, *rest):
        if state.epoch == epoch:
            trainer.checkpoints.wait()
            fail(trainer)
        return run_chunk(trainer, state, *rest)

    monkeypatch.setattr(train, "run_chunk", run_or_fail)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
    ],
)
def test_out_of_memory_is_told_and_the_run_goes_on_later(
    args, straight, tmp_path, monkeypatch, error
):
    def fail(trainer):
        raise error

    with monkeypatch.context() as patched:
        _fail_in_epoch(patched, 1, fail)
        with pytest.raises(UserError, match=r"out of memory; .*--batch-size.*(9 GiB|OOM when)"):
            train.main(args)
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert same_weights(tmp_path / "run", straight)


def test_a_disk_that_fills_up_keeps_the_checkpoint(args, straight, tmp_path, monkeypatch):
    savez = np.savez

    def fill_disk(trainer):
        def fail(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(np, "savez", fail)

    with monkeypatch.context() as patched:
        _fail_in_epoch(patched, 1, fill_disk)
        with pytest.raises(OSError, match=r"No space left on device: .*(last|best)\.npz"):
            train.main(args)
    monkeypatch.setattr(np, "savez", savez)
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert same_weights(tmp_path / "run", straight)


def test_a_shard_that_cannot_be_read_is_named_and_resumed_from(args, tmp_path, monkeypatch):
    """A read error in the middle of the second epoch's reading."""
    flags = [*args, "--residency=stream", "--window-docs=500", "--no-id-cache", "--no-doctor"]
    assert train.main([*flags, "--out", str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(shards, "_verified", set())
    iterate, opened = pq.ParquetFile.iter_batches, []

    def iterate_and_fail(self, *rest, **options):
        if self.metadata.num_rows > 1_000:  # not those of validation
            opened.append(self)
        for number, batch in enumerate(iterate(self, 500, **options)):
            if len(opened) == 3 and number == 1:  # the first counts pairs
                raise OSError(errno.EIO, "Input/output error")
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetFile, "iter_batches", iterate_and_fail)
        with pytest.raises(UserError, match=r"train-.*\.parquet: cannot be read .*Input/output"):
            train.main(flags)
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert same_weights(tmp_path / "run", tmp_path / "whole")


def test_a_file_that_cannot_be_read_to_its_end_is_named(tmp_path, monkeypatch, capsys):
    class Failing(io.BytesIO):
        def read(self, *rest):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shards, "open", lambda *rest: Failing(), raising=False)
    with pytest.raises(SystemExit) as caught:
        run_command(lambda argv: shards.file_sha256(tmp_path / "a.parquet") and None)
    assert caught.value.code == 2
    assert f"error: {tmp_path}/a.parquet: Input/output error; the disk" in capsys.readouterr().err


def _spoil(monkeypatch, is_bad) -> None:
    """The loss to differentiate is not finite in steps that `is_bad`: of (Batch, step), bool[]."""
    cross_entropy, build = step.cross_entropy, step._build_replica_step
    current = []

    def build_and_note(*rest):
        replica_step = build(*rest)

        def noting(batch, number):
            current[:] = [(batch, number)]
            return replica_step(batch, number)

        return tf.autograph.experimental.do_not_convert(noting)

    def spoiled(*rest):
        losses = cross_entropy(*rest)
        is_shown = len(rest) == 2
        return losses if is_shown else losses * tf.where(is_bad(*current[0]), np.nan, 1.0)

    monkeypatch.setattr(step, "_build_replica_step", build_and_note)
    monkeypatch.setattr(step, "cross_entropy", spoiled)


@pytest.mark.parametrize("residency", ["host", "stream"])
def test_the_first_bad_step_and_its_rows_are_named(
    small_shards, args, tmp_path, monkeypatch, residency
):
    _spoil(monkeypatch, lambda batch, number: number == 40)
    seen = {}
    locate = train.check_bad_steps

    def note(trainer, state, sums, *rest):
        seen["rows"] = trainer.locate((1, state.window, state.batch + sums.num_good_steps))
        locate(trainer, state, sums, *rest)

    monkeypatch.setattr(train, "check_bad_steps", note)
    flags = [f"--residency={residency}", "--window-docs=500"]
    with pytest.raises(UserError, match=r"not finite at step 40, in epoch 2; its batch") as caught:
        train.main([*args, *flags])
    assert seen["rows"] in str(caught.value)
    file, _, numbers = seen["rows"].partition(" rows ")
    assert (small_shards.folder / file).exists()
    rows = [int(number) for number in numbers.split(",")]
    assert len(rows) == len(set(rows)) == 64
    assert max(rows) < small_shards.num_docs("train")
    state = json.loads(
        np.load(tmp_path / "run" / "checkpoints" / "last.npz")["state.json"].tobytes()
    )
    assert state["step"] == 29  # of the end of the first epoch


def test_the_rows_are_those_of_the_batch(small_shards, args, monkeypatch):
    """Told apart by a single document, which makes its batch bad."""
    _spoil(monkeypatch, lambda batch, number: tf.reduce_any(batch.docs == 1234))
    with pytest.raises(UserError, match=r"its batch is made of train-00000\.parquet rows .*1234"):
        train.main(args)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_skipped_step_changes_nothing_and_is_counted(
    args, tmp_path, monkeypatch, capsys, replicas
):
    flags = [*args, "--skip-nonfinite", f"--cpu-replicas={replicas}", "--gpus=none"]
    with monkeypatch.context() as patched:
        bad = []
        locate = train.check_bad_steps
        patched.setattr(train, "check_bad_steps", lambda *a: bad.append(a[2]) or locate(*a))
        # bad for one replica alone: all must leave it out
        _spoil(patched, lambda batch, number: tf.reduce_any(batch.docs == 1000))
        assert train.main(flags) == 0
    assert [sums.num_bad_steps for sums in bad] == [1, 1]  # once an epoch
    assert "skipped 1 of the steps" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["skipped_steps"] == 2
    assert arrays_of(tmp_path / "run")["adam_applied"] == summary["steps"] - 2
    assert all(np.isfinite(array).all() for array in arrays_of(tmp_path / "run").values())


def test_an_epoch_of_skipped_steps_stops(args, monkeypatch):
    _spoil(monkeypatch, lambda batch, number: number >= 0)
    with pytest.raises(UserError, match="every step of epoch 1 was skipped"):
        train.main([*args, "--skip-nonfinite"])


def test_a_second_signal_stops_at_once_and_leaves_the_checkpoint(args, tmp_path, monkeypatch):
    """The first is not answered, as in a long evaluation; the second does not wait for it."""
    seen = []

    def interrupt(trainer):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # the same request
        seen.append("waits")
        time.sleep(_ONE_REQUEST_SECONDS + 0.1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        seen.append("was not stopped")

    _fail_in_epoch(monkeypatch, 1, interrupt)
    assert train.main(args) == EXIT_STOPPED
    assert seen == ["waits"]
    _, state = checkpoint.load_checkpoint(tmp_path / "run" / "checkpoints" / "last.npz")
    assert state["step"] == 29
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_run_that_saves_nothing_does_not_say_that_it_did(args, tmp_path, monkeypatch, capsys):
    _fail_in_epoch(monkeypatch, 1, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        train.main([*args, "--scores-only"])
    assert "saved" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_signals_are_noted_and_their_handlers_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with catch_signals() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert caught == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("place", ["find_pairs", "prepare_steps"])
def test_interrupted_before_there_is_a_checkpoint_nothing_is_left(
    args, tmp_path, monkeypatch, place
):
    import model.build as build

    def interrupt(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, place, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.main(args)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["open_data", "prepare_steps"])
def test_interrupted_while_it_starts_again_the_run_can_be_resumed(
    straight, tmp_path, monkeypatch, capsys, place
):
    import model.build as build

    def interrupt(*rest):
        raise KeyboardInterrupt

    shutil.copytree(straight, tmp_path / "run")
    monkeypatch.setattr(build, place, interrupt)
    assert train.main(["--resume", str(tmp_path / "run")]) == EXIT_STOPPED
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().out
    assert tests.runs.same_weights(tmp_path / "run", straight)


@pytest.mark.slow
def test_deterministic_kernels_run_and_repeat_bitwise(small_shards, tmp_path):
    """In processes of their own, as TensorFlow cannot be told to stop it."""
    for name in ("one", "two"):
        flags = ["--data", str(small_shards.folder), "--out", str(tmp_path / name), *SMALL]
        done = subprocess.run(
            [sys.executable, "train.py", *flags, "--gpus=none", "--deterministic"],
            cwd=Path(__file__).parents[1], check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "deterministic: a CPU repeats bitwise without it" in done.stdout
    assert same_weights(tmp_path / "one", tmp_path / "two")
