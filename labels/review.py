"""The checks by hand: `python -m labels review DIR`.

Prints an address that opens a page in a browser of this machine: clusters, with what is in them;
rename, merge, split, drop them, or mark them as noise. Every decision is appended to
DIR/review/journal.jsonl; stop with Ctrl-C and start again as you like. Several pages may be open at
once. From another machine: `ssh -L 8765:127.0.0.1:8765 HOST`, with --port 8765 here.

`--export-csv FILE` writes the clusters as a table for a spreadsheet instead, and `--import-csv
FILE` takes the changes in it as decisions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from shortline import UserError, parse_flags, printable, run_command, write_whole

if TYPE_CHECKING:  # what it imports takes a second
    from labels.review_desk import Desk

FINISHED = Path("review") / "finished"
"""In the folder, when somebody has said that the review is finished; holds the key of the step
merge, whose clusters it was of."""
JOURNAL = Path("review") / "journal.jsonl"
_MOST_TOLD = 10  # decisions that are named on the terminal


@dataclass(frozen=True, kw_only=True)
class ReviewFlags:
    """What can be set."""

    folder: tyro.conf.Positional[Path]
    """Folder of the labelling."""
    port: int = 0
    """Port of the page, on this machine's loopback address; 0 takes a free one."""
    export_csv: Path | None = None
    """CSV file to write the clusters to; no page is opened."""
    import_csv: Path | None = None
    """CSV file to take labels and statuses from; no page is opened."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"--port {self.port}: must be 0 to 65535")
        if self.export_csv and self.import_csv:
            raise ValueError("--export-csv and --import-csv: one at a time")


def main(argv: Sequence[str] | None = None) -> int:
    flags = parse_flags(
        ReviewFlags, argv, prog="python -m labels review", description=__doc__ or ""
    )
    if flags.export_csv or flags.import_csv:
        from labels.review_csv import export_csv, import_csv

        desk = _open_desk(flags.folder)
        if flags.export_csv:
            print(export_csv(desk, flags.export_csv))
        elif flags.import_csv:
            print(import_csv(desk, flags.import_csv))
        return 0
    review(flags.folder, flags.port)
    return 0


def review(folder: Path, port: int = 0) -> bool:
    """Serves the page until somebody says that the review is finished (True) or presses Ctrl-C.

    It may be said on a page of another process, too.

    Raises:
      UserError: the steps up to merging have not been run, or the journal is damaged.
    """
    from labels.review_server import ReviewServer
    from labels.review_split import import_late

    desk = _open_desk(folder)
    key = desk.data.key
    is_awaited = _read_finished(folder) != key
    if desk.num_decisions:
        print(f"{desk.num_decisions:,} decisions made before are applied")
    for decision, why in desk.skipped[:_MOST_TOLD]:
        print(f"not applied: decision {decision.id} ({decision.action}): {printable(why)}")
    if len(desk.skipped) > _MOST_TOLD:
        print(f"not applied: {len(desk.skipped) - _MOST_TOLD:,} more")

    def tell_next(address: str) -> None:
        print(f"a page has been opened; for another one: {address}", flush=True)

    with ReviewServer(
        desk, folder.resolve().name, port, tell_next, lambda: finish(folder, key),
        lambda: is_awaited and _read_finished(folder) == key,
    ) as server:  # fmt: skip
        threading.Thread(target=import_late, daemon=True).start()
        print(f"review: {server.make_address()}\nCtrl-C stops; nothing is lost", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print()
    print(f"decisions are in {printable(str(folder / JOURNAL))}")
    return server.is_finished


def finish(folder: Path, key: str) -> None:
    """Notes that the clusters of the step merge with this key have been reviewed.

    Raises:
      UserError: there are others by now.
    """
    if _merge_key(folder) != key:
        raise UserError(
            f"{folder}: its clusters were made anew since this review was opened, so it is not "
            "finished; stop it and start it again: what was decided is in the journal"
        )
    with write_whole(folder / FINISHED) as file:
        file.write(key)


def is_finished(folder: Path) -> bool:
    """Whether somebody has said so, of the clusters as they are now."""
    finished = _read_finished(folder)
    return finished is not None and finished == _merge_key(folder)


def _read_finished(folder: Path) -> str | None:
    try:
        return (folder / FINISHED).read_text("utf-8", "replace")
    except FileNotFoundError:
        return None


def _merge_key(folder: Path) -> str:
    from labels.step import read_record

    return read_record(folder, "merge")["key"]


def _open_desk(folder: Path) -> Desk:
    from labels.review_data import read_review_data
    from labels.review_desk import Desk

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `python -m labels run INPUT --out` makes it")
    return Desk(read_review_data(folder), folder / JOURNAL)


if __name__ == "__main__":
    run_command(main)
