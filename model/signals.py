"""Signals that ask a training to stop: noted, and answered where it is safe to."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

_ONE_REQUEST_SECONDS = 1.0
"""Signals this close together are one request: `timeout`, and a terminal with a supervisor, send
two."""


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM are added to, instead of ending the process.

    Raises:
      KeyboardInterrupt: a second request came, from somebody who will not wait for the first.
    """
    caught: list[int] = []
    first = 0.0

    def note(number: int, frame: object) -> None:
        nonlocal first
        if caught and time.monotonic() - first > _ONE_REQUEST_SECONDS:
            raise KeyboardInterrupt
        first = first or time.monotonic()
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
