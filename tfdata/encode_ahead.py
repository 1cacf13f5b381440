"""Batches of texts encoded on all cores, ahead of who wants them.

The threads are the process's, shared by all parts and kept from epoch to epoch. The C library gives
a thread one of its arenas to take memory from, up to eight arenas a core: threads made anew in
every epoch would go round them all, and leave each as large as their work ever made one.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

_AHEAD = 4  # times as many: work for the cores while a window is cut into batches

EncodedT = TypeVar("EncodedT")


class Stopped(Exception):
    """Nobody wants the windows any more."""


def encode_ahead(
    encode: Callable[..., EncodedT], batches: Iterable[tuple], is_stopped: threading.Event
) -> Iterator[EncodedT]:
    """`encode(*batch)` of each, in their order; some are made before they are asked for.

    Raises:
      Stopped: `is_stopped` was set.
    """
    threads = _start_threads()
    running: deque[Future[EncodedT]] = deque()
    try:
        for batch in batches:
            if is_stopped.is_set():
                raise Stopped
            running.append(threads.submit(encode, *batch))
            if len(running) > _AHEAD + _num_threads():
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        wait([future for future in running if not future.cancel()])


def _num_threads() -> int:
    return (os.cpu_count() or 1) + 1  # one may wait for Python


@functools.cache
def _start_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_num_threads(), "encode")
