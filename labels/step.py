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
"""What a step makes beside its folder: `run_step` takes it from there."""
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
        raise UserError(f"{folder}: no labelling; make one: python -m labels run INPUT --out DIR")
    inside = {p.name for p in folder.iterdir()} - {".lock"} if folder.exists() else set()
    if inside and MARK not in inside and any(not name.startswith(".") for name in inside):
        raise UserError(f"--out {folder}: holds other files; choose another folder, or empty it")
    is_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder / ".lock", refuse) as is_alone:  # False: this file system has no locks
        if is_alone:
            sweep(folder.glob(".*.tmp"))
        if not (folder / MARK).exists():
            with write_whole(folder / MARK) as file:
                json.dump({"format": _FORMAT}, file)
        try:
            yield
        except BaseException:
            if not is_there and is_alone and not (folder / ORDER[0]).exists():  # nothing came of it
                sweep([folder / MARK, folder / ".lock"])
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise


def read_record(folder: Path, step: str) -> dict[str, Any]:
    """What a finished step says of itself: key, config, inputs, seconds, counts.

    Raises:
      UserError: the step has not been made.
    """
    path = folder / step / RECORD
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{folder}: the step {step} is missing; make it: {_command(folder, step)}"
        ) from None
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
) -> dict[str, Any]:
    """Makes a step unless it is there, of the same settings and the same steps before.

    Once it is made anew, what the steps after it had made of the old one is deleted.

    Args:
      make: fills the folder that it is given, and gives the step's counts.
      inputs: stands for what else the outcome hangs on.

    Returns:
      the step's record.

    Raises:
      UserError: a step before it is missing, or was made from others than are there.
    """
    keys = check_before(folder, step)
    settings = dataclasses.asdict(config) if config is not None else {}
    key = _make_key(step, settings, inputs, keys)
    with contextlib.suppress(UserError):
        record = read_record(folder, step)
        if record["key"] == key and all((folder / name).exists() for name in _list_places(step)):
            print(f"{step}: there already ({record['seconds']:.1f} s when it was made)")
            return record
    started = time.monotonic()
    temporary = Path(tempfile.mkdtemp(prefix=f".{step}.", suffix=".tmp", dir=folder))
    try:
        temporary.chmod(0o777 & ~umask())
        counts = make(temporary)
        seconds = time.monotonic() - started
        record = {"key": key, "config": settings, "inputs": inputs, "counts": counts}
        record["seconds"] = seconds
        write_record(temporary, record)
        sync_folder(temporary)
        _keep_settings(folder, step, settings)
        gone = _take_place(temporary, folder, step)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder)
    print(f"{step}: {describe(counts)} ({seconds:.1f} s)", flush=True)
    if gone:
        print(f"{step}: deleted what was made of the old one: {', '.join(gone)}", flush=True)
    return record


def check_before(folder: Path, step: str) -> list[str]:
    """The keys of the steps before one.

    Raises:
      UserError: one of them is missing, or was made from others than are there.
    """
    keys: list[str] = []
    for name in ORDER[: ORDER.index(step)]:
        record = read_record(folder, name)
        if record["key"] != _make_key(name, record.get("config"), record.get("inputs"), keys):
            raise UserError(
                f"{folder}: the step {name} was made from other steps before it than are there "
                f"now, or by another version; make it again: {_command(folder, name)}"
            )
        keys.append(record["key"])
    return keys


def _make_key(step: str, settings: Any, inputs: Any, keys: list[str]) -> str:
    """Of all that a step's outcome hangs on; `keys` are those of the steps before it."""
    made = [__version__, _FORMAT, step, settings, inputs, keys]
    return hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()


def _command(folder: Path, step: str) -> str:
    if step == ORDER[0]:
        return f"python -m labels {step} INPUT --out {folder}"
    return f"python -m labels {step} {folder}"


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Into a step's folder."""
    with write_whole(folder / RECORD) as file:
        json.dump(record, file, indent=1, default=str)


def read_settings(folder: Path, step: str) -> dict[str, Any]:
    """The settings that a step was last made with, deleted since or not; none: it never was.

    Raises:
      UserError: the file that has them is damaged.
    """
    with contextlib.suppress(UserError):
        return dict(read_record(folder, step).get("config", {}))
    try:
        return dict(json.loads((folder / MARK).read_bytes()).get("settings", {}).get(step, {}))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder / MARK}: damaged ({printable(str(error), 200)}); write {{}} into it, and "
            "give the settings of the steps again"
        ) from None


def _keep_settings(folder: Path, step: str, settings: dict[str, Any]) -> None:
    kept = {name: read_settings(folder, name) for name in ORDER} | {step: settings}
    with write_whole(folder / MARK) as file:
        json.dump({"format": _FORMAT, "settings": kept}, file, default=str)


def _list_places(step: str) -> tuple[str, ...]:
    """What a step makes: its folder, and the file beside it."""
    return (step, RESULTS[step]) if step in RESULTS else (step,)


def _take_place(temporary: Path, folder: Path, step: str) -> list[str]:
    """Puts a step in its place, and gives the names of what had been made of the one before it.

    That goes first, the last step before the others, so that nothing outlives what it was made of;
    a kill leaves steps to be made again.
    """
    gone, first = [], ORDER.index(step)
    old = Path(tempfile.mkdtemp(prefix=f".{step}.", suffix=".tmp", dir=folder))
    for later in reversed(ORDER[first:]):
        for name in _list_places(later):
            if (folder / name).exists():
                (folder / name).rename(old / name)
                gone += [name] if later != step else []
    if step in RESULTS:
        (temporary / RESULTS[step]).rename(folder / RESULTS[step])
    temporary.rename(folder / step)
    shutil.rmtree(old, ignore_errors=True)
    return gone[::-1]


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
