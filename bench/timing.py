"""Timing of what runs in chunks of steps, and the words for where it ran."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from shortline import __version__

_MOST_STEPS = 64  # of a chunk, as train.py has it by default
_CHUNKS_PER_TURN = 8  # aimed at; short enough chunks to see the spread, long enough to time
_LEAST_CHUNKS, _LEAST_LARGE_CHUNKS = 3, 2


@dataclass(frozen=True)
class Timing:
    """Milliseconds a step, one sample for each timed chunk: the mean over the chunk's steps."""

    samples_ms: tuple[float, ...]
    steps_per_chunk: int

    @property
    def median_ms(self) -> float:
        return float(np.median(self.samples_ms))

    def divided(self, num_parts: int) -> Timing:
        """The same of steps that each were `num_parts` smaller ones."""
        samples = tuple(sample / num_parts for sample in self.samples_ms)
        return Timing(samples, self.steps_per_chunk * num_parts)

    def summary(self) -> dict[str, float | int]:
        """Median and spread over the chunks, and how many there were.

        >>> Timing((1.0, 2.0, 9.0), 4).summary()["step_ms"]
        2.0
        """
        low, high = np.percentile(self.samples_ms, [10, 90])
        return {
            "step_ms": self.median_ms,
            "step_ms_p10": float(low),
            "step_ms_p90": float(high),
            "num_chunks": len(self.samples_ms),
            "steps_per_chunk": self.steps_per_chunk,
        }


def time_in_turns(
    runs: Sequence[Callable[[int], object]],
    seconds: float,
    warmup_steps: int = 1,
    *,
    turns: int = 2,
    lead_seconds: float = 0.0,
    chunk_steps: int | None = None,
) -> list[Timing]:
    """Times each `run(num_steps)`, in the order A B B A, so that a drift of the machine hits all.

    A run's `warmup_steps`, one more step that tells how long a chunk has to be, and a chunk of
    that length are not part of its timing.

    Args:
      seconds: timed of each run, about; more where a step takes long.
      turns: times that each run comes to be timed; 3 are A B B A A B.
      chunk_steps: of each chunk, where only so many hold a fair share of everything.
      lead_seconds: of steps at the start of each turn that are not timed, one step at least: they
        use up what this run made in advance, and outlast what the run before makes in advance.
    """
    least_chunks = _LEAST_CHUNKS if chunk_steps is None else _LEAST_LARGE_CHUNKS
    sizes = []
    for run in runs:
        run(warmup_steps)
        estimate = _seconds_of(run, 1)
        size = int(seconds / turns / _CHUNKS_PER_TURN / max(estimate, 1e-9))
        sizes.append(chunk_steps or min(max(size, 1), _MOST_STEPS))
        run(sizes[-1])
    samples: list[list[float]] = [[] for _ in runs]
    forth = list(range(len(runs)))
    for turn in range(turns):
        for number in reversed(forth) if turn % 2 else forth:
            lead = 0.0
            while lead < lead_seconds:
                lead += _seconds_of(runs[number], 1)
            here: list[float] = []
            while len(here) < least_chunks or sum(here) < seconds / turns:
                here.append(_seconds_of(runs[number], sizes[number]))
            samples[number] += [1000 * taken / sizes[number] for taken in here]
    return [Timing(tuple(some), size) for some, size in zip(samples, sizes, strict=True)]


def _seconds_of(run: Callable[[int], object], num_steps: int) -> float:
    started = time.perf_counter()
    run(num_steps)
    return time.perf_counter() - started


def describe_machine(device: str) -> dict[str, Any]:
    """Device, cores, load, versions, commit and day: what a figure means nothing without."""
    packages = ("tensorflow", "keras", "numpy", "pyarrow")
    return {
        "device": device,
        "architecture": platform.machine(),
        "num_cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": {"shortline": __version__, "python": platform.python_version()}
        | {package: version(package) for package in packages},
        "commit": read_commit(),
        "date": date.today().isoformat(),
    }


def read_commit(root: Path = Path(__file__).parents[1]) -> str | None:
    """The commit of the working tree, `-dirty` where files differ; None without git or outside."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
