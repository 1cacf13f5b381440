"""What the pages ask of a review, in words of JSON: what there is, what to do, what has changed.

One desk serves all pages, from several threads; other processes may append to the same journal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labels.journal import STATUS_OF, Decision, Journal, Part, check_label
from labels.review_data import ReviewData
from labels.review_facts import Facts
from labels.review_history import describe_change, find_redo, find_undo
from labels.review_split import count_unmerged, find_holding, free_name, split_group
from labels.review_state import NOISE, Change, Group, Refused, Review
from labels.review_words import distinctive, share_words

_MOST_DOCUMENTS = 200  # of one answer
_LONGEST_TEXT = 4_000
_LONGEST_LINE = 240  # of a text in the list
_NUM_EXAMPLES = 12
_NUM_SAMPLED = 200  # texts of a part whose words are counted


class Stale(Refused):
    """The groups have changed since the page saw them."""


class Desk:
    """The review of one folder, brought up to date with its journal."""

    def __init__(self, data: ReviewData, journal: Path):
        self.data = data
        self.review = Review(data.keys, data.weights, data.merged, data.names)
        self._journal = Journal(journal)
        self.facts = Facts(data, self.review)
        before = dict(self.review.groups)
        with self._journal.turn() as turn:
            self.num_decisions = len(turn.added)
            self.skipped = self.review.replay(turn.added)
        now = self.review.groups
        self.facts.follow(
            before, {id: now.get(id) for id in {*before, *now} if now.get(id) is not before.get(id)}
        )
        self._touched: dict[int, int] = {}
        """The decision after which the facts of a group were last new; also of those gone."""
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)

    def state(self) -> dict[str, Any]:
        """All groups, and the number of the last decision."""
        with self._lock:
            return {
                "last": self._journal.num_read,
                "groups": [self._show(group) for group in self.review.groups.values()],
                "gone": [],
                "skipped": [
                    {"id": decision.id, "action": decision.action, "why": why}
                    for decision, why in self.skipped
                ],
            }

    def changes(self, since: int) -> dict[str, Any]:
        """The groups that are new, or of which facts are, after decision `since`."""
        with self._lock:
            ids = [id for id, last in self._touched.items() if last > since]
            groups = self.review.groups
            return {
                "last": self._journal.num_read,
                "groups": [self._show(groups[id]) for id in ids if id in groups],
                "gone": [id for id in ids if id not in groups],
            }

    def wait(self, since: int, seconds: float) -> dict[str, Any]:
        """`changes`, as soon as there are some, or after a time."""
        end = time.monotonic() + seconds
        with self._news:
            while self._journal.num_read <= since and time.monotonic() < end:
                if self._journal.has_more():
                    with self._journal.turn() as turn:
                        self._absorb(turn.added)
                else:
                    self._news.wait(1.0)
            return self.changes(since)

    def _absorb(self, decisions: Sequence[Decision]) -> None:
        """Takes in what other processes have decided."""
        for decision in decisions:
            try:
                self._commit(self.review.plan(decision))
            except Refused as error:
                self.skipped.append((decision, str(error)))

    def _commit(self, change: Change) -> None:
        self.review.commit(change)
        for id in self.facts.follow(change.before, change.after):
            self._touched[id] = change.decision.id
        self._news.notify_all()

    def decide(self, asked: Mapping[str, Any], by: str) -> int:
        """Does what a page asks, and appends it to the journal; returns the decision's number.

        Args:
          asked: `action`, and `seen`: [[group, version], …] as the page knows them; `label` of a
            renaming, `how` and `labels` of a split, `of` (or none: the page's last) of an undo.

        Raises:
          Stale: somebody has changed these groups since. Nothing is done.
          Refused: it does not fit. Nothing is done.
        """
        with self._lock, self._journal.turn() as turn:
            self._absorb(turn.added)
            groups = self._check_seen(asked.get("seen", []))
            made = self._make(asked, groups, by)
            decision = Decision(
                **made, id=turn.next_id, by=by, time=time.strftime("%Y-%m-%dT%H:%M:%S%z")
            )
            change = self.review.plan(decision)
            turn.append(decision)
            self._commit(change)
            return decision.id

    def take_in(self, plan: Callable[[int], Sequence[Decision]]) -> Sequence[Decision]:
        """Appends what `plan(next id)` decides and has committed to `review` itself.

        The facts are not brought up to date: for a desk that has no page.
        """
        with self._lock, self._journal.turn() as turn:
            self._absorb(turn.added)
            decisions = plan(turn.next_id)
            turn.append(*decisions)
            return decisions

    def _check_seen(self, seen: Any) -> list[Group]:
        groups, stale = [], []
        try:
            for id, version in seen:
                group = self.review.groups.get(id)
                if group is None or group.version != version:
                    stale.append(id)
                elif group not in groups:
                    groups.append(group)
        except (TypeError, ValueError):
            raise Refused("seen: must be pairs of a group and its version") from None
        if stale:
            raise Stale("; ".join(self._tell_change(id) for id in stale[:5]))
        return groups

    def _tell_change(self, id: int) -> str:
        """The last thing that happened to a group."""
        for change in reversed(self.review.changes.values()):
            if id in change.after:
                told = describe_change(change, self.review)
                return f"{told['by'] or 'somebody'}, {told['time']}: {told['text']}"
        return "that cluster is not there"

    def _make(self, asked: Mapping[str, Any], groups: list[Group], by: str) -> dict[str, Any]:
        """What of a decision follows from what was asked."""
        action = asked.get("action")
        if action in ("undo", "redo"):
            return {"action": "undo", "of": self._find_undone(asked, by)}
        if action != "split" and any(group.id == NOISE for group in groups):
            raise Refused("noise can only be split")
        clusters = tuple(group.key for group in groups)
        made: dict[str, Any] = {"action": action, "clusters": clusters}
        try:
            if action == "rename":
                made["label"] = self._check_name(asked.get("label"), groups)
            elif action == "split" and groups:
                made["parts"] = self._make_parts(asked, groups[0])
            elif action not in ("merge", *STATUS_OF):
                raise Refused(f"it is not known how to {action}")
            Decision(**made)
        except ValueError as error:
            raise Refused(str(error)) from None
        return made

    def _find_undone(self, asked: Mapping[str, Any], by: str) -> int:
        of = asked.get("of")
        if of is None:
            find = find_undo if asked["action"] == "undo" else find_redo
            of = find(self.review, by)
        if type(of) is not int:
            raise Refused(f"there is nothing to {asked['action']}")
        return of

    def _check_name(self, name: Any, groups: list[Group]) -> str:
        if not isinstance(name, str):
            raise Refused("label: must be a string")
        name = " ".join(name.split())
        check_label(name)
        for group in self.review.groups.values():
            if group.name == name and group not in groups:
                raise Refused(f"another cluster is called “{name}”: merge them, or say more")
        return name

    def _make_parts(self, asked: Mapping[str, Any], group: Group) -> tuple[Part, ...]:
        parts = split_group(self.data, group, _mapping(asked.get("how")))
        names = asked.get("labels")
        if not isinstance(names, list) or len(names) != len(parts):
            raise Refused(f"labels: must be {len(parts)} names")
        if len(set(names)) < len(names):
            raise Refused("two parts have one name")
        return tuple(
            Part(label=self._check_name(name, []), points=self.review.key_names(part))
            for name, part in zip(names, parts, strict=True)
        )

    def preview(self, id: Any, how: Any) -> dict[str, Any]:
        """What a split would make: parts with names that are free, words and examples."""
        with self._lock:
            group = self._group(id)
            parts = split_group(self.data, group, _mapping(how))
            rest = np.setdiff1d(group.points, np.concatenate(parts), assume_unique=True)
            taken = {other.name for other in self.review.groups.values()}
            inside = share_words(self._sample(group.points))
            shown = []
            for part in parts:
                words = distinctive(share_words(self._sample(part)), inside, 3)
                spoken = " ".join(word for word, _ in words) or group.name
                name = free_name(" ".join(spoken[:150].split()), taken)
                taken.add(name)
                shown.append({"name": name, **self._show_part(part)})
            return {"version": group.version, "parts": shown, "rest": self._show_part(rest)}

    def _sample(self, points: np.ndarray) -> list[str]:
        step = max(1, -(-len(points) // _NUM_SAMPLED))
        return self.data.masked.take(points[::step]).to_pylist()

    def _show_part(self, points: np.ndarray) -> dict[str, Any]:
        step = max(1, len(points) // 3)
        return {
            "size": int(self.data.weights[points].sum()),
            "texts": [self._text(int(point), _LONGEST_LINE) for point in points[::step][:3]],
        }

    def detail(self, id: Any) -> dict[str, Any]:
        """More of a group: examples from the most to the least typical, words, neighbours."""
        with self._lock:
            group = self._group(id)
            ordered = self.facts.sort_typical(group)
            places = np.unique(np.linspace(0, len(ordered) - 1, _NUM_EXAMPLES).astype(int))
            neighbours = [] if id == NOISE else self.facts.neighbours(group.id)
            return {
                "id": group.id,
                "version": group.version,
                "words": [[word, round(share, 3)] for word, share in self.facts[group.id].words],
                "examples": [self._document(int(ordered[i])) for i in places if len(ordered)],
                "neighbours": [[other, round(cosine, 3)] for other, cosine in neighbours],
                "unmerged": count_unmerged(self.data, group),
            }

    def documents(self, id: Any, holding: Any, offset: Any) -> dict[str, Any]:
        """Documents of a group, the most typical first; `holding` letters, if it is not empty."""
        if not isinstance(holding, str) or type(offset) is not int or offset < 0:
            raise Refused("holding must be a string and offset a number")
        with self._lock:
            group = self._group(id)
            ordered = self.facts.sort_typical(group)
            if holding.strip():
                ordered = find_holding(self.data, ordered, holding)
            shown = ordered[offset : offset + _MOST_DOCUMENTS]
            return {
                "size": int(self.data.weights[ordered].sum()),
                "num": len(ordered),
                "documents": [self._document(int(point)) for point in shown],
            }

    def history(self, before: Any) -> dict[str, Any]:
        """The last hundred decisions before that one, the newest first."""
        with self._lock:
            changes = [self.review.changes[id] for id in reversed(self.review.changes)]
            if type(before) is int:
                changes = [change for change in changes if change.decision.id < before]
            return {"decisions": [describe_change(c, self.review) for c in changes[:100]]}

    def _group(self, id: Any) -> Group:
        group = self.review.groups.get(id) if type(id) is int else None
        if group is None:
            raise Refused("that cluster is not there any more")
        return group

    def _show(self, group: Group) -> dict[str, Any]:
        fact, nearest = self.facts[group.id], self.facts.nearest(group.id)
        return {
            "id": group.id,
            "version": group.version,
            "name": group.name,
            "status": group.status,
            "size": fact.size,
            "texts": len(group.points),
            "cohesion": round(fact.cohesion, 3),
            "words": [word for word, _ in fact.words[:5]],
            "typical": self._text(fact.typical, _LONGEST_LINE) if len(group.points) else "",
            "near": [nearest[0], round(nearest[1], 3)] if nearest else None,
        }

    def _document(self, point: int) -> dict[str, Any]:
        return {
            "point": point,
            "text": self._text(point, _LONGEST_TEXT),
            "size": int(self.data.weights[point]),
        }

    def _text(self, point: int, longest: int) -> str:
        text = self.data.texts[point].as_py() or ""
        return text if len(text) <= longest else text[: longest - 1] + "…"


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Refused("how: must be an object")
    return value
