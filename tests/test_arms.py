"""Arms of bench.epoch: each a process, timed, and gone when it is over."""

from __future__ import annotations

import dataclasses
import os

import pytest

from bench import arms
from bench.arms import ArmFailed, Job, Stamp, add_stamps, run_arm
from bench.joules import JouleMeter
from tests.records import make_record


def test_the_clock_stops_at_the_last_validation():
    record = make_record([0.5, 0.9], 10.0)
    stamped = add_stamps(record, [Stamp(1, 17.0, None), Stamp(2, 29.0, None)])
    assert stamped["wall_seconds"] == 29.0
    assert [entry["wall_seconds"] for entry in stamped["epochs"]] == [17.0, 29.0]
    assert stamped["joules"] is None


def test_of_trainings_from_scratch_the_one_asked_for_is_the_whole():
    record = make_record([0.5, 0.6], 10.0) | {"trainings": True}
    # two epochs first (20 s of training), then one (10 s)
    stamped = add_stamps(record, [Stamp(2, 27.0, 500.0), Stamp(1, 40.0, 700.0)])
    assert (stamped["wall_seconds"], stamped["joules"]) == (27.0, 500.0)
    assert [entry["wall_seconds"] for entry in stamped["epochs"]] == [17.0, 27.0]
    assert [entry["joules"] for entry in stamped["epochs"]] == [None, 500.0]


def test_no_joules_without_a_gpu():
    assert JouleMeter("none").read() is None


@pytest.fixture
def job(small_shards, temporary):
    return Job(
        shards=small_shards.folder, preset="seed", epochs=2, batch_size=128, learning_rate=1e-3,
        precision="float32", target=0.1, gpus="none",
    )  # fmt: skip


def test_an_arm_that_fails_says_why_and_leaves_nothing(job, temporary, monkeypatch):
    monkeypatch.setitem(arms.PEERS, "torch", arms.Peer("bench.peers.no_such_peer", "torch"))
    with pytest.raises(ArmFailed, match=r"No module named .*no_such_peer"):
        run_arm("torch", job, 0, print)
    assert not list(temporary.iterdir())


def test_an_arm_that_validates_nothing_has_failed(job):
    with pytest.raises(ArmFailed, match="without validating"):
        arms._run(["-c", "print('epoch 1/2   45%')"], job, pytest.fail)


def test_an_arm_does_not_outlive_an_interrupt(job):
    lines = []

    def interrupt(line):
        lines.append(line)
        raise KeyboardInterrupt

    script = "import os, time; print(f'epoch 1/2 {os.getpid()} |  validation'); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        arms._run(["-c", script], job, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[0].split()[2]), 0)


def test_a_peer_gets_the_flags_that_are_set(job, monkeypatch):
    asked = []

    def run(words, job, say):
        asked.append([str(word) for word in words])
        return [Stamp(2, 9.0, None)], "{}"

    monkeypatch.setattr(arms, "_run", run)
    monkeypatch.setattr(arms, "add_stamps", lambda record, stamps: record)
    for threads in (None, 3):
        run_arm("torch", dataclasses.replace(job, torch_threads=threads), 0, print)
    assert "--torch-threads" not in asked[0]
    assert asked[1] == [*asked[0], "--torch-threads", "3"]
