"""Checkpoints: named arrays and the integers that say where training stood, in one .npz file.

Written in a thread while training goes on; the loop only takes the variables' values.

A zip archive checks each array's CRC when it is read; the file takes its name only when it is
whole and synced. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from shortline import UserError, write_whole

_STATE = "state.json"
_DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile)
"""What numpy and zipfile raise of a file that is not as they wrote it."""


def _write(path: Path, arrays: Mapping[str, Any], state: str) -> None:
    arrays = {**arrays, _STATE: np.frombuffer(state.encode(), np.uint8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path, "wb") as file:
        np.savez(file, **arrays)


class CheckpointWriter:
    """Writes checkpoints in a thread, one at a time, in the order that they were asked for.

    As a context manager it ends when all is on disk; so does the process, at the latest.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[None] | None = None

    def save(
        self, paths: Sequence[Path], variables: Mapping[str, tf.Variable], state: Mapping[str, Any]
    ) -> None:
        """Takes the values that variables and `state` have now; all `paths` will hold them.

        Later changes of the variables are not in it. Waits for the save before.

        Args:
          state: what JSON can hold, with `step`, the number of steps that were trained.

        Raises:
          UserError: a variable was not finite at the save before, which was not written.
          OSError: the save before could not be written.
        """
        self.wait()
        # A read shares the variable's memory until the next update, which then makes itself new
        # memory: what stalls the loop is one copy on the device.
        values = {name: variable.read_value() for name, variable in variables.items()}
        self._under_way = self._pool.submit(
            _save, tuple(paths), values, state["step"], json.dumps(state)
        )

    def check(self) -> None:
        """Raises what the last save ran into, if that is known already; never waits."""
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is on disk, or raises what it ran into (once)."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=True)
        self.wait()


def _save(paths: Sequence[Path], values: dict[str, tf.Tensor], step: int, state: str) -> None:
    """Writes the first path, and lets the others be the same file.

    Raises:
      UserError: a value is not finite; nothing is written.
    """
    arrays = {name: value.numpy() for name, value in values.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{name} is not finite after step {step}; the checkpoint before is kept; "
                "try a smaller --learning-rate, a --clip-norm, or --precision float32"
            )
    _write(paths[0], arrays, state)
    for path in paths[1:]:
        _link(paths[0], path)


def _link(source: Path, path: Path) -> None:
    """Makes `path` another name of `source`, which nobody writes into, or else a copy of it."""
    temporary = path.with_name(f".{path.name}.link.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # not every file system has hard links
        with write_whole(path, "wb") as file, open(source, "rb") as whole:
            shutil.copyfileobj(whole, file, 1 << 20)
    else:
        os.replace(temporary, path)


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the state that were saved.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        state = json.loads(arrays.pop(_STATE).tobytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; is this the folder of a run?") from None
    except _DAMAGE as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); restore it or train anew") from None
    return arrays, state


def restore(
    variables: Mapping[str, tf.Variable], arrays: Mapping[str, np.ndarray], path: Path
) -> None:
    """Assigns each variable the array of its name.

    Raises:
      UserError: one is missing or of another shape: the checkpoint is of another network.
    """
    for name, variable in variables.items():
        array = arrays.get(name)
        if array is None or array.shape != tuple(variable.shape):
            found = "missing" if array is None else f"of shape {array.shape}"
            raise UserError(
                f"{path}: {name} is {found}, the network wants {tuple(variable.shape)}; "
                "the checkpoint belongs to other settings"
            )
        variable.assign(array)
