"""A training in a process of its own, watched from outside until it is asked to stop.

Linux alone tells all of this: /proc.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shortline import UserError, printable

_STOP_SECONDS = 120.0  # for an epoch's evaluation and a checkpoint, on a loaded machine
_TAIL_BYTES = 4096  # of metrics.jsonl: some events
_TICKS = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """What a process holds at a moment, and what it has done until then."""

    seconds: float
    """Since its start."""
    anon_bytes: int
    """Resident memory of its own."""
    file_bytes: int
    """Resident memory that is mapped from files: the kernel takes it back when it wants to."""
    descriptors: int
    threads: int
    children: int
    temporary: int
    """Temporary files and folders, its own and those beside what it writes."""
    cpu_seconds: float
    """It and its children, since its start."""
    other_seconds: float
    """CPU time of all other processes, and what the host took, since the machine's start."""
    step: int
    """Training steps that are done, by metrics.jsonl."""


class Watched(NamedTuple):
    """A training from its start to its end by SIGTERM."""

    samples: list[Sample]
    exit_code: int
    """75 when it stopped after a checkpoint."""
    stop_seconds: float
    """From the signal to the end of the process."""
    epochs: list[dict[str, Any]]
    """Its events of that name in metrics.jsonl."""
    has_checkpoint: bool
    leftovers: list[str]
    """Temporary and lock files that are still there."""


def watch_training(
    words: Sequence[str], folder: Path, seconds: float, every: float,
    environment: Mapping[str, str],
) -> Watched:  # fmt: skip
    """Runs `python -m train WORDS... --out FOLDER/run`, and sends SIGTERM after so many seconds.

    Args:
      folder: for the run, for temporary files, and for what the process prints.
      every: seconds between two samples.

    Raises:
      UserError: it ended before its time, or finished no epoch in it.
    """
    run, temporary = folder / "run", folder / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "train", *words, "--out", str(run)]
    with open(folder / "train.out", "wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=os.environ | environment | {"TMPDIR": str(temporary)},
        )  # fmt: skip
        try:
            samples = []
            while process.poll() is None and (past := time.monotonic() - started) < seconds:
                with contextlib.suppress(_Ended):
                    samples.append(take_sample(process.pid, past, folder))
                time.sleep(every)
            early = process.poll()
            asked = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # its exit code is that of SIGKILL then
        finally:
            process.kill()
            process.wait()
    stop_seconds = time.monotonic() - asked
    if early is not None:
        lines = (folder / "train.out").read_text("utf-8", "replace").split("\n")
        said = printable(next((line for line in reversed(lines) if line.strip()), "nothing"), 300)
        raise UserError(f"the training ended with {early} before its time; it said: {said}")
    epochs = [event for event in read_events(run) if event["event"] == "epoch"]
    if not epochs:
        raise UserError(f"--minutes: {seconds:.0f} s are too few for an epoch; give more")
    return Watched(
        samples, process.returncode, stop_seconds, epochs,
        (run / "checkpoints" / "last.npz").exists(), find_leftovers(folder),
    )  # fmt: skip


class _Ended(Exception):
    """The process is no more."""


def take_sample(pid: int, seconds: float, folder: Path) -> Sample:
    """Raises `_Ended` where there is no such process."""
    place = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        memory = {
            name: int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem")
        }
        descriptors = len(os.listdir(place / "fd"))
        children = count_children(pid)
        # the name, in brackets, may hold spaces
        fields = (place / "stat").read_text().rpartition(")")[2].split()
    except (OSError, KeyError):  # a process that nobody has waited for yet has no memory
        raise _Ended from None
    cpu_seconds = sum(map(int, fields[11:15])) / _TICKS
    with open("/proc/stat") as file:
        user, nice, system, _idle, _wait, irq, soft, stolen = map(int, file.readline().split()[1:9])
    busy_seconds = (user + nice + system + irq + soft + stolen) / _TICKS
    return Sample(
        seconds, memory["RssAnon"], memory["RssFile"] + memory["RssShmem"], descriptors,
        int(status["Threads"]), children, len(find_leftovers(folder)), cpu_seconds,
        busy_seconds - cpu_seconds, read_step(folder / "run"),
    )  # fmt: skip


def count_children(pid: int) -> int:
    """Processes that this one has started and that are still there."""
    count = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            count += int(place.read_text().rpartition(")")[2].split()[1]) == pid
    return count


def read_step(run: Path) -> int:
    """Of the last event that is in metrics.jsonl; 0 before there is one."""
    try:
        with open(run / "metrics.jsonl", "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]  # what comes after the last is not whole
        return json.loads(lines[-1])["step"]
    except (FileNotFoundError, IndexError):
        return 0


def read_events(run: Path) -> list[dict[str, Any]]:
    """All events of a training that has ended well."""
    metrics = run / "metrics.jsonl"
    return [json.loads(line) for line in metrics.open("rb")] if metrics.exists() else []


def find_leftovers(folder: Path) -> list[str]:
    """Hidden files, *.tmp* and all in `temporary`: of a training that goes on, or was left."""
    found = []
    for place, folders, files in os.walk(folder):  # passes over what vanishes meanwhile
        inside = Path(place).relative_to(folder)
        is_temporary = inside.parts[:1] == ("temporary",)
        for name in folders + files:
            if is_temporary or name.startswith(".") or ".tmp" in name:
                found.append(str(inside / name))
    return sorted(found)
