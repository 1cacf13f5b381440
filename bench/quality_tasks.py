"""Commands in processes, several at once, within a time limit."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.arms import ROOT

_POLL_SECONDS = 0.05
_END_SECONDS = 15  # for a process to clear away after itself


@dataclass(frozen=True, kw_only=True)
class Task:
    """Commands that run one after the other, each as `python WORDS...`."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    environment: Mapping[str, str]
    """Added to ours."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    task: Task
    what: str
    """done; exit N; too long: over its own limit; cut short: over that of all."""
    seconds: tuple[float, ...]
    """Of each command that was started."""
    log: Path
    """What the commands printed."""


@dataclass
class _Running:
    task: Task
    log: Path
    file: IO[str]
    started: float
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)


def run_tasks(
    tasks: Sequence[Task], *, num_jobs: int, logs: Path, task_limit: float, limit: float
) -> Iterator[Outcome]:
    """Runs the tasks in their order, `num_jobs` at once; yields each when it has ended.

    No process outlives the iteration, however it ends.

    Args:
      logs: folder for what each prints, NAME.log.
      task_limit: seconds that a task may take.
      limit: seconds that all may take; what does not start in time is yielded, too.
    """
    logs.mkdir(parents=True, exist_ok=True)
    begun, waiting, running = time.monotonic(), list(tasks), list[_Running]()
    try:
        while waiting or running:
            is_over = time.monotonic() - begun > limit
            while waiting and not is_over and len(running) < num_jobs:
                running.append(_begin(waiting.pop(0), logs))
            if is_over and not running:
                yield from (Outcome(task, "cut short", (), logs) for task in waiting)
                return
            for one in list(running):
                what = _poll(one, is_over, task_limit)
                if what is not None:
                    running.remove(one)
                    one.file.close()
                    yield Outcome(one.task, what, tuple(one.seconds), one.log)
            time.sleep(_POLL_SECONDS)
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            _end(one)


def _begin(task: Task, logs: Path) -> _Running:
    log = logs / f"{task.name}.log"
    file = log.open("w", encoding="utf-8")
    return _Running(task, log, file, time.monotonic(), _start(task, 0, file))


def _start(task: Task, number: int, file: IO[str]) -> subprocess.Popen[str]:
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, *task.commands[number]], cwd=ROOT, env={**environment, **task.environment},
        stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def _poll(one: _Running, is_over: bool, task_limit: float) -> str | None:
    """How it ended, if it did; starts its next command if there is one."""
    code = one.process.poll()
    taken = time.monotonic() - one.started
    if code is None:
        what = "cut short" if is_over else "too long" if taken > task_limit else None
        if what is not None:
            one.process.terminate()
            one.seconds.append(taken - sum(one.seconds))
            _end(one)
        return what
    one.seconds.append(taken - sum(one.seconds))
    if code:
        return f"exit {code}"
    if len(one.seconds) == len(one.task.commands):
        return "done"
    one.process = _start(one.task, len(one.seconds), one.file)
    return None


def _end(one: _Running) -> None:
    """Waits for a process that was told to end."""
    try:
        one.process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        one.process.kill()
        one.process.wait()
    with contextlib.suppress(OSError):
        one.file.close()


def last_line(log: Path) -> str:
    """Of what a task printed; nothing where it has printed nothing."""
    with contextlib.suppress(OSError):
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def as_words(*words: Any) -> tuple[str, ...]:
    return tuple(map(str, words))
