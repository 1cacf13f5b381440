"""What the pages ask of a review, in words of JSON: what there is, what to do, what has changed.

One desk serves all pages, from several threads; other processes may append to the same journal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labels.journal import STATUS_OF, Decision, Journal, Part, check_label
from labels.review_data import ReviewData
from labels.review_facts import Facts
from labels.review_history import describe_change, find_redo, find_undo
from labels.review_split import split_group
from labels.review_state import NOISE, Change, Group, Refused, Review
from labels.review_view import View, read_how


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
        self.view = View(data=data, review=self.review, facts=self.facts)
        self._touched: dict[int, int] = {}
        """The decision after which the facts of a group were last new; also of those gone."""
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._is_over = False

    def state(self) -> dict[str, Any]:
        """All groups, and the number of the last decision."""
        with self._lock:
            return {
                "last": self._journal.num_read,
                "groups": [self.view.show(group) for group in self.review.groups.values()],
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
                "groups": [self.view.show(groups[id]) for id in ids if id in groups],
                "gone": [id for id in ids if id not in groups],
            }

    def look(self, what: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Raises Refused where there is no such thing."""
        with self._lock:
            if what == "detail":
                return self.view.detail(asked.get("id"))
            if what == "documents":
                return self.view.documents(
                    asked.get("id"), asked.get("holding"), asked.get("offset")
                )
            if what == "preview":
                return self.view.preview(asked.get("id"), asked.get("how"))
            if what == "history":
                return self.view.history(asked.get("before"))
        raise Refused("there is nothing here")

    def wait(self, since: int, seconds: float) -> dict[str, Any]:
        """`changes`, as soon as there are some, or after a time, or at the review's end."""
        end = time.monotonic() + seconds
        with self._news:
            while not (self._is_over or self._journal.num_read > since or time.monotonic() > end):
                if self._journal.has_more():
                    with self._journal.turn() as turn:
                        self._absorb(turn.added)
                else:
                    self._news.wait(1.0)
            return self.changes(since)

    def end(self) -> None:
        """Nobody waits any more."""
        with self._news:
            self._is_over = True
            self._news.notify_all()

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

    def tell(self, id: int) -> str:
        """A decision in words."""
        with self._lock:
            return describe_change(self.review.changes[id], self.review)["text"]

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
                when = told["time"][:16].replace("T", " ")
                return f"{told['by'] or 'somebody'}, {when}: {told['text']}"
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
        parts = split_group(self.data, group, read_how(asked.get("how")))
        names = asked.get("labels")
        if not isinstance(names, list) or len(names) != len(parts):
            raise Refused(f"labels: must be {len(parts)} names")
        labels = [self._check_name(name, []) for name in names]
        if len(set(labels)) < len(labels):
            raise Refused("two parts have one name")
        return tuple(
            Part(label=label, points=self.review.key_names(part))
            for label, part in zip(labels, parts, strict=True)
        )
