"""Which devices are taken, what is said of those that are not there, and what NVML tells."""

from __future__ import annotations

import contextlib
import json
import signal
import types

import pytest
import tensorflow as tf

from model.cluster import Cluster
from model.devices import (
    Devices,
    GpuMonitor,
    _choose_gpus,
    _name_busy_gpus,
    choose_devices,
    join_workers,
)
from shortline import UserError


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [("none", []), ("all", ["a", "b"]), ("1", ["a"]), ("2", ["a", "b"]), ("1,", ["b"]),
     ("1,0,1", ["b", "a"])],
)  # fmt: skip
def test_gpus_by_number_and_by_name(asked, chosen):
    assert _choose_gpus(asked, ["a", "b"]) == chosen


@pytest.mark.parametrize(
    ("asked", "found", "message"),
    [
        ("3", ["a", "b"], "--gpus 3: asks for 3 GPUs, and TensorFlow sees GPU 0, GPU 1;"),
        ("1", [], "--gpus 1: asks for one GPU, and TensorFlow sees no GPU;"),
        ("0,5", ["a", "b"], "--gpus 0,5: there is no GPU 5; TensorFlow sees GPU 0, GPU 1;"),
        ("3,", ["a"], "--gpus 3,: there is no GPU 3; TensorFlow sees GPU 0;"),
        ("0", ["a"], "--gpus 0: say none"),
        ("-1", ["a"], "--gpus -1: must be"),
    ],
)
def test_what_is_not_there_is_named_beside_what_is(asked, found, message):
    with pytest.raises(UserError) as error:
        _choose_gpus(asked, found)
    assert str(error.value).startswith(message)


def test_too_many_logical_cpus_for_this_process_are_refused():
    with pytest.raises(UserError, match="--cpu-replicas 5: TensorFlow already runs on 4"):
        choose_devices("none", 5)


def test_memory_is_0_without_a_gpu_and_unknown_where_nvml_is_mute(monkeypatch):
    without = choose_devices("none")
    assert without.memory_bytes == 0
    monkeypatch.setattr(GpuMonitor, "__init__", lambda self, numbers: None)  # no handles
    assert Devices(without.strategy, (0,), "1 x GPU").memory_bytes is None


BUSY = (
    "failed initializing StreamExecutor for CUDA device ordinal 2: INTERNAL: failed call to "
    "cuDevicePrimaryCtxRetain: CUDA_ERROR_DEVICE_UNAVAILABLE: CUDA-capable device(s) is/are busy"
)


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (tf.errors.InternalError(None, None, BUSY), "GPU 2"),
        (RuntimeError("cudaSetDevice() on GPU:0 failed. Status: out of memory"), "GPU 0"),
        (RuntimeError("CUDA runtime implicit initialization failed"), "GPU 0, GPU 2"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_named(monkeypatch, error, named):
    """As TensorFlow says it when it first makes the chosen GPUs its own."""

    def refuse(kind):
        raise error

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b", "c"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda chosen, kind: None)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda gpu, grow: None)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {})
    monkeypatch.setattr(tf.config, "list_logical_devices", refuse)
    with pytest.raises(UserError, match=f"--gpus 0,2: {named} cannot be used: .*nvidia-smi"):
        choose_devices("0,2")


def test_another_error_of_tensorflow_stays_what_it_is(monkeypatch):
    def refuse(kind):
        raise RuntimeError("something else")

    monkeypatch.setattr(tf.config, "list_logical_devices", refuse)
    with pytest.raises(RuntimeError, match="something else"), _name_busy_gpus("all", (0,)):
        tf.config.list_logical_devices("GPU")


def test_a_number_of_logical_cpus_and_several_machines_are_too_much():
    with pytest.raises(UserError, match="--cpu-replicas 2: only on a single machine"):
        choose_devices("none", 2, object())  # type: ignore[arg-type]


@pytest.mark.parametrize(("waits", "seconds"), [(6.0, 45), (600.5, 601), (float("inf"), 24 * 3600)])
def test_connecting_may_take_as_long_as_waiting(monkeypatch, capsys, waits, seconds):
    """Before it begins it is said how long: the kernel ends it without a word."""
    said = []

    def connect(resolver):
        said.append(capsys.readouterr().out)
        return signal.getitimer(signal.ITIMER_REAL)[0]

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", connect)
    lifeline = types.SimpleNamespace(
        cluster=Cluster(("a:1", "b:1"), 0), wait_seconds=waits, connecting=contextlib.nullcontext
    )
    left = join_workers(lifeline, 0)  # type: ignore[arg-type]
    assert left == pytest.approx(seconds, abs=5)
    assert said == [f"connecting the workers (at most {seconds} s)\n"]
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_workers_cannot_measure_a_batch_size(monkeypatch):
    import train

    task = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    with pytest.raises(UserError, match="--batch-size auto: only on a single machine"):
        train.main(["--batch-size=auto"])
