"""Applies the journal's decisions to the clusters of the merge step.

Legend: P points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labels.journal import Decision

NOISE = -1


@dataclass(kw_only=True)
class Cluster:
    """What decisions change of a cluster."""

    key: str
    label: str
    dropped: bool = False
    confirmed: bool = False


class Points(NamedTuple):
    """What decisions need to know of the points (clean/points.parquet)."""

    keys: np.ndarray
    """uint64[P]"""
    weights: np.ndarray
    """int32[P]"""
    masked: pa.ChunkedArray | pa.Array
    """string[P]"""


class Clusters:
    """The clusters as they stand after some decisions.

    `of_point` int32[P] has each point's cluster, or NOISE; `by_number` what is known of each.
    """

    def __init__(self, points: Points, of_point: np.ndarray, by_number: dict[int, Cluster]):
        """`of_point` and `by_number` are of the merge step; they are copied."""
        self._points = points
        self._order = np.argsort(points.keys)
        self.of_point = of_point.copy()
        self.by_number = {n: Cluster(**vars(c)) for n, c in by_number.items()}
        self._next = max(by_number, default=-1) + 1

    def apply(self, decision: Decision) -> str | None:
        """Takes in one decision (none that was undone); returns why it could not be, if so."""
        numbers = list(dict.fromkeys(self.find(key) for key in decision.clusters))
        if None in numbers or NOISE in numbers:
            return "a cluster that it names is not there any more"
        found = [n for n in numbers if n is not None]
        action = decision.action
        if action == "split":
            return self._split(found[0], decision)
        if action == "merge":
            return self._merge(found, decision.label)
        for number in found:
            if action == "noise":
                self.of_point[self.of_point == number] = NOISE
                del self.by_number[number]
            elif action == "rename":
                assert decision.label is not None
                self.by_number[number].label = decision.label.strip()
            elif action == "drop":
                self.by_number[number].dropped = True
            if action != "noise":
                self.by_number[number].confirmed = True
        return None

    def apply_all(self, decisions: Iterable[Decision]) -> list[tuple[Decision, str]]:
        """Those that could not be taken in, and why."""
        return [(d, why) for d in decisions if (why := self.apply(d)) is not None]

    def find(self, key: str) -> int | None:
        """The cluster of a point, or NOISE; None where no point has the key."""
        place = self._find_points([key])
        return int(self.of_point[place[0]]) if len(place) else None

    def _find_points(self, keys: Iterable[str]) -> np.ndarray:
        """int64[n]: the points of these keys that are there."""
        wanted = np.array([int(key, 16) for key in keys], np.uint64)
        place = np.searchsorted(self._points.keys, wanted, sorter=self._order)
        point = self._order[np.minimum(place, len(self._order) - 1)]
        return point[self._points.keys[point] == wanted]

    def _merge(self, numbers: list[int], label: str | None) -> str | None:
        if len(numbers) < 2:
            return "its clusters are one already"
        first, *others = numbers
        self.of_point[np.isin(self.of_point, others)] = first
        for number in others:
            del self.by_number[number]
        self.by_number[first].label = (label or "").strip() or self.by_number[first].label
        self.by_number[first].confirmed = True
        return None

    def _split(self, number: int, decision: Decision) -> str | None:
        members = np.flatnonzero(self.of_point == number)
        if decision.holding:
            texts = self._points.masked.take(pa.array(members))
            moved = members[pc.match_substring(texts, decision.holding).to_numpy(False)]
        else:
            moved = np.intersect1d(members, self._find_points(decision.points))
        if not 0 < len(moved) < len(members):
            return f"it would move {len(moved)} of {len(members)} points"
        old = self.by_number[number]
        heaviest = moved[np.argmax(self._points.weights[moved])]
        label = (decision.label or "").strip() or self._free_label(old.label)
        self.of_point[moved] = self._next
        key = f"{int(self._points.keys[heaviest]):016x}"
        self.by_number[self._next] = Cluster(key=key, label=label)
        self._next += 1
        if (self.find(old.key)) != number:  # its own key has moved out
            left = members[~np.isin(members, moved)]
            heaviest = left[np.argmax(self._points.weights[left])]
            old.key = f"{int(self._points.keys[heaviest]):016x}"
        return None

    def _free_label(self, label: str) -> str:
        taken = {cluster.label for cluster in self.by_number.values()}
        return next(name for i in range(2, len(taken) + 3) if (name := f"{label} {i}") not in taken)
