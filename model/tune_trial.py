"""A trial of --tune: train.py in a process of its own, watched by its metrics.jsonl.

A process of its own, because networks built one after the other in one process left 27 MB each
behind (twelve of them, on a CPU); its start costs about 4 s more than building alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

import shortline
from model.events import read_events
from model.run import RunPaths
from shortline import UserError, printable
from tfdata.lock import find_holder, sweep

_TRAIN = Path(shortline.__file__).with_name("train.py")
_POLL_SECONDS = 0.2
_END_SECONDS = 20

Outcome = Literal["done", "pruned", "cut short", "failed"]


@dataclass
class TrialResult:
    """What a trial came to."""

    outcome: Outcome = "failed"
    macro_f1: float | None = None
    """Of the epoch that the training keeps so far, on the validation part; None before one."""
    accuracy: float | None = None
    """Of that epoch."""
    epochs: int = 0
    seconds: float = 0.0
    settled: dict[str, Any] = field(default_factory=dict)
    """All settings, as the training filled them in."""
    error: str = ""
    """The last line of what it printed, if it failed."""


def run_trial(
    settings: Mapping[str, Any], folder: Path,
    is_poor: Callable[[float, float], bool], is_over: Callable[[float], bool],
) -> TrialResult:  # fmt: skip
    """Trains with these settings, and leaves nothing in `folder`.

    Args:
      settings: all flags of train.py, by name.
      is_poor: is told, after each epoch, the share of the training that is done, and the
        macro-F1 so far; True ends the trial.
      is_over: is told the trial's seconds so far; True ends it.
    """
    result, started = TrialResult(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trial-", dir=folder) as name:
        paths, log = RunPaths(Path(name) / "run"), Path(name) / "log.txt"
        flags = Path(name) / "flags.yaml"
        asked = {**settings, "out": str(paths.folder), "scores_only": True, "doctor": False}
        flags.write_text(yaml.safe_dump(asked, allow_unicode=True), "utf-8")
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(_TRAIN), "--config", str(flags)], stdout=file,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, and we end it
            )  # fmt: skip
            try:
                _watch(process, paths, result, started, is_poor, is_over)
            finally:
                _end(process)
        result.seconds = time.monotonic() - started
        if result.outcome == "failed":
            lines = log.read_text("utf-8", "replace").strip().splitlines() or ["no word of it"]
            result.error = printable(lines[-1].removeprefix("error: "), 300)
    return result


def clear_trials(folder: Path) -> None:
    """Deletes the trials that a killed process has left in `folder`.

    Raises:
      UserError: one outlived it, and would take time from those that are measured.
    """
    for trial in folder.glob("trial-*"):
        holder = find_holder(RunPaths(trial / "run").lock)
        if holder is not None:
            raise UserError(
                f"{trial.parent}: {holder}, still trains {trial.name} of a search that was killed; "
                "end it, or wait for it"
            )
        sweep([trial])


def _watch(
    process: subprocess.Popen[bytes], paths: RunPaths, result: TrialResult, started: float,
    is_poor: Callable[[float, float], bool], is_over: Callable[[float], bool],
) -> None:  # fmt: skip
    """Until it ends by itself, or is to be ended; fills in the result."""
    while True:
        code = process.poll()  # first: what it wrote before it ended is then read
        for event in read_events(paths.metrics):
            if event["event"] == "epoch" and event["epoch"] > result.epochs:
                share = _add_epoch(result, event, paths)
                if result.macro_f1 is not None and share < 1 and is_poor(share, result.macro_f1):
                    result.outcome = "pruned"
                    return
        if code is not None:
            result.outcome = "failed" if code else "done"
            return
        if is_over(time.monotonic() - started):
            result.outcome = "cut short"
            return
        time.sleep(_POLL_SECONDS)


def _add_epoch(result: TrialResult, event: Mapping[str, Any], paths: RunPaths) -> float:
    """Takes in an epoch; returns the share of the training that it ends."""
    if not result.settled:
        result.settled = yaml.safe_load(paths.config.read_text("utf-8"))
    result.epochs = event["epoch"]
    value = event.get("valid_macro_f1")
    if value is not None and event["best"]:  # of accuracy and macro-F1, by which train.py keeps it
        result.macro_f1, result.accuracy = value, event["valid_accuracy"]
    return result.epochs / result.settled["epochs"]


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
