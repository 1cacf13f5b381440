"""One line of progress on stderr: redrawn on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Update = Callable[[int, float], None]
_PLAIN_SECONDS = 15.0


@contextlib.contextmanager
def show_progress(stage: str, enabled: bool = True) -> Iterator[Update]:
    """Gives `update(num_docs, share)`, to be called as often as one likes; share is from 0 to 1."""
    if not enabled:
        yield lambda num_docs, share: None
    elif sys.stderr.isatty():
        with _bar(stage) as update:
            yield update
    else:
        yield _plain(stage)


@contextlib.contextmanager
def _bar(stage: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    started = time.monotonic()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[docs]}"),
        TimeRemainingColumn(), console=Console(stderr=True), transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task(stage, total=1.0, docs="")

        def update(num_docs: int, share: float) -> None:
            rate = num_docs / max(time.monotonic() - started, 1e-3)
            bar.update(task, completed=share, docs=f"{num_docs:,} documents, {rate:,.0f}/s")

        yield update


def _plain(stage: str) -> Update:
    started = last = time.monotonic()

    def update(num_docs: int, share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PLAIN_SECONDS:
            last = now
            seconds = now - started
            left = f", {seconds * (1 - share) / share:,.0f} s left" if share > 0 else ""
            print(
                f"{stage}: {num_docs:,} documents, {num_docs / seconds:,.0f}/s, {share:.0%}{left}",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    return update
