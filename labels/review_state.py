"""Clusters as they stand after the decisions of a review.

What becomes of the clusters is a pure function of them and of the journal. Each decision changes a
few groups; what they were before is kept, so that undoing puts the very same back. Legend: P
points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from labels.folder import key_name
from labels.journal import NOISE_KEY, STATUS_OF, Decision

NOISE = -1
"""The group of the points that no cluster has."""


class Refused(ValueError):
    """A decision does not fit the groups as they stand; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """A cluster, with what the review has made of it."""

    id: int
    key: str
    """The key of its heaviest point, by which the journal calls it."""
    name: str
    status: str
    """open, kept, dropped or noise."""
    points: np.ndarray
    """int32[n], ascending"""
    version: int
    """The decision that made it what it is; 0: it is as the clustering left it."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a decision does: groups before and after, None where there was or is none."""

    decision: Decision
    before: Mapping[int, Group | None]
    after: Mapping[int, Group | None]


class Review:
    """The groups after some decisions.

    `groups` has them by id, `changes` what each decision did, by its id, `of_point` int32[P] the
    group of each point. Every point is in one group, always: NOISE is one of them.
    """

    def __init__(
        self,
        keys: np.ndarray,
        weights: np.ndarray,
        of_point: np.ndarray,
        names: Mapping[int, str],
    ):
        """The clusters as they were made; nothing is decided yet.

        Args:
          keys: uint64[P], all different.
          weights: int[P], documents of each point.
          of_point: int[P], the cluster of each, or NOISE.
          names: of the clusters.
        """
        self._keys, self._weights = keys, weights
        self._key_order = np.argsort(keys)
        self.of_point = of_point.astype(np.int32)
        self.changes: dict[int, Change] = {}
        order = np.argsort(self.of_point, kind="stable").astype(np.int32)
        ids, starts = np.unique(self.of_point[order], return_index=True)
        parts = (order[a:b] for a, b in pairwise([*starts.tolist(), len(order)]))
        members = dict(zip(ids.tolist(), parts, strict=True))
        noise = members.pop(NOISE, np.empty(0, np.int32))
        self.groups = {n: self._make(n, names[n], "open", p, 0) for n, p in members.items()}
        self.groups[NOISE] = Group(
            id=NOISE, key=NOISE_KEY, name="noise", status="noise", points=noise, version=0
        )
        self._next_id = max(members, default=-1) + 1

    def _make(self, id: int, name: str, status: str, points: np.ndarray, version: int) -> Group:
        heaviest = points[np.argmax(self._weights[points])]
        return Group(
            id=id, key=key_name(int(self._keys[heaviest])), name=name, status=status, points=points,
            version=version,
        )  # fmt: skip

    def plan(self, decision: Decision) -> Change:
        """What a decision would do. Changes nothing.

        Raises:
          Refused: it does not fit.
        """
        if decision.action == "undo":
            return self._plan_undo(decision)
        groups = self._name_groups(decision)
        if decision.action == "split":
            after = self._split(groups[0], decision)
        elif decision.action == "merge":
            after = self._merge(groups, decision.id)
        elif decision.action == "rename":
            assert decision.label is not None
            after = [replace(groups[0], name=decision.label, version=decision.id)]
        else:
            status = STATUS_OF[decision.action]
            if all(group.status == status for group in groups):
                raise Refused(f"it is {status} already")
            after = [replace(group, status=status, version=decision.id) for group in groups]
        made = {group.id: group for group in after}
        touched = dict.fromkeys([*(group.id for group in groups), *made])
        return Change(
            decision=decision,
            before={id: self.groups.get(id) for id in touched},
            after={id: made.get(id) for id in touched},
        )

    def _name_groups(self, decision: Decision) -> list[Group]:
        found = [NOISE if key == NOISE_KEY else self.find(key) for key in decision.clusters]
        if None in found or (NOISE in found and decision.clusters != (NOISE_KEY,)):
            raise Refused("a cluster that it names is not there")
        return [self.groups[id] for id in dict.fromkeys(found) if id is not None]

    def _plan_undo(self, decision: Decision) -> Change:
        undone = self.changes.get(decision.of or 0)
        if undone is None:
            raise Refused(f"there is no decision {decision.of} to undo")
        if not self.can_undo(undone):
            raise Refused("its clusters have changed since; undo that first")
        return Change(decision=decision, before=undone.after, after=undone.before)

    def can_undo(self, change: Change) -> bool:
        """Whether the groups are as this change left them."""
        return all(self.groups.get(id) is group for id, group in change.after.items())

    def _merge(self, groups: list[Group], version: int) -> list[Group]:
        if len(groups) < 2:
            raise Refused("its clusters are one already")
        first = groups[0]
        if first.status in ("dropped", "noise"):
            raise Refused(f"“{first.name}” is {first.status}; open it first")
        points = np.sort(np.concatenate([group.points for group in groups]))
        return [self._make(first.id, first.name, first.status, points, version)]

    def _split(self, group: Group, decision: Decision) -> list[Group]:
        made, rest = [], group.points
        for part in decision.parts:
            points = np.intersect1d(self._find_points(part.points), rest).astype(np.int32)
            if not len(points):
                raise Refused("a part would be empty")
            rest = np.setdiff1d(rest, points, assume_unique=True)
            id = self._next_id + len(made)
            made.append(self._make(id, part.label, "open", points, decision.id))
        if group.id == NOISE:
            return [*made, replace(group, points=rest, version=decision.id)]
        if not len(rest):
            raise Refused("nothing would be left of it")
        return [*made, self._make(group.id, group.name, group.status, rest, decision.id)]

    def commit(self, change: Change) -> None:
        """Makes a planned change; nothing may have been committed since it was planned."""
        assert change.decision.id not in self.changes
        for id, group in change.after.items():
            if group is None:
                del self.groups[id]
            else:
                self.groups[id] = group
                self.of_point[group.points] = id
                self._next_id = max(self._next_id, id + 1)
        self.changes[change.decision.id] = change

    def replay(self, decisions: Iterable[Decision]) -> list[tuple[Decision, str]]:
        """Takes in decisions in their order; those that do not fit these clusters, and why."""
        skipped = []
        for decision in decisions:
            try:
                self.commit(self.plan(decision))
            except Refused as error:
                skipped.append((decision, str(error)))
        return skipped

    def outcome(self) -> np.ndarray:
        """int32[P]: the group of each point; NOISE also for those of groups that are noise."""
        noisy = [group.id for group in self.groups.values() if group.status == "noise"]
        return np.where(np.isin(self.of_point, noisy), np.int32(NOISE), self.of_point)

    def find(self, key: str) -> int | None:
        """The group of a point, or None where no point has the key."""
        points = self._find_points([key])
        return int(self.of_point[points[0]]) if len(points) else None

    def at_version(self, key: str, version: int) -> Group | None:
        """The group of this key as it was when `version` was its version; None: it never was."""
        id = self.find(key)
        if id is not None and (self.groups[id].key, self.groups[id].version) == (key, version):
            return self.groups[id]
        for change in self.changes.values():
            for group in (*change.before.values(), *change.after.values()):
                if group is not None and (group.key, group.version) == (key, version):
                    return group
        return None

    def key_names(self, points: np.ndarray) -> tuple[str, ...]:
        """The keys of points, as the journal has them."""
        return tuple(map(key_name, self._keys[points].tolist()))

    def _find_points(self, keys: Iterable[str]) -> np.ndarray:
        """int64[n]: the points of these keys that are there."""
        wanted = np.array([int(key, 16) for key in keys], np.uint64)
        if not len(self._keys):
            return np.empty(0, np.int64)
        place = np.searchsorted(self._keys, wanted, sorter=self._key_order)
        point = self._key_order[np.minimum(place, len(self._keys) - 1)]
        return point[self._keys[point] == wanted]
