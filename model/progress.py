"""What a person sees of a training run: rich on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_SECONDS = 10.0  # between two lines of a log


class TrainProgress(contextlib.AbstractContextManager):
    """One bar over all epochs, with rate, loss and accuracy; or a line now and then."""

    def __init__(self, num_epochs: int, docs_per_epoch: int, done_docs: int = 0):
        self._num_epochs, self._total = num_epochs, num_epochs * docs_per_epoch
        self._is_terminal = sys.stdout.isatty()
        self._console = Console(highlight=False)
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f}% of all"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(
            "", total=self._total, completed=done_docs, epoch="", figures=""
        )
        self._docs = self._first_docs = done_docs
        self._started = self._spoken = time.monotonic()

    def __enter__(self) -> TrainProgress:
        self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._is_terminal:
            self._console.print(line, markup=False)
        else:
            print(line, flush=True)

    def advance(
        self, epoch: int, num_docs: int, docs_per_s: float, loss: float, accuracy: float,
        gpu: Mapping[str, float],
    ) -> None:  # fmt: skip
        """After a chunk of steps; the figures are the epoch's so far."""
        self._docs += num_docs
        figures = f"{docs_per_s:,.0f} docs/s  loss {loss:.4f}  accuracy {accuracy:.4f}"
        if "gpu_percent" in gpu:
            figures += f"  GPU {gpu['gpu_percent']:.0f}%"
        if "gpu_memory_gib" in gpu:
            figures += f" {gpu['gpu_memory_gib']:.1f} GiB"
        if "gpu_watts" in gpu:
            figures += f" {gpu['gpu_watts']:.0f} W"
        number = f"{epoch + 1}/{self._num_epochs}"
        self._bar.update(self._task, completed=self._docs, epoch=number, figures=figures)
        now = time.monotonic()
        if not self._is_terminal and now - self._spoken >= _PLAIN_SECONDS:
            self._spoken = now
            rate = (self._docs - self._first_docs) / (now - self._started)
            left = (self._total - self._docs) / rate
            share = self._docs / self._total
            self.say(f"epoch {number}  {share:4.0%} of all  {figures}  {_duration(left)} left")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
