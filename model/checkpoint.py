"""Checkpoints: named arrays and the integers that say where training stood, in one .npz file.

Written in a thread while training goes on; the loop only takes the variables' values.

The file takes its name only when it is whole and synced, and holds a SHA-256 of all that is in it.
Those before it are kept under numbers: last.npz, then last-1.npz ... What is the best and the last
at once is one file of two names, which one damaged block would spoil: best-copy.npz is another.
Nothing in them is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from shortline import UserError, printable, sync_folder, write_whole

_STATE, _DIGEST = "state.json", "sha256"
_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)
"""What numpy and zipfile raise of a file that is not as they wrote it."""
_DAMAGE_ERRNOS = {None, errno.EIO, errno.EINVAL}  # EINVAL: sent to a place before the file
_MEND = "; restore it or train anew"


class DamagedCheckpoint(UserError):
    """A checkpoint is not as it was written."""


def write_checkpoint(
    path: Path, arrays: Mapping[str, Any], state: str = "{}", keep: int = 1
) -> None:
    """Named arrays, and what JSON says of them, in one file that is whole or not there."""
    arrays = {**arrays, _STATE: np.frombuffer(state.encode(), np.uint8)}
    arrays[_DIGEST] = np.frombuffer(_digest(arrays), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
        _shift(path, keep)  # not before the new one is safe


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


def _shift(path: Path, keep: int) -> None:
    """Lets each version have also the name of the next older one; those beyond `keep` go."""
    for age in range(keep - 1, 0, -1):
        newer = _version(path, age - 1)
        if newer.exists():
            _link(newer, _version(path, age))
    for version in find_versions(path):
        if version != path and _age(version) >= keep:
            version.unlink()


def _version(path: Path, age: int) -> Path:
    return path.with_name(f"{path.stem}-{age}{path.suffix}") if age else path


def _age(version: Path) -> int:
    return int(version.stem.rpartition("-")[2])


def find_versions(path: Path) -> list[Path]:
    """The checkpoint and those that were kept of before, as far as they are there, newest first."""
    older = [
        version
        for version in path.parent.glob(f"{path.stem}-*{path.suffix}")
        if version.stem.rpartition("-")[2].isdecimal()
    ]
    return [path] * path.exists() + sorted(older, key=_age)


class CheckpointWriter:
    """Writes checkpoints in a thread, one at a time, in the order that they were asked for.

    As a context manager it ends when all is on disk; so does the process, at the latest.
    """

    def __init__(self, keep: int = 1) -> None:
        """`keep`: versions to have of each checkpoint's last path, the newest included."""
        self._keep = keep
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
          OSError: the save before could not be written; its checkpoints are as they were.
        """
        self.wait()
        # A read shares the variable's memory until the next update, which then makes itself new
        # memory: what stalls the loop is one copy on the device.
        values = {name: variable.read_value() for name, variable in variables.items()}
        self._under_way = self._pool.submit(
            _save, tuple(paths), values, state["step"], json.dumps(state), self._keep
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

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self._pool.shutdown(wait=True)
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            print(f"note: the last checkpoint was not saved: {printable(str(failed))}")


def _save(
    paths: Sequence[Path], values: dict[str, tf.Tensor], step: int, state: str, keep: int
) -> None:
    """Writes the first path, and lets the others be the same file; of several there is a copy, too.

    Raises:
      UserError: a value is not finite; nothing is written.
      OSError: naming the path.
    """
    arrays = {name: value.numpy() for name, value in values.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{name} is not finite after step {step}; what was saved before is kept; "
                "try a smaller --learning-rate, a --clip-norm, or --precision float32"
            )
    first, *others = paths
    with _naming(first):
        write_checkpoint(first, arrays, state, 1 if others else keep)
    for path in others:
        with _naming(path):
            _shift(path, keep if path == paths[-1] else 1)
            _link(first, path)
    if others:
        with _naming(_copy_of(first)):
            _copy(first, _copy_of(first))
    sync_folder(first.parent)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Lets an OSError tell the path, as that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _link(source: Path, path: Path) -> None:
    """Makes `path` another name of `source`, which nobody writes into, or else a copy of it."""
    temporary = path.with_name(f".{path.name}.link.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # not every file system has hard links
        _copy(source, path)
    else:
        os.replace(temporary, path)
        temporary.unlink(missing_ok=True)  # POSIX leaves it where both were the same file


def _copy(source: Path, path: Path) -> None:
    with write_whole(path, "wb") as file, open(source, "rb") as whole:
        shutil.copyfileobj(whole, file, 1 << 20)


def write_copied(
    path: Path, variables: Mapping[str, tf.Variable], state: Mapping[str, Any]
) -> None:
    """A checkpoint for `load_best`, and its copy, on disk when this returns.

    Raises:
      UserError: a variable is not finite; nothing is written.
    """
    values = {name: variable.read_value() for name, variable in variables.items()}
    _save((path,), values, state["step"], json.dumps(state), 1)
    with _naming(_copy_of(path)):
        _copy(path, _copy_of(path))
    sync_folder(path.parent)


def _copy_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}-copy{path.suffix}")


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the state that were saved.

    Raises:
      UserError: the file is missing, or cannot be opened or read now.
      DamagedCheckpoint: it is not as it was written.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        digest = arrays.pop(_DIGEST, None)  # missing in checkpoints of before there was one
        if digest is not None and digest.tobytes() != _digest(arrays):
            raise ValueError("its checksum is another")
        state = json.loads(arrays.pop(_STATE).tobytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; is this the folder of a run?") from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE_ERRNOS:
            raise UserError(f"{path}: {error.strerror}; mend that, and try again") from error
        what = "not an .npz file" if "allow_pickle" in str(error) else error
        raise DamagedCheckpoint(f"{path}: damaged checkpoint ({what}){_MEND}") from None
    return arrays, state


def load_best(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`load_checkpoint`; of its copy where it is damaged or gone, which is said.

    Raises:
      UserError: as `load_checkpoint`.
    """
    try:
        return load_checkpoint(path)
    except UserError as error:
        copy = _copy_of(path)
        is_gone = isinstance(error, DamagedCheckpoint) or not path.exists()
        if not is_gone or not copy.exists():
            raise
        try:
            loaded = load_checkpoint(copy)
        except UserError:
            raise error from None
        what = str(error).removesuffix(_MEND) if path.exists() else f"{path}: missing"
        print(f"note: {printable(what)}; its copy {copy.name} is used", file=sys.stderr)
        return loaded


def load_newest(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """`load_checkpoint` of the newest whole version, which then is `path`; notes damaged ones.

    A damaged `path` is kept as NAME.damaged.

    Raises:
      UserError: there is none, or one cannot be opened or read now.
      DamagedCheckpoint: all are damaged.
    """
    damaged: DamagedCheckpoint | None = None
    for version in find_versions(path) or [path]:
        try:
            loaded = load_checkpoint(version)
        except DamagedCheckpoint as error:
            damaged = damaged or error
            continue
        if version != path:
            what = str(damaged or f"{path}: missing").removesuffix(_MEND)
            print(f"note: {what}; going on from the one before, {version.name}")
            if damaged is not None and path.exists():
                os.replace(path, path.with_name(f"{path.name}.damaged"))
            _link(version, path)
        return loaded
    assert damaged is not None
    raise damaged


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
                "the checkpoint is of other settings, or of another version: train anew"
            )
        variable.assign(array)
