"""Start-up: its clock, warming up without a trace, and nothing that is traced later on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import model.build as build
import model.startup as startup
import train
from model.devices import Devices, mirror
from model.made_up import make_batch, repeat_batches
from model.startup import StartupClock, warm_up
from shortline import import_tensorflow
from tfdata.pipeline import Batch

ROOT = Path(__file__).parents[1]
SMALL = [
    "--embedding-dim=8", "--hidden=8", "--batch-size=64", "--epochs=2", "--steps-per-call=5",
    "--num-buckets=3",
]  # fmt: skip


def test_phases_add_up_to_the_whole():
    clock = StartupClock(from_process=False)
    for phase in ("imports", "data", "imports"):
        clock.lap(phase)
    line = clock.stop("first batch")
    assert list(clock.seconds) == ["imports", "data", "first batch"]
    assert sum(clock.seconds.values()) == pytest.approx(clock.total)
    assert line == "start-up 0.0 s: imports 0.0, data 0.0, first batch 0.0"
    assert not clock.is_running


def test_the_start_of_python_counts():
    script = (
        "import time; time.sleep(0.3); from model.startup import StartupClock; "
        "clock = StartupClock(from_process=True); clock.lap('imports'); print(clock.total)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert 0.3 < float(done.stdout) < 30


def test_without_a_process_table_the_clock_starts_at_the_import(monkeypatch):
    monkeypatch.setattr(startup, "Path", lambda name: Path("/no/such") / name.lstrip("/"))
    monkeypatch.setattr(startup, "_IMPORTED", startup.time.perf_counter() - 2.0)
    clock = StartupClock(from_process=True)
    clock.lap("imports")
    assert 2.0 < clock.total < 3.0


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_every_shape_comes_up_once_on_every_replica(num_replicas):
    devices = tuple(device.name for device in tf.config.list_logical_devices("CPU"))
    strategy = mirror(devices[:2]) if num_replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        made = [make_batch(Batch, *b, vocab_size=9, num_classes=2) for b in ((4, 3), (2, 7))]
        batches = repeat_batches(made, copies=num_replicas)
        for shape in ((4, 3), (2, 7), (4, 3)):
            ids = strategy.experimental_local_results(next(batches).token_ids)
            assert [tuple(part.shape) for part in ids] == [shape] * num_replicas


def test_warming_up_puts_everything_back_even_when_it_fails():
    variables = {"weight": tf.Variable([1.5, np.nan]), "count": tf.Variable(3, dtype=tf.int64)}
    before = {name: variable.numpy().tobytes() for name, variable in variables.items()}
    calls = []

    def train_chunk(first_step, num_steps):
        calls.append((first_step, num_steps))
        for variable in variables.values():
            variable.assign_add(tf.ones_like(variable))
        if len(calls) == 2:
            raise ArithmeticError

    warm_up(variables, train_chunk, 5, lambda: calls.append("predict"))  # type: ignore[arg-type]
    assert calls == [(0, 5), "predict"]
    calls[:] = [0]
    with pytest.raises(ArithmeticError):
        warm_up(variables, train_chunk, 5)  # type: ignore[arg-type]
    assert before == {name: variable.numpy().tobytes() for name, variable in variables.items()}


def _run(shards, out: Path, *flags: str) -> dict[str, np.ndarray]:
    args = ["--data", str(shards.folder), "--out", str(out), *SMALL, *flags]
    assert train.main(args) == 0
    with np.load(out / "checkpoints" / "last.npz") as archive:
        return {name: archive[name] for name in {*archive.files} - {"state.json", "sha256"}}


def test_a_run_is_the_same_when_warmed_up(small_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "choose_lazy", lambda *_: frozenset())  # nor is a GPU
    cold = _run(small_shards, tmp_path / "cold", "--route=keras")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("start-up ")]
    shapes = []

    def spy(batches, copies):
        shapes.extend(batch.token_ids.shape for batch in batches)
        return repeat_batches(batches, copies)

    monkeypatch.setattr(build, "repeat_batches", spy)
    monkeypatch.setattr(Devices, "has_gpu", True)  # only what is on a GPU's way here
    warm = _run(small_shards, tmp_path / "warm", "--route=keras")
    assert cold.keys() == warm.keys()
    for name, array in cold.items():
        np.testing.assert_array_equal(array, warm[name], name)
    summaries = [
        json.loads((tmp_path / run / "summary.json").read_text()) for run in ("cold", "warm")
    ]
    assert [width for _, width in shapes] == summaries[1]["bucket_widths"]
    for summary, warming in zip(summaries, ([], ["warm-up"]), strict=True):
        phases = ["imports", "devices", "data", "network", "pairs", "graphs", *warming]
        assert list(summary["startup"]) == [*phases, "first batch"]
        total = summary["startup_seconds"]
        assert sum(summary["startup"].values()) == pytest.approx(total, abs=0.01)


@pytest.mark.parametrize(
    "flags",
    [
        ["--cpu-replicas=1"],
        ["--cpu-replicas=2"],
        ["--residency=stream", "--window-docs=700", "--no-id-cache"],
    ],
)
def test_nothing_is_traced_after_the_first_epoch(small_shards, tmp_path, monkeypatch, flags):
    """Batches of three widths, the last not full, evaluations, checkpoints and all; nor of those of
    the other network (model.refit)."""
    graphs, after_epochs = [], []
    graph_type = tf.__internal__.FuncGraph  # what TensorFlow makes to trace a function into
    init, end_epoch = graph_type.__init__, train.end_epoch

    def count_graphs(self, name, *args, **kwargs):
        graphs.append(name)
        init(self, name, *args, **kwargs)

    def end_and_note(*args):
        end_epoch(*args)
        after_epochs.append(len(graphs))

    monkeypatch.setattr(graph_type, "__init__", count_graphs)
    monkeypatch.setattr(train, "end_epoch", end_and_note)
    _run(small_shards, tmp_path / "run", "--epochs=4", "--patience=0", "--gpus=none", *flags)
    assert len(after_epochs) > 5
    assert after_epochs[0] > 2  # training and prediction at least
    assert graphs[after_epochs[0] : after_epochs[3]] == []
    assert graphs[after_epochs[4] : after_epochs[-1]] == []


@pytest.mark.parametrize(
    "command", [["train.py"], ["-m", "model.predict"], ["-m", "tfdata.ingest"]]
)
def test_an_interrupt_of_the_first_imports_is_one_line(tmp_path, command):
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == "error: interrupted\n"
    assert done.returncode == -signal.SIGINT  # which a shell calls 130


@pytest.mark.parametrize(("asked", "level"), [("2", "3"), ("3", "3"), ("0", "0")])
def test_of_several_workers_native_errors_are_kept_back(monkeypatch, asked, level):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", asked)
    import_tensorflow(is_alone=False)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
