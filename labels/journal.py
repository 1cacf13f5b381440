"""Decisions about clusters: the lines of review/journal.jsonl, and what they do.

A cluster is called by the key of one of its points (`key_name`, by custom its representative's), so
that decisions outlast another clustering: the cluster is meant that holds this point now. Lines are
only ever appended:

    {"id": 1, "by": "…", "time": "…", "action": "rename", "clusters": [KEY], "label": "refund"}
    {"id": 2, …, "action": "merge", "clusters": [KEY, KEY, …]}          all into the first
    {"id": 3, …, "action": "split", "clusters": [KEY], "points": [KEY, …], "label": "…"}
    {"id": 4, …, "action": "split", "clusters": [KEY], "holding": "card", "label": "…"}
    {"id": 5, …, "action": "drop" | "noise" | "confirm", "clusters": [KEY, …]}
    {"id": 6, …, "action": "undo", "of": 4}

`split` moves the points listed, or those whose masked text holds these letters, to a new cluster.
`drop` keeps a cluster and takes its documents out of the result; `noise` makes noise of it;
`confirm` says that somebody has looked at it; what was undone is as if it had never been said.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortline import UserError, printable

ACTIONS = ("rename", "merge", "split", "drop", "noise", "confirm", "undo")
_LEAST_CLUSTERS = {"merge": 2, "undo": 0}
_ONE_CLUSTER = ("rename", "split")
LONGEST_LABEL = 200


class Conflict(Exception):
    """Somebody else has decided about the same clusters since; `decisions` says what."""

    def __init__(self, decisions: Sequence[Decision]):
        super().__init__(f"decision {decisions[-1].id} of {decisions[-1].by} came before")
        self.decisions = decisions


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One line of the journal; checks itself when it is made."""

    action: str
    clusters: tuple[str, ...] = ()
    """Keys, each of a point of the cluster that is meant."""
    label: str | None = None
    points: tuple[str, ...] = ()
    holding: str | None = None
    of: int | None = None
    """The decision that is undone."""
    by: str = ""
    time: str = ""
    id: int = 0
    """From 1, by one; 0: not in a journal yet."""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"action {self.action!r}: must be one of {', '.join(ACTIONS)}")
        least = _LEAST_CLUSTERS.get(self.action, 1)
        most = 1 if self.action in _ONE_CLUSTER else len(self.clusters)
        if not least <= len(self.clusters) <= most:
            raise ValueError(f"{self.action}: {len(self.clusters)} clusters are too few or many")
        for key in (*self.clusters, *self.points):
            if len(key) != 16 or set(key) - set("0123456789abcdef"):
                raise ValueError(f"key {key!r}: must be 16 hexadecimal digits")
        if self.action == "rename" and not (self.label or "").strip():
            raise ValueError("rename: give a label that is not empty")
        if self.label is not None and len(self.label) > LONGEST_LABEL:
            raise ValueError(f"a label of {len(self.label)} characters: at most {LONGEST_LABEL}")
        if self.action == "split" and bool(self.points) == bool(self.holding):
            raise ValueError("split: give either points or what their texts hold")
        if (self.action == "undo") != (self.of is not None):
            raise ValueError("of: goes with undo, and undo with it")

    @classmethod
    def from_json(cls, values: Any) -> Decision:
        """Raises a ValueError where a member is missing, unknown or of another type."""
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        for name, kind in _KINDS.items():
            value = values.get(name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise ValueError(f"{name}: must be {kind.__name__}")
            if kind is list and any(not isinstance(v, str) for v in value or ()):
                raise ValueError(f"{name}: must hold strings")
        if unknown := set(values) - set(_KINDS):
            raise ValueError(f"unknown members: {', '.join(sorted(map(str, unknown)))}")
        fields: dict[str, Any] = {
            k: tuple(v) if _KINDS[k] is list else v for k, v in values.items() if v is not None
        }
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; without the members that are empty."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v}


_KINDS: dict[str, type] = {
    "id": int, "by": str, "time": str, "action": str, "clusters": list, "label": str,
    "points": list, "holding": str, "of": int,
}  # fmt: skip


def read_journal(path: Path) -> list[Decision]:
    """All decisions; none where there is no file. A last line without its end was never made.

    Raises:
      UserError: a line is not a decision, or its id is not the next.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return _parse(lines, path)


def _parse(lines: Iterable[bytes], path: Path) -> list[Decision]:
    decisions = []
    for number, line in enumerate(lines, 1):
        try:
            decision = Decision.from_json(json.loads(line))
            if decision.id != number:
                raise ValueError(f"id {decision.id} where {number} is due")
            if decision.of is not None and not 1 <= decision.of < number:
                raise ValueError(f"of {decision.of}: must be the id of an earlier line")
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}: line {number}: {printable(str(error), 200)}; mend the line, or take it "
                "and all after it out"
            ) from error
        decisions.append(decision)
    return decisions


def effective(decisions: Sequence[Decision]) -> list[Decision]:
    """Those that count: without the undone and the undoings. An undo can be undone."""
    undone: set[int] = set()
    for decision in reversed(decisions):
        if decision.action == "undo" and decision.id not in undone and decision.of is not None:
            undone.add(decision.of)
    return [d for d in decisions if d.action != "undo" and d.id not in undone]


def touched(decision: Decision, decisions: Sequence[Decision]) -> set[str]:
    """The keys of the clusters that it is about; an undo's are those of what it undoes."""
    while decision.action == "undo":
        assert decision.of is not None
        decision = decisions[decision.of - 1]
    return {*decision.clusters}


def append_decision(path: Path, decision: Decision, base: int) -> Decision:
    """Appends a decision, synced, and returns it with its id; processes may do so at once.

    Args:
      base: the id of the last decision that its maker knew.

    Raises:
      Conflict: of those after `base`, some are about the same clusters. Nothing is appended.
      ValueError: it undoes what the journal does not hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        decisions = _parse(content[:whole].split(b"\n")[:-1], path)
        if decision.of is not None and not 1 <= decision.of <= len(decisions):
            raise ValueError(f"of {decision.of}: the journal has {len(decisions)} decisions")
        mine = touched(decision, decisions)
        later = [d for d in decisions[base:] if touched(d, decisions) & mine]
        if later:
            raise Conflict(later)
        if whole < len(content):  # half a line, of a process that was killed
            file.truncate(whole)
        decision = dataclasses.replace(decision, id=len(decisions) + 1)
        file.write(json.dumps(decision.to_json(), ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return decision
