"""Several processes on loopback train one run, and end together when one of them does."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import train
from model.checkpoint import load_checkpoint
from model.words import TABLES
from tests.runs import SMALL, arrays_of, same_weights
from tests.workers import start

FLAGS = [*SMALL, "--learning-rate=0.005", "--steps-per-call=1", "--patience=0", "--linear=auto",
         "--refit=auto"]  # fmt: skip
"""After which a linear classifier takes part, and the logits are adjusted for the long tail."""
LONG = [*SMALL, "--batch-size=16", "--epochs=6", "--patience=0"]


def _run_alone(shards, out: Path, flags: list[str]) -> Path:
    assert train.main(["--data", str(shards.folder), "--out", str(out), *flags]) == 0
    return out


@pytest.fixture(scope="module")
def alone(tested_shards, tmp_path_factory):
    return _run_alone(tested_shards, tmp_path_factory.mktemp("alone") / "run", FLAGS)


@pytest.fixture(scope="module")
def long_pair(small_shards, tmp_path_factory):
    """A run of two workers that nothing stopped."""
    folder = tmp_path_factory.mktemp("long")
    flags = [*LONG, "--data", str(small_shards.folder), "--out", str(folder / "run")]
    with start(folder / "workers", [flags] * 2) as workers:
        assert workers.wait() == [0, 0], workers.errors()
    return folder / "run"


def _values(run: Path, event: str, name: str) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if line["event"] == event]


def _assert_close(ours: Path, theirs: Path) -> None:
    a, b = arrays_of(ours), arrays_of(theirs)
    assert a.keys() == b.keys()
    for name in a:
        # one process alone makes up the moves that rows of a table have missed when it reads them,
        # but for epsilon's share in them (model.lazy_rows)
        if not name.startswith("adam_steps_of_rows"):
            is_table = name.rsplit("/")[-1] in TABLES
            atol = 5e-4 if is_table else 1e-4
            np.testing.assert_allclose(a[name], b[name], atol=atol, err_msg=name)
    mine, other = (json.loads((run / "summary.json").read_text()) for run in (ours, theirs))
    assert mine["linear"]["weight"]
    assert mine["linear"]["weight"] == other["linear"]["weight"]
    for name in ("num_docs", "best_epoch", "accuracy", "macro_f1", "long_tail"):
        assert mine[name] == other[name]
    assert mine["linear_refit"]  # all workers have that one, and score test documents with it
    assert mine["test"]["accuracy"] == other["test"]["accuracy"]
    assert mine["test"]["loss"] == pytest.approx(other["test"]["loss"], abs=1e-3)
    for name, array in load_checkpoint(ours / "linear.npz")[0].items():
        np.testing.assert_array_equal(array, load_checkpoint(theirs / "linear.npz")[0][name], name)
    final = load_checkpoint(theirs / "checkpoints" / "final.npz")[0]
    for name, array in load_checkpoint(ours / "checkpoints" / "final.npz")[0].items():
        np.testing.assert_allclose(array, final[name], atol=5e-4, err_msg=name)
    assert mine["loss"] == pytest.approx(other["loss"], abs=1e-4)
    assert mine["temperature"] == pytest.approx(other["temperature"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("num", "residency"), [(2, "host"), (3, "device")])
def test_losses_are_those_of_one_process(tested_shards, tmp_path, alone, num, residency):
    out = tmp_path / "run"
    flags = [*FLAGS, "--data", str(tested_shards.folder), "--out", str(out)]
    flags.append(f"--residency={residency}")
    with start(tmp_path / "workers", [flags] * num) as workers:
        assert workers.wait() == [0] * num, workers.errors()
        assert all(workers.output(index) == "" for index in range(1, num))
    losses = _values(out, "train", "loss")
    assert len(losses) > 40
    np.testing.assert_allclose(losses, _values(alone, "train", "loss"), atol=1e-4)
    _assert_close(out, alone)


@pytest.mark.slow
@pytest.mark.parametrize(("num", "killed"), [(2, 0), (3, 1)])
def test_a_killed_worker_ends_the_others_and_restarting_finishes(
    small_shards, tmp_path, long_pair, num, killed
):
    """Bitwise as the run that nothing stopped."""
    out = tmp_path / "run"
    flags = [*LONG, "--data", str(small_shards.folder), "--out", str(out)]
    with start(tmp_path / "killed", [flags] * num) as workers:
        workers.wait_for_epoch(out)
        workers.processes[killed].send_signal(signal.SIGKILL)
        at = time.monotonic()
        codes = workers.wait(60)
        assert time.monotonic() - at < 60
        assert codes == [-9 if index == killed else 75 for index in range(num)]
        for index, text in enumerate(workers.errors()):
            if index != killed:
                said = [line for line in text.splitlines() if line.startswith("stopped: ")]
                assert len(said) == 1
                assert f"worker {killed} (127.0.0.1:" in said[0]
                assert f"is gone; go on with --resume {out}" in said[0]
    assert not (out / "summary.json").exists()
    if num == 2:
        with start(tmp_path / "resumed", [["--resume", str(out)]] * 2) as workers:
            assert workers.wait() == [0, 0], workers.errors()
        assert same_weights(out, long_pair)


@pytest.mark.slow
def test_all_stop_when_one_is_told_to_and_all_go_on(small_shards, tmp_path, long_pair):
    out = tmp_path / "run"
    flags = [*LONG, "--data", str(small_shards.folder), "--out", str(out)]
    with start(tmp_path / "workers", [flags] * 2) as workers:
        workers.wait_for_epoch(out)
        workers.processes[1].send_signal(signal.SIGTERM)
        assert workers.wait(30) == [75, 75], workers.errors()
        assert "stopped, and saved" in workers.output(0)
        assert workers.errors() == ["", ""]
    with start(tmp_path / "resumed", [["--resume", str(out)]] * 2) as workers:
        assert workers.wait() == [0, 0], workers.errors()
    assert same_weights(out, long_pair)


@pytest.mark.slow
def test_a_worker_with_a_damaged_shard_is_named_by_all(small_shards, tmp_path):
    copy, out = tmp_path / "shards", tmp_path / "run"
    shutil.copytree(small_shards.folder, copy)
    shard = copy / small_shards.parts["train"][0].file
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    flags = [[*FLAGS, "--out", str(out), "--data", str(d)] for d in (small_shards.folder, copy)]
    with start(tmp_path / "workers", flags) as workers:
        assert workers.wait(60) == [2, 2], workers.errors()
        for text in workers.errors():
            assert "worker 1" in text
            assert shard.name in text
