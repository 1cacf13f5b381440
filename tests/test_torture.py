"""A few runs of `python -m tests.torture`, and that it would see what is wrong."""

from __future__ import annotations

import dataclasses
import signal

import pytest

from tests.torture import Job, Kill, Outcome, describe, torture_all


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_been(tmp_path, capsys):
    outcomes = torture_all(tmp_path, num_runs=2, seed=5, most_kills=2, tell=print)
    with capsys.disabled():
        print(f"\n{describe(outcomes)}")
    assert all(outcome.is_right for outcome in outcomes)
    assert sum(len(outcome.kills) for outcome in outcomes) >= 3
    assert {outcome.replicas for outcome in outcomes} == {1, 2}


def test_what_is_left_is_found(tmp_path):
    job = Job(tmp_path, 1)
    assert job.find_leftovers() == []
    for name in ("cache/.key.x.tmp", "run/.lock", "run/checkpoints/.last.npz.y.tmp", "run/last"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (job.temporary / "x").write_text("")
    found = ["cache/.key.x.tmp", "run/.lock", "run/checkpoints/.last.npz.y.tmp", "temporary/x"]
    assert sorted(job.find_leftovers()) == found


@pytest.mark.parametrize(
    "wrong", [{"same_weights": False}, {"same_predictions": False}, {"same_scores": False},
              {"leftovers": ["x"]}, {"problem": "exit code 1"}],
)  # fmt: skip
def test_the_table_tells_what_is_wrong(wrong):
    kill = Kill("training", signal.SIGKILL.name, -9)
    right = Outcome(1, [kill], same_weights=True, same_predictions=True, same_scores=True)
    assert right.is_right
    table = describe([right, dataclasses.replace(right, replicas=2, **wrong)])
    assert "| 1 | 1 | training (SIGKILL, -9) | same | same | same | nothing |" in table
    assert "1 of 2 runs right" in table
