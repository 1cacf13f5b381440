"""A step of a labelling: made whole or not at all, and not made again while nothing has changed."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shortline import UserError, __version__, printable, sync_folder, umask, write_whole
from tfdata.lock import hold_lock, sweep

RECORD = "step.json"
MARK = "labels.json"
ORDER = (
    "clean", "encode", "cluster", "merge", "decide", "dedupe", "label", "report", "shards",
)  # fmt: skip
"""The steps; each one's outcome depends on those before it."""
RESULTS = {"label": "labelled.parquet", "report": "report.html"}
"""What steps write beside their folders."""
_FORMAT = 3


@contextlib.contextmanager
def hold_folder(folder: Path, is_new: bool) -> Iterator[None]:
    """A labelling's folder for this process alone; what killed ones have left is swept away.

    Raises:
      UserError: it is another process's, or holds something else.
    """

    def refuse(holder: str) -> None:
        raise UserError(f"{folder}: {holder}, works there; wait for it, or choose another --out")

    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file; name a folder")
    if not is_new and not (folder / MARK).exists():
        raise UserError(f"{folder}: no labelling; make one with python -m labels clean INPUT --out")
    inside = {p.name for p in folder.iterdir()} - {".lock"} if folder.exists() else set()
    if inside and MARK not in inside and any(not name.startswith(".") for name in inside):
        raise UserError(f"--out {folder}: holds other files; choose another folder, or empty it")
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / ".lock", refuse) as is_alone:
        if is_alone:
            sweep(folder.glob(".*.tmp"))
        if not (folder / MARK).exists():
            _write_mark(folder, {})
        yield


def read_flags(folder: Path) -> dict[str, dict[str, Any]]:
    """The settings that each step was last made with, by step; none of an older labelling."""
    try:
        return dict(json.loads((folder / MARK).read_bytes()).get("flags", {}))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{folder / MARK}: damaged ({error}); delete it and run again") from None


def _write_mark(folder: Path, flags: dict[str, dict[str, Any]]) -> None:
    with write_whole(folder / MARK) as file:
        json.dump({"format": _FORMAT, "flags": flags}, file, indent=1, default=str)


def read_record(folder: Path, step: str) -> dict[str, Any]:
    """What a finished step says of itself: key, config, inputs, seconds, counts.

    Raises:
      UserError: the step has not been made.
    """
    path = folder / step / RECORD
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder}: the step {step} is missing; python -m labels {step}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); delete {path.parent} and run again") from None
    if not isinstance(record, dict) or not {"key", "counts"} <= set(record):
        raise UserError(f"{path}: damaged; delete {path.parent} and run again")
    return record


def run_step(
    folder: Path,
    step: str,
    config: Any,
    make: Callable[[Path], dict[str, Any]],
    inputs: str = "",
    in_place: bool = False,
) -> dict[str, Any]:
    """Makes a step unless it is there, of the same settings and the same steps before; what later
    steps have made of another outcome is removed.

    Args:
      make: fills the folder that it is given, and gives the step's counts.
      inputs: stands for what else the outcome hangs on.
      in_place: the folder is `folder / step` itself, and `make` sees to it that it is whole.

    Returns:
      the step's record.

    Raises:
      UserError: a step before it is missing, or was made of other steps than there are now.
    """
    keys = read_keys(folder, step)
    settings = dataclasses.asdict(config) if config is not None else {}
    made = [__version__, _FORMAT, step, settings, inputs, keys]
    key = hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()
    with contextlib.suppress(UserError):
        record = read_record(folder, step)
        if record["key"] == key:
            print(f"{step}: there already ({record['seconds']:.1f} s when it was made)")
            return record
    started = time.monotonic()
    record = {"key": key, "config": settings, "inputs": inputs, "before": keys}
    if in_place:
        (folder / step / RECORD).unlink(missing_ok=True)
        record["counts"] = make(folder / step)
        record["seconds"] = time.monotonic() - started
        write_record(folder / step, record)
    else:
        temporary = Path(tempfile.mkdtemp(prefix=f".{step}.", suffix=".tmp", dir=folder))
        try:
            temporary.chmod(0o777 & ~umask())
            record["counts"] = make(temporary)
            record["seconds"] = time.monotonic() - started
            write_record(temporary, record)
            sync_folder(temporary)
            _remove_later(folder, step)
            _take_place(temporary, folder / step)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _write_mark(folder, read_flags(folder) | {step: settings})
    sync_folder(folder)
    print(f"{step}: {describe(record['counts'])} ({record['seconds']:.1f} s)", flush=True)
    return record


def read_keys(folder: Path, step: str) -> list[str]:
    """The keys of the steps before a step, which were made one of the other.

    Raises:
      UserError: as `run_step` says.
    """
    keys: list[str] = []
    for name in ORDER[: ORDER.index(step)]:
        record = read_record(folder, name)
        if record.get("before") != keys:
            raise UserError(
                f"{folder}: the step {name} was made of other steps than are there now; "
                f"python -m labels {name} {folder} makes it again"
            )
        keys.append(record["key"])
    return keys


def _remove_later(folder: Path, step: str) -> None:
    """The last first: a kill leaves no step without those before it."""
    for name in reversed(ORDER[ORDER.index(step) + 1 :]):
        if name in RESULTS:
            (folder / RESULTS[name]).unlink(missing_ok=True)
        (folder / name / RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder / name, ignore_errors=True)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Of a step, in its folder."""
    with write_whole(folder / RECORD) as file:
        json.dump(record, file, indent=1, default=str)


def _take_place(temporary: Path, target: Path) -> None:
    """A kill between the two renames leaves the step to be made again."""
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        target.rename(old / "old")
        temporary.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        temporary.rename(target)


def describe(counts: dict[str, Any]) -> str:
    """The numbers of a step, in words."""
    shown = []
    for name, value in counts.items():
        words = printable(name.replace("_", " "), 40)
        if isinstance(value, float):
            shown.append(f"{words} {value:.4g}")
        elif isinstance(value, int):
            shown.append(f"{value:,} {words}")
        elif isinstance(value, str) and name != "source":
            shown.append(f"{words} {printable(value, 60)}")
    return ", ".join(shown)
