"""Which devices are taken, what is said of those that are not there, and what NVML tells."""

from __future__ import annotations

import pytest

from model.devices import Devices, GpuMonitor, _choose_gpus, choose_devices
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
