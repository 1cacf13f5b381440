"""Start-up: where the time until the first training step goes, and warming up for that step.

Imports nothing that is slow to import, so that the clock can start before TensorFlow is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

    from model.step import ChunkMetrics, Predictions

_IMPORTED = time.perf_counter()
_MOST_BEFORE = 60.0  # seconds; more between the process's start and our import is a wrong clock


class StartupClock:
    """Divides the time until the first training step into phases.

    >>> clock = StartupClock(from_process=True)   # doctest: +SKIP
    >>> clock.lap("imports"); clock.lap("data")   # doctest: +SKIP
    >>> clock.stop("first batch")                 # doctest: +SKIP
    'start-up 4.1 s: imports 2.4, data 0.1, first batch 1.6'
    """

    def __init__(self, from_process: bool):
        """Starts now, or when the process did: then Python's own start counts too."""
        before = _process_age() if from_process else 0.0
        self._started = self._lapped = time.perf_counter() - before
        self.seconds: dict[str, float] = {}
        """Of each phase, in the order of their ends."""
        self.is_running = True

    @property
    def total(self) -> float:
        """Seconds from the start to the end of the last phase."""
        return self._lapped - self._started

    def lap(self, phase: str) -> None:
        """The time since the last lap was this phase's; a phase may come several times."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._lapped
        self._lapped = now

    def stop(self, phase: str) -> str:
        """The last lap; says in one line where the time went."""
        self.lap(phase)
        self.is_running = False
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        return f"start-up {self.total:.1f} s: {phases}"


def _process_age() -> float:
    """Seconds since this process started; since our import where the system does not tell."""
    since_import = time.perf_counter() - _IMPORTED
    try:
        # of proc(5)'s fields, from the third on: the second may hold spaces and parentheses
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):  # not Linux
        return since_import
    return age if since_import <= age <= since_import + _MOST_BEFORE else since_import


def warm_up(
    variables: Mapping[str, tf.Variable],
    train_chunk: Callable[[int, int], ChunkMetrics],
    num_batches: int,
    predict: Callable[[], Predictions] | None = None,
) -> None:
    """Runs every shape of batch once, untimed, and puts the variables back bitwise.

    At the first step the GPU's libraries are loaded and the driver compiles what is there only as
    PTX: seconds that are no part of an epoch.

    Args:
      variables: all that training changes.
      train_chunk: of model.step.build_train_chunk, on made-up batches.
      num_batches: so many of them.
      predict: of model.step.build_predict; run once, since it changes nothing.
    """
    # A read shares the variable's memory until the next update, which then makes itself new
    # memory: no copy through the host.
    before = {name: variable.read_value() for name, variable in variables.items()}
    try:
        train_chunk(0, num_batches)
    finally:
        for name, variable in variables.items():
            variable.assign(before[name])
    if predict is not None:
        predict()
