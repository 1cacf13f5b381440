"""A run's folder: what is in it, who may write there, and where a training goes on."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import yaml

from model.checkpoint import find_versions, load_newest, restore
from model.events import read_events
from model.origin import compare
from shortline import UserError, printable, write_whole
from tfdata.lock import find_holder, find_temporary, hold_lock, sweep
from tfdata.vocab import Vocabulary, read_lines, write_lines

_STEPS_OF_ROWS = "adam_steps_of_rows"
"""Variables of model.lazy_rows, one a table. Older checkpoints have one, the embedding's; those of
before there were lazy rows have none: all rows had been moved at every step."""


@dataclass(frozen=True)
class RunPaths:
    """Where the parts of a run are."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.folder / "summary.json"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.json"

    @property
    def linear(self) -> Path:
        """Of model.linear, where a linear classifier answers, too."""
        return self.folder / "linear.npz"

    @property
    def labels(self) -> Path:
        return self.folder / "labels.txt"

    @property
    def vocabulary(self) -> Path:
        return self.folder / "vocab.txt"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.npz"

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.npz"

    @property
    def refit(self) -> Path:
        """As `last`, of the network that is trained with the validation documents, too."""
        return self.folder / "checkpoints" / "refit.npz"

    @property
    def final(self) -> Path:
        """Its weights in the end."""
        return self.folder / "checkpoints" / "final.npz"

    @property
    def export(self) -> Path:
        return self.folder / "export"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def tune(self) -> Path:
        """Folder of --tune: what it tried before this training."""
        return self.folder / "tune"

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"

    def find_leftovers(self) -> list[Path]:
        """Temporary files and folders of this run's processes, of which one at most is alive."""
        written = (
            self.config, self.metrics, self.summary, self.report, self.labels, self.vocabulary,
            self.export, self.calibration, self.linear,
        )  # fmt: skip
        found = [leftover for path in written for leftover in find_temporary(path)]
        return [*found, *self.last.parent.glob(".*.tmp")]


class InTheWay(UserError):
    """A new run's folder is not free: what is there is not this run's."""


@contextlib.contextmanager
def hold_run(folder: Path) -> Iterator[RunPaths]:
    """The run's folder, made if it is not there, for this process alone within the block.

    What a killed process has left unfinished in it is swept away.

    Raises:
      UserError: another process has it.
    """

    def refuse(holder: str) -> None:
        raise UserError(
            f"{folder}: {holder}, trains this run; stop that, wait for it, or choose another --out"
        )

    paths = RunPaths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(paths.lock, refuse) as is_alone:
            if is_alone:
                sweep(paths.find_leftovers())
            yield paths
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing came of it


def create_run(
    folder: Path, settings: Mapping[str, Any], labels: tuple[str, ...], vocabulary: Vocabulary
) -> RunPaths:
    """Makes the folder and writes config.yaml, labels.txt and vocab.txt.

    Raises:
      InTheWay: the folder holds something already.
    """
    check_free(folder)
    paths = RunPaths(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(paths.config) as file:  # first: from now on the run can be resumed
        yaml.safe_dump(dict(settings), file, sort_keys=False, allow_unicode=True)
    complete_run(paths, labels, vocabulary)
    return paths


def complete_run(paths: RunPaths, labels: tuple[str, ...], vocabulary: Vocabulary) -> None:
    """Writes labels.txt and vocab.txt where they are missing.

    Raises:
      UserError: one is there and says otherwise.
    """
    for path, lines in ((paths.labels, labels), (paths.vocabulary, vocabulary.entries)):
        if not path.exists():
            write_lines(path, lines)
            continue
        found = read_lines(path)
        if found != list(lines):
            pairs = enumerate(itertools.zip_longest(found, lines), 1)
            number, (ours, theirs) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
            raise UserError(
                f"{path}: line {number} is {_quote(ours)}, the data gives {_quote(theirs)}; "
                "restore the file or the data, or start a new run"
            )


def _quote(line: str | None) -> str:
    return "missing" if line is None else f"`{printable(line, 40)}`"


def check_free(folder: Path) -> None:
    """Raises InTheWay if a run, at work or not, or anything else, is where a new run is to be."""
    if folder.exists() and not folder.is_dir():
        raise InTheWay(f"--out {folder}: is a file; name a folder")
    parent = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if not os.access(parent, os.W_OK):
        raise InTheWay(f"--out {folder}: {parent} is not to be written to; choose another folder")
    paths = RunPaths(folder)
    holder = find_holder(paths.lock)
    if holder is not None:
        raise InTheWay(f"--out {folder}: {holder}, trains a run there; choose another folder")
    free = {paths.lock, paths.tune, *paths.find_leftovers()}
    if folder.is_dir() and {*folder.iterdir()} - free:
        what = "another run" if paths.config.exists() else "other files"
        raise InTheWay(
            f"--out {folder}: holds {what}; choose another folder, delete it, "
            f"or go on with --resume {folder}"
        )


def discard_run(paths: RunPaths) -> None:
    """Deletes what a run makes, and nothing else, of one that has come to nothing."""
    made = (
        paths.config, paths.labels, paths.vocabulary, paths.metrics, paths.summary, paths.report,
        paths.last.parent, paths.tensorboard, paths.export, paths.calibration, paths.linear,
    )  # fmt: skip
    sweep([*made, *paths.find_leftovers()])


def drop_refit(paths: RunPaths) -> None:
    """Deletes the checkpoints that `paths.final` was made from, or is not to be made from."""
    damaged = paths.refit.with_name(f"{paths.refit.name}.damaged")
    sweep([*find_versions(paths.refit), damaged])


def restore_last(
    paths: RunPaths, variables: Mapping[str, tf.Variable], origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Sets the variables to the run's newest whole checkpoint; returns the state saved with it.

    Args:
      origin: of model.origin, what the run is to go on with.

    Raises:
      UserError: all checkpoints are damaged, or of other data, settings or another network.
    """
    arrays, state = load_newest(paths.last)
    data = {"fingerprint": state.pop("fingerprint", None)}  # all that older checkpoints tell
    then = state.pop("origin", {"data": data, "settings": {}, "machine": {}})
    compare(paths.folder, then, origin)
    older = arrays.get(_STEPS_OF_ROWS)
    if older is not None:
        arrays[f"{_STEPS_OF_ROWS}/embedding"] = older
    for name, variable in variables.items():
        if name.startswith(_STEPS_OF_ROWS):  # as new, it says that no row has steps to make up for
            arrays.setdefault(name, variable.numpy())
    restore(variables, arrays, paths.last)
    if "best_macro_f1" in state:  # of when macro-F1 alone chose the best epoch
        state["best_score"] = _find_score(paths, state["best_epoch"], state.pop("best_macro_f1"))
    return state


def _find_score(paths: RunPaths, epoch: int, otherwise: float) -> float:
    """The mean of validation accuracy and macro-F1 of an epoch, as the run has logged it."""
    for event in read_events(paths.metrics):
        if event["event"] == "epoch" and event["epoch"] == epoch and "valid_accuracy" in event:
            return (event["valid_accuracy"] + event["valid_macro_f1"]) / 2
    return otherwise
