"""Which workers the environment tells of, and what is said where it makes no sense."""

from __future__ import annotations

import json

import pytest

from model.cluster import Cluster, find_cluster
from shortline import UserError

PAIR = ["a:2222", "b:2222"]


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


def _find(monkeypatch, cluster, job="worker", index: object = 0):
    config = {"cluster": cluster, "task": {"type": job, "index": index}, "environment": "cloud"}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    return find_cluster()


def test_workers_of_tf_config(monkeypatch):
    assert _find(monkeypatch, {"worker": PAIR}, index=1) == Cluster(("a:2222", "b:2222"), 1)


@pytest.mark.parametrize(
    ("job", "index", "number"), [("chief", 0, 0), ("worker", 0, 1), ("worker", "1", 2)]
)
def test_a_chief_is_worker_0(monkeypatch, job, index, number):
    found = _find(monkeypatch, {"worker": PAIR, "chief": ["c:1"]}, job, index)
    assert found == Cluster(("c:1", "a:2222", "b:2222"), number)


@pytest.mark.parametrize("text", ["", "{}", '{"environment": "cloud"}', '{"cluster": {}}'])
def test_a_tf_config_without_a_cluster_is_one_machine(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert find_cluster() is None


def test_one_worker_trains_alone(monkeypatch):
    assert _find(monkeypatch, {"chief": ["a:1"]}, "chief") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be understood"),
        ("[]", "cannot be understood"),
        ('{"cluster": 3}', "cannot be understood"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}', "cannot be"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "the task's type is None"),
    ],
)
def test_a_broken_tf_config_is_named(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match=f"TF_CONFIG: .*{message}"):
        find_cluster()


@pytest.mark.parametrize(
    ("cluster", "job", "index", "message"),
    [
        ({"worker": PAIR}, "worker", 2, "no worker 2 among 2"),
        ({"worker": PAIR}, "worker", -1, "no worker -1"),
        ({"worker": PAIR}, "chief", 0, "no chief 0 among 0"),
        ({"worker": PAIR, "evaluator": ["e:1"]}, "evaluator", 0, "evaluators are not used"),
        ({"worker": PAIR, "ps": ["p:1"]}, "worker", 0, "parameter servers"),
        ({"worker": ["a", "b:1"]}, "worker", 0, "'a' is no host:port"),
        ({"worker": ["a:0", "b:1"]}, "worker", 0, "'a:0' is no host:port"),
        ({"worker": ["a:1", "a:1"]}, "worker", 0, "a:1 is named twice"),
    ],
)
def test_a_wrong_cluster_is_named(monkeypatch, cluster, job, index, message):
    with pytest.raises(UserError, match=message):
        _find(monkeypatch, cluster, job, index)


def _set_slurm(monkeypatch, **more):
    variables = {
        "SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "2", "SLURM_STEP_NODELIST": "n[07-08]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_JOB_ID": "12345",
    } | more  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_workers_of_a_step_of_slurm(monkeypatch):
    _set_slurm(monkeypatch)
    assert find_cluster() == Cluster(("n07:22345", "n07:22346", "n08:22345"), 2)


def test_a_batch_script_of_slurm_is_one_process(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "3")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert find_cluster() is None


def test_variables_of_slurm_that_do_not_fit_are_named(monkeypatch):
    _set_slurm(monkeypatch, SLURM_STEP_TASKS_PER_NODE="1")
    with pytest.raises(UserError, match=r"Slurm's variables .*export TF_CONFIG=\{\}"):
        find_cluster()
