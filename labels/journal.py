"""Decisions about clusters, and the journal that they are appended to: review/journal.jsonl.

A line of JSON each, synced before its maker is told that it is done, never changed afterwards. A
cluster is called by the key of one of its points, so that decisions outlast another clustering:
the cluster is meant that holds this point now. Noise is called "noise".

    {"id": 1, "by": "…", "time": "…", "action": "rename", "clusters": [KEY], "label": "refund"}
    {"id": 2, …, "action": "merge", "clusters": [KEY, KEY, …]}            all into the first
    {"id": 3, …, "action": "split", "clusters": [KEY], "parts": [{"label": "…",
     "points": [KEY, …]}, …]}
    {"id": 4, …, "action": "keep" | "drop" | "noise" | "open", "clusters": [KEY, …]}
    {"id": 5, …, "action": "undo", "of": 3}

`split` moves each part's points to a cluster of its own; the rest stays. `keep` says that somebody
has looked at a cluster and found it good; `drop` takes its documents out of the result, `noise`
makes noise of them, `open` takes these three back. `undo` undoes a decision, an undo among them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shortline import UserError, printable, sync_folder

STATUS_OF = {"keep": "kept", "drop": "dropped", "noise": "noise", "open": "open"}
"""What an action makes of a cluster."""
ACTIONS = ("rename", "merge", "split", *STATUS_OF, "undo")
NOISE_KEY = "noise"
LONGEST_LABEL = 200

_DIGITS = frozenset("0123456789abcdef")
_JOINERS = str.maketrans("", "", "\u200c\u200d")  # invisible, but spelling needs them


@dataclass(frozen=True, kw_only=True)
class Part:
    """Points, by their keys, that are to be a cluster, and its label."""

    label: str
    points: tuple[str, ...]

    def __post_init__(self) -> None:
        check_label(self.label)
        if not self.points:
            raise ValueError("points: must not be empty")
        for key in self.points:
            _check_key(key)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One line of the journal. Raises a ValueError where it does not hold together."""

    action: str
    clusters: tuple[str, ...] = ()
    """Keys, each of a point of the cluster that is meant."""
    label: str | None = None
    parts: tuple[Part, ...] = ()
    of: int | None = None
    """The decision that is undone."""
    by: str = ""
    time: str = ""
    id: int = 0
    """From 1, by one; 0: not in a journal yet."""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action {self.action!r}: must be one of {', '.join(ACTIONS)}")
        least = {"merge": 2, "undo": 0}.get(self.action, 1)
        most = {"rename": 1, "split": 1, "undo": 0}.get(self.action, len(self.clusters))
        if not least <= len(self.clusters) <= most:
            raise ValueError(f"clusters: {len(self.clusters)} of them do not fit {self.action}")
        for key in self.clusters:
            if key != NOISE_KEY or self.action != "split":
                _check_key(key)
        for member, action in (("label", "rename"), ("parts", "split"), ("of", "undo")):
            if bool(getattr(self, member)) != (self.action == action):
                raise ValueError(f"{member}: goes with {action}, and {action} with it")
        if self.label is not None:
            check_label(self.label)

    @classmethod
    def from_json(cls, values: Any) -> Decision:
        """Raises a ValueError where a member is missing, unknown or of another type."""
        members = dict(_read_members(values, _DECISION))
        members["parts"] = tuple(
            Part(**dict(_read_members(part, _PART))) for part in members.get("parts", ())
        )
        return cls(**members)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; without the members that are empty."""
        values = {name: getattr(self, name) for name in _DECISION}
        values["parts"] = [{"label": p.label, "points": list(p.points)} for p in self.parts]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v}


_DECISION: dict[str, type] = {
    "id": int, "by": str, "time": str, "action": str, "clusters": list, "label": str,
    "parts": list, "of": int,
}  # fmt: skip
_PART: dict[str, type] = {"label": str, "points": list}


def _read_members(values: Any, kinds: dict[str, type]) -> Iterator[tuple[str, Any]]:
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    if "action" in kinds and "action" not in values:
        raise ValueError("action: is missing")
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            raise ValueError(f"{name!r}: is not known")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name}: must be of type {kind.__name__}")
        if kind is list and name != "parts":
            if not all(isinstance(key, str) for key in value):
                raise ValueError(f"{name}: must hold strings")
            value = tuple(value)
        yield name, value


def check_label(label: str) -> None:
    """Raises a ValueError where a label is blank, too long or holds what cannot be seen."""
    if not label.strip() or label != label.strip():
        raise ValueError("label: must not be empty, nor begin or end with a space")
    if len(label) > LONGEST_LABEL:
        raise ValueError(f"label: {len(label)} characters; at most {LONGEST_LABEL}")
    seen = label.translate(_JOINERS)
    if printable(seen) != seen:
        raise ValueError(f"label: holds what cannot be seen: {printable(seen)}")


def _check_key(key: str) -> None:
    if len(key) != 16 or not _DIGITS.issuperset(key):
        raise ValueError(f"key {printable(key, 40)!r}: must be 16 hexadecimal digits")


def read_journal(path: Path) -> list[Decision]:
    """All decisions; none where there is no file. A last line without its end was never made.

    Raises:
      UserError: a line is not a decision, or its id is not the next.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return _parse(content.split(b"\n")[:-1], path, 0)


