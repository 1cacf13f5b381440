"""One command in a process of its own: its seconds, its peak memory, and what it printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shortline import EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USER_ERROR, UserError, printable

_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024


class Stage(NamedTuple):
    """What a command took."""

    seconds: float
    """From the start of the process to its end."""
    peak_bytes: int
    """Most resident memory of the process; memory-mapped files count as far as they were read."""
    lines: list[str]
    """Its standard output."""
    cpu_seconds: float = 0.0
    """Of all its threads: what it took of the cores, whatever else ran."""

    @property
    def result(self) -> dict[str, Any]:
        """The JSON of the last line."""
        return json.loads(self.lines[-1])


def run_stage(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Stage:
    """Runs `python WORDS...` and waits for it.

    The peak is that of the process, as `wait4` has it. It counts what the parent held when it
    started the process, so the parent must stay small: no TensorFlow in it.

    Args:
      folder: for what it prints, as long as it runs.
      environment: added to ours.

    Raises:
      UserError: it failed; the message is its own.
    """
    out, err = folder / "stage.out", folder / "stage.err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words], stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL,
            env=os.environ | environment,
        )  # fmt: skip
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode in (EXIT_STOPPED, EXIT_INTERRUPTED):
        raise KeyboardInterrupt
    if process.returncode:
        _fail(words, process.returncode, err.read_text("utf-8", "replace").splitlines())
    lines = out.read_text("utf-8", "replace").splitlines()
    return Stage(seconds, usage.ru_maxrss * _MAXRSS_BYTES, lines, usage.ru_utime + usage.ru_stime)


def _fail(words: Sequence[str], code: int, lines: Sequence[str]) -> None:
    said = [line for line in lines if line.strip()] or ["it said nothing"]
    command = printable(" ".join(words))
    if code == EXIT_USER_ERROR:
        raise UserError(f"`{command}`: {said[-1].removeprefix('error: ')}")
    killed = f" by signal {-code}, which may be for want of memory" if code < 0 else ""
    raise UserError(f"`{command}`: ended with {code}{killed}: {printable(said[-1], 300)}")
