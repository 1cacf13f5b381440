"""Locks between processes, and the temporary files that killed ones have left behind.

A lock is held on an open file (`flock`): the kernel frees it when its process ends, however that
ends, so a lock file that nobody holds is stale and simply taken. What is written in it is for the
message alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from shortline import UserError, printable

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""Of file systems without locks: there, nothing is locked, and nothing is swept away."""
_TEMPORARY_LOCK = "lock"
_STALE_SECONDS = 60.0  # a folder whose process has not locked its file by then is left over


@contextlib.contextmanager
def hold_lock(path: Path, on_busy: Callable[[str], None]) -> Iterator[bool]:
    """Holds the lock file `path` within the block; it is gone afterwards.

    It gives False on a file system without locks.

    Args:
      on_busy: gets the words for the process that holds it; raises, or lets us wait for it.

    Raises:
      UserError: `path` is a link.
    """
    descriptor, is_held = _take(path, on_busy)
    try:
        yield is_held
    finally:
        with contextlib.suppress(OSError):  # the whole folder may have been deleted
            if _is_named(descriptor, path):  # and another process may have made it anew
                path.unlink()
        os.close(descriptor)


def _take(path: Path, on_busy: Callable[[str], None]) -> tuple[int, bool]:
    while True:
        descriptor, is_ours = _open(path)
        try:
            if not try_lock(descriptor):
                on_busy(_read_holder(descriptor))
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_named(descriptor, path):
                if is_ours:
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, _describe_self().encode())
                return descriptor, True
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return descriptor, False
            os.close(descriptor)
            raise
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has deleted it: take the one that is there now


def find_holder(path: Path) -> str | None:
    """The words for another process that holds the lock file `path`; None where none does."""
    with contextlib.suppress(OSError):  # it is not there, or there are no locks
        descriptor = os.open(path, os.O_CLOEXEC | os.O_NOFOLLOW | os.O_RDONLY)
        try:
            if not try_lock(descriptor):
                holder = _read_holder(descriptor)
                ours = _describe_self().partition(",")[0]
                return None if holder.partition(",")[0] == ours else holder
        finally:
            os.close(descriptor)
    return None


def _open(path: Path) -> tuple[int, bool]:
    """The lock file, made if it is not there; False if it is another user's, to be read alone."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW  # what is written must not go where a link leads
    try:
        return os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o666), True
    except PermissionError as error:
        try:
            return os.open(path, flags | os.O_RDONLY), False
        except OSError:
            raise error from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path}: is a link; delete it") from None
        raise


def try_lock(descriptor: int) -> bool:
    """Locks an open file until it is closed; False where somebody else has it locked.

    Raises:
      OSError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _describe_self() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()}, since {now}"


def _read_holder(descriptor: int) -> str:
    text = os.pread(descriptor, 200, 0).decode("utf-8", "replace")
    return printable(text) or "another process"


@contextlib.contextmanager
def alone_beside(path: Path) -> Iterator[None]:
    """Within the block this process alone makes `path`; others wait, and then find it made.

    What killed processes have left of their attempts is swept away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def tell(holder: str) -> None:
        print(f"waiting for {holder}, which makes {printable(str(path))}", flush=True)

    with hold_lock(path.with_name(f".{path.name}.lock"), tell) as is_alone:
        if is_alone:
            sweep(find_temporary(path))
        yield


def find_temporary(path: Path) -> list[Path]:
    """What is written beside `path` to take its place: `.NAME.X.tmp`, where X has no dot.

    With a dot, as `.out.csv.X.tmp` beside `out`, it is to be another file.
    """
    head, tail = f".{path.name}.", ".tmp"
    found = path.parent.glob(f"{glob.escape(head)}*{tail}")
    return [path for path in found if "." not in path.name[len(head) : -len(tail)]]


@contextlib.contextmanager
def own_temporary() -> Iterator[None]:
    """Gives this process a folder for its temporary files; those of killed ones are swept away.

    TensorFlow writes there what it makes of Python functions, and deletes it when it ends well.
    """
    parent = Path(tempfile.gettempdir())
    sweep_left(parent.glob("shortline-*.tmp"), _TEMPORARY_LOCK)
    folder, before = tempfile.mkdtemp(prefix="shortline-", suffix=".tmp"), tempfile.tempdir
    try:
        with open(Path(folder, _TEMPORARY_LOCK), "w") as file:
            with contextlib.suppress(OSError):
                try_lock(file.fileno())
            tempfile.tempdir = folder
            yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def sweep_left(folders: Iterable[Path], locked: str) -> None:
    """Deletes those folders whose process, which had the file `locked` in it locked, is dead."""
    for folder in folders:
        with contextlib.suppress(OSError):  # another process sweeps, too; or there are no locks
            if _is_left(folder, locked):
                sweep([folder])


def _is_left(folder: Path, locked: str) -> bool:
    try:
        with open(folder / locked, "rb+") as file:
            return try_lock(file.fileno())
    except FileNotFoundError:  # it has just been made, or its process died then
        return folder.stat().st_mtime < time.time() - _STALE_SECONDS


def sweep(leftovers: Iterable[Path]) -> None:
    """Deletes files and folders that nobody uses any more."""
    for path in leftovers:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
