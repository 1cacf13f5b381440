"""Processes at once: failures, limits, and that none is left behind."""

from __future__ import annotations

import os
import time

import pytest

from bench.quality_tasks import Task, last_line, run_tasks


def _task(name, *codes):
    return Task(
        name=name, commands=tuple(("-c", code) for code in codes), environment={"WORD": "x"}
    )


def _run(tasks, tmp_path, *, jobs=2, task_limit=30.0, limit=30.0):
    outcomes = run_tasks(
        tasks, num_jobs=jobs, logs=tmp_path / "logs", task_limit=task_limit, limit=limit
    )
    return {outcome.task.name: outcome for outcome in outcomes}


def test_commands_run_one_after_the_other_and_a_failure_stops_its_own(tmp_path):
    tasks = [
        _task("fails", "print('so it is'); raise SystemExit(3)", "print('never')"),
        _task("works", "print('first')", "import os; print(os.environ['WORD'])"),
    ]
    found = _run(tasks, tmp_path)
    assert (found["fails"].what, found["works"].what) == ("exit 3", "done")
    assert len(found["works"].seconds) == 2
    assert last_line(found["fails"].log) == "so it is"
    assert found["works"].log.read_text() == "first\nx\n"


def test_several_run_at_once(tmp_path):
    meet = (
        "import pathlib, time\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / NAME).touch()\n"
        "while len(list(folder.glob('here*'))) < 3: time.sleep(.02)\n"
    )
    tasks = [_task(f"t{n}", meet.replace("NAME", repr(f"here{n}"))) for n in range(3)]
    found = _run(tasks, tmp_path, jobs=3)
    assert [outcome.what for outcome in found.values()] == ["done"] * 3


def _wait_forever(tmp_path, name):
    path = str(tmp_path / name)
    return (
        "import os, pathlib, time\n"
        f"pathlib.Path({path!r}).write_text(str(os.getpid()))\n"
        "time.sleep(600)"
    )


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_limits_of_one_and_of_all(tmp_path):
    slow = _wait_forever(tmp_path, "pid")
    assert _run([_task("slow", slow)], tmp_path, task_limit=1)["slow"].what == "too long"
    tasks = [_task("quick", ""), _task("slow", slow), _task("waits", "")]
    found = _run(tasks, tmp_path, jobs=1, limit=2)
    assert {name: outcome.what for name, outcome in found.items()} == {
        "quick": "done", "slow": "cut short", "waits": "cut short",
    }  # fmt: skip
    assert found["waits"].seconds == ()
    assert not _is_alive(int((tmp_path / "pid").read_text()))


def test_no_process_outlives_an_interruption(tmp_path):
    tasks = [_task("quick", ""), _task("slow", _wait_forever(tmp_path, "pid"))]
    outcomes = run_tasks(tasks, num_jobs=2, logs=tmp_path / "logs", task_limit=60, limit=60)
    deadline = time.monotonic() + 20
    assert next(outcomes).what == "done"
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(KeyboardInterrupt):
        outcomes.throw(KeyboardInterrupt())
    assert not _is_alive(int((tmp_path / "pid").read_text()))