def _parse(lines: Iterable[bytes], path: Path, num_before: int) -> list[Decision]:
    decisions = []
    for number, line in enumerate(lines, num_before + 1):
        try:
            decision = Decision.from_json(json.loads(line))
            if decision.id != number:
                raise ValueError(f"id {decision.id} where {number} is due")
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}: line {number}: {printable(str(error), 200)}; mend the line, or take it "
                "and all after it out"
            ) from error
        decisions.append(decision)
    return decisions


class Journal:
    """A journal that several processes may append to at once.

    Each takes turns: within a turn it sees what the others have appended since its last one, and
    nobody else appends. A file system without locks cannot keep them apart: that is told once.
    """

    def __init__(self, path: Path):
        """Makes the file's folder; the first turn reads the whole file."""
        self.path = path
        self.num_read = 0
        self._end = 0
        self._is_warned = False
        path.parent.mkdir(parents=True, exist_ok=True)

    def has_more(self) -> bool:
        """Whether somebody has appended since the last turn; costs one look at the file's size."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size != self._end
        return self._end > 0

    @contextlib.contextmanager
    def turn(self) -> Iterator[Turn]:
        """Raises a UserError where a line is no decision, or the file was changed meanwhile."""
        with open(self.path, "ab+", buffering=0) as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            except OSError as error:
                self._warn(error)
            if file.seek(0, os.SEEK_END) < self._end:
                raise UserError(f"{self.path}: was made shorter; start again, to read it anew")
            file.seek(self._end)
            added = file.read()
            whole = added.rfind(b"\n") + 1
            decisions = _parse(added[:whole].split(b"\n")[:-1], self.path, self.num_read)
            self.num_read += len(decisions)
            self._end += whole
            if whole < len(added):  # half a line, of a process that was killed
                file.truncate(self._end)
            yield Turn(self, file, decisions)

    def _warn(self, error: OSError) -> None:
        if not self._is_warned:
            print(
                f"{printable(str(self.path))}: its file system locks no files ({error.strerror}): "
                "let one process at a time review this folder, several pages of it if you like",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        self._is_warned = True

    def _append(self, file: IO[bytes], decisions: Sequence[Decision]) -> None:
        lines = [json.dumps(decision.to_json(), ensure_ascii=False) for decision in decisions]
        content = "".join(line + "\n" for line in lines).encode()
        try:
            written = 0
            while written < len(content):  # an unbuffered file may write less than asked
                written += file.write(content[written:])
            os.fsync(file.fileno())
            if self._end == 0:
                sync_folder(self.path.parent)  # the file may be new,
                sync_folder(self.path.parent.parent)  # and its folder
        except BaseException:
            file.truncate(self._end)
            raise
        self.num_read += len(decisions)
        self._end += len(content)


class Turn:
    """The time between looking and appending, in which nobody else appends."""

    def __init__(self, journal: Journal, file: IO[bytes], added: list[Decision]):
        self._journal, self._file = journal, file
        self.added = added
        """What others have appended since this process's last turn."""

    @property
    def next_id(self) -> int:
        return self._journal.num_read + 1

    def append(self, *decisions: Decision) -> None:
        """Appends decisions with the ids from `next_id` on; on the disk when this returns.

        Raises:
          OSError: they could not be written; then nothing of them stays.
        """
        for place, decision in enumerate(decisions):
            assert decision.id == self.next_id + place
        self._journal._append(self._file, decisions)
