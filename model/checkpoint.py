"""Checkpoints: named arrays and the integers that say where training stood, in one .npz file.

A zip archive checks each array's CRC when it is read; the file takes its name only when it is
whole and synced. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from shortline import UserError, write_whole

_STATE = "state.json"
_DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile)
"""What numpy and zipfile raise of a file that is not as they wrote it."""


def save_checkpoint(
    path: Path, variables: Mapping[str, tf.Variable], state: Mapping[str, Any]
) -> None:
    """Writes the variables by name, and `state` (what JSON can hold), whole or not at all."""
    arrays = {name: variable.numpy() for name, variable in variables.items()}
    arrays[_STATE] = np.frombuffer(json.dumps(state).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path, "wb") as file:
        np.savez(file, **arrays)


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the state of `save_checkpoint`.

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
