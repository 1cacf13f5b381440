"""Trainings of several processes on loopback, for the tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def free_addresses(num: int) -> list[str]:
    """As many ports of this machine that nobody listens to."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(num)]
        return [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]


def tf_config(addresses: Sequence[str], index: int) -> str:
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})


class Started:
    """Workers that are running; each has a cache of its own in `folder`."""

    def __init__(self, folder: Path, flags: Sequence[Sequence[str]]):
        """`flags` of each worker."""
        self._folder = folder
        folder.mkdir(parents=True)
        addresses = free_addresses(len(flags))
        self.processes = [
            self._start(index, tf_config(addresses, index), own) for index, own in enumerate(flags)
        ]

    def _start(self, index: int, config: str, flags: Sequence[str]) -> subprocess.Popen:
        cache = str(self._folder / f"cache{index}")
        environment = {**os.environ, "TF_CONFIG": config, "SHORTLINE_CACHE": cache}
        names = self._folder / f"{index}.out", self._folder / f"{index}.err"
        with open(names[0], "w") as out, open(names[1], "w") as err:
            return subprocess.Popen(
                [sys.executable, "train.py", *flags],
                cwd=ROOT, env=environment, stdout=out, stderr=err,
            )  # fmt: skip

    def wait(self, seconds: float = 150) -> list[int]:
        """Their exit codes."""
        deadline = time.monotonic() + seconds
        return [p.wait(max(0.1, deadline - time.monotonic())) for p in self.processes]

    def wait_for_epoch(self, run: Path, seconds: float = 100) -> None:
        """Until a checkpoint of the first epoch is there."""
        deadline = time.monotonic() + seconds
        while not (run / "checkpoints" / "last.npz").exists():
            assert time.monotonic() < deadline, self.errors()
            assert all(p.poll() is None for p in self.processes), self.errors()
            time.sleep(0.05)

    def output(self, index: int) -> str:
        return (self._folder / f"{index}.out").read_text()

    def errors(self) -> list[str]:
        """What each wrote to stderr."""
        return [path.read_text() for path in sorted(self._folder.glob("*.err"))]


@contextlib.contextmanager
def start(folder: Path, flags: Sequence[Sequence[str]]) -> Iterator[Started]:
    """Ends, with the block, those that have not ended."""
    started = Started(folder, flags)
    try:
        yield started
    finally:
        for process in started.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
