"""The record of a benchmark: its figures, its lines as they were printed, and its picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from shortline import UserError, write_whole


def check_out(folder: Path | None, name: str) -> None:
    """That no record would be written over.

    Raises:
      UserError: the folder holds one.
    """
    if folder is not None and (folder / f"{name}.json").exists():
        raise UserError(f"--out {folder}: holds a record; choose another folder")


def write_record(
    folder: Path,
    result: Mapping[str, Any],
    lines: Sequence[str],
    draw: Callable[[IO[bytes]], None] | None = None,
) -> None:
    """NAME.txt, NAME.png and, when these are there, NAME.json, by the benchmark's NAME.

    Args:
      draw: writes the PNG; None: there is none.
    """
    name = result["benchmark"]
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(folder / f"{name}.txt") as file:
        file.write("\n".join(lines) + "\n")
    if draw is not None:
        with write_whole(folder / f"{name}.png", "wb") as file:
            draw(file)
    with write_whole(folder / f"{name}.json") as file:
        json.dump(result, file, indent=2)


def end_benchmark(
    folder: Path | None,
    result: Mapping[str, Any],
    lines: Sequence[str],
    draw: Callable[[IO[bytes]], None],
) -> None:
    """Writes the record where a folder is given, and prints the result as the last line."""
    if folder is not None:
        write_record(folder, result, lines, draw)
    print(json.dumps(result))
