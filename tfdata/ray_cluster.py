"""A Ray cluster, joined or started, that runs functions of this package and leaves none running."""

from __future__ import annotations

import importlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from shortline import UserError

_STOP_SECONDS = 60.0
_ANSWER_SECONDS = 10.0


class Cluster:
    """Runs functions as Ray tasks.

    Ray tasks and not Ray Data: what a task gives are files, whose names and order the caller
    knows; the blocks of a `Dataset` have no order that one process could repeat.
    """

    def __init__(self, address: str | None):
        """Joins the cluster at `address`, else the one this process is of, else the one at
        $RAY_ADDRESS, else starts one here.

        Raises:
          UserError: Ray is not installed, or no cluster answers.
        """
        self._ray = _import_ray()
        self._running: list[Any] = []
        self._is_ours = address is not None or not self._ray.is_initialized()
        if self._is_ours:
            _connect(self._ray, address or os.environ.get("RAY_ADDRESS") or "local")

    def put(self, value: object) -> Any:
        """A value for many tasks, which are given what this returns and get the value."""
        return self._ray.put(value)

    def map(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """What `function` returns for each tuple of arguments, in their order.

        Raises:
          UserError: a task did, or it was killed again and again. OSError where a task did.
        """
        task = self._ray.remote(function)
        running = [task.remote(*arguments) for arguments in calls]
        self._running += running
        for reference in running:
            yield self._result(reference)
            self._running.remove(reference)

    def close(self) -> None:
        """Waits until no task runs, and leaves; a cluster that we started ends."""
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(self._running, num_returns=len(self._running), timeout=_STOP_SECONDS)
        self._running = []
        if self._is_ours:
            self._ray.shutdown()

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, (UserError, OSError)):
                raise error.cause from None
            if isinstance(error.cause, errors.RaySystemError):  # before it could start
                raise UserError(
                    f"--engine ray: a node cannot run tasks ({_last_line(error.cause)}); install "
                    "this version of shortline there, too"
                ) from error
            raise
        except (errors.OutOfMemoryError, errors.WorkerCrashedError) as error:
            raise UserError(
                f"--engine ray: a task was killed ({_first_line(error)}); give its nodes more "
                "memory, or start them with fewer CPUs (ray start --num-cpus)"
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _import_ray() -> ModuleType:
    # read when it is imported; a task that is cancelled is no news, nor is our use theirs
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            f"--engine ray: Ray is not installed ({error}); pip install -e '.[ray]'"
        ) from error


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes."""
    place = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if place is None:
        return
    try:
        socket.create_connection((place[1], int(place[2])), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--ray-address {address}: nothing answers there ({error}); `ray start --head` tells "
            "the address of its cluster"
        ) from error


def _connect(ray: ModuleType, address: str) -> None:
    _check_answers(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address == "local":
        options["include_dashboard"] = False
    handler = signal.getsignal(signal.SIGTERM)
    python_path = os.environ.get("PYTHONPATH")
    try:
        # where workers that are started here find this package if it is not installed
        ours = str(Path(__file__).parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ours, python_path]))
        ray.init(address, **options)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"--ray-address {address}: no Ray cluster there: {error}") from error
    finally:
        del os.environ["PYTHONPATH"]
        if python_path is not None:
            os.environ["PYTHONPATH"] = python_path
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would end us with another exit code
