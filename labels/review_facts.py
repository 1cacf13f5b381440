"""What the review page shows of a group: size, cohesion, words, the most typical text, neighbours.

Legend: H numbers of a code, S slots (one a group; freed ones stay empty).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from labels.review_data import ReviewData
from labels.review_state import NOISE, Group, Review
from labels.review_words import Shares, distinctive, mean_shares, share_words

NUM_NEIGHBOURS = 8
_NUM_WORDS = 8
_NUM_SAMPLED = 40  # texts of a group whose words are counted
_EMPTY = -2  # the group of an empty slot


@dataclass(frozen=True, kw_only=True)
class Fact:
    """What is known of a group."""

    size: int
    """documents"""
    cohesion: float
    """Mean cosine of its documents' codes to their mean; 1: all alike."""
    typical: int
    """The point nearest to the mean."""
    words: list[tuple[str, float]]
    """That set it apart, best first, and the share of its texts that hold each."""
    centre: np.ndarray
    """float32[H], of length 1"""


class Facts:
    """Facts of all groups, kept up to date as they change."""

    def __init__(self, data: ReviewData, review: Review):
        """Of a review in which nothing is decided yet: what is common is common among these."""
        self._data = data
        groups = [group for group in review.groups.values() if group.id != NOISE]
        shares = {group.id: self._share(group.points) for group in groups}
        self._background = mean_shares(shares.values())
        self._facts = {g.id: self._describe(g.points, shares[g.id]) for g in groups}
        self._facts[NOISE] = self.describe(review.groups[NOISE].points)
        self._nearest = Nearest({group.id: self._facts[group.id].centre for group in groups})

    def __getitem__(self, id: int) -> Fact:
        return self._facts[id]

    def describe(self, points: np.ndarray) -> Fact:
        """The fact of any points; there may be none."""
        return self._describe(points, self._share(points))

    def _share(self, points: np.ndarray) -> Shares:
        step = max(1, -(-len(points) // _NUM_SAMPLED))
        return share_words(self._data.masked.take(points[::step]).to_pylist())

    def _describe(self, points: np.ndarray, shares: Shares) -> Fact:
        weights = self._data.weights[points]
        centre = self.find_centre(points)
        return Fact(
            size=int(weights.sum()),
            cohesion=float(np.linalg.norm(centre)),
            typical=int(points[np.argmax(self._data.units[points] @ centre)])
            if len(points) else _EMPTY,
            words=distinctive(shares, self._background, _NUM_WORDS),
            centre=centre / max(float(np.linalg.norm(centre)), 1e-12),
        )  # fmt: skip

    def find_centre(self, points: np.ndarray) -> np.ndarray:
        """float32[H]: the mean of the documents' codes; its length is the cohesion."""
        weights = self._data.weights[points].astype(np.float32)
        return weights @ self._data.units[points] / max(float(weights.sum()), 1.0)

    def sort_typical(self, group: Group) -> np.ndarray:
        """int32[n]: the points of a group, the most typical first."""
        likeness = self._data.units[group.points] @ self._facts[group.id].centre
        return group.points[np.argsort(-likeness, kind="stable")]

    def follow(
        self, before: Mapping[int, Group | None], after: Mapping[int, Group | None]
    ) -> set[int]:
        """Brings all up to date after groups have changed; returns those of which facts are new."""
        centres: dict[int, np.ndarray | None] = {}
        for id, group in after.items():
            old = before.get(id)
            if group is None:
                del self._facts[id]
                centres[id] = None
            elif old is None or old.points is not group.points:
                self._facts[id] = self.describe(group.points)
                centres[id] = self._facts[id].centre
        centres.pop(NOISE, None)
        return {*after, *self._nearest.update(centres)}

    def nearest(self, id: int) -> tuple[int, float] | None:
        """The nearest other group and the cosine of both centres, where there is one."""
        return self._nearest.first(id)

    def neighbours(self, id: int) -> list[tuple[int, float]]:
        """The nearest groups and their cosines, the nearest first."""
        return self._nearest.find(self._facts[id].centre, id)


class Nearest:
    """Which centre is nearest to each, kept as centres come, go and move."""

    def __init__(self, centres: dict[int, np.ndarray]):
        """`centres` are float32[H] of length 1."""
        self._slot_of = {id: slot for slot, id in enumerate(centres)}
        self._ids = np.array([*centres], np.int32)
        self._centres = np.stack([*centres.values()]) if centres else np.empty((0, 0), np.float32)
        self._near = np.full(len(centres), _EMPTY, np.int32)
        self._cosine = np.full(len(centres), -2.0, np.float32)
        self._find_again(np.arange(len(centres)))

    def first(self, id: int) -> tuple[int, float] | None:
        slot = self._slot_of.get(id)
        if slot is None or self._near[slot] == _EMPTY:
            return None
        return int(self._near[slot]), float(self._cosine[slot])

    def find(self, centre: np.ndarray, besides: int) -> list[tuple[int, float]]:
        """The NUM_NEIGHBOURS nearest to a centre, without the group `besides`."""
        if not len(self._ids):
            return []
        cosines = self._centres @ centre
        cosines[(self._ids == besides) | (self._ids == _EMPTY)] = -2
        best = np.argsort(-cosines, kind="stable")[:NUM_NEIGHBOURS]
        return [(int(self._ids[s]), float(cosines[s])) for s in best if cosines[s] > -2]

    def update(self, centres: dict[int, np.ndarray | None]) -> set[int]:
        """Takes in new centres, and None for those that are gone; who has another nearest now."""
        before = self._near.copy(), self._cosine.copy()
        for id, centre in centres.items():
            self._put(id, centre)
        changed = list(centres)
        self._find_again(np.flatnonzero(np.isin(self._near, changed) | np.isin(self._ids, changed)))
        for id in changed:
            if id in self._slot_of:
                self._offer(self._slot_of[id])
        old = len(before[0])
        moved = (self._near[:old] != before[0]) | (self._cosine[:old] != before[1])
        return set(self._ids[:old][moved].tolist()) - {_EMPTY}

    def _put(self, id: int, centre: np.ndarray | None) -> None:
        if centre is None:
            slot = self._slot_of.pop(id)
            self._ids[slot], self._near[slot], self._cosine[slot] = _EMPTY, _EMPTY, -2
        elif id in self._slot_of:
            self._centres[self._slot_of[id]] = centre
        else:
            self._slot_of[id] = len(self._ids)
            self._ids = np.append(self._ids, np.int32(id))
            self._near = np.append(self._near, np.int32(_EMPTY))
            self._cosine = np.append(self._cosine, np.float32(-2))
            rows = self._centres.reshape(len(self._ids) - 1, len(centre))
            self._centres = np.concatenate([rows, centre[None]])

    def _find_again(self, slots: Iterable[int]) -> None:
        slots = np.asarray(slots)
        slots = slots[self._ids[slots] != _EMPTY]
        for start in range(0, len(slots), 512):
            some = slots[start : start + 512]
            cosines = self._centres[some] @ self._centres.T
            cosines[:, self._ids == _EMPTY] = -2
            cosines[np.arange(len(some)), some] = -2
            best = cosines.argmax(1)
            self._cosine[some] = cosines[np.arange(len(some)), best]
            self._near[some] = np.where(self._cosine[some] > -2, self._ids[best], _EMPTY)

    def _offer(self, slot: int) -> None:
        """A new centre may be nearer to others than what they have."""
        cosines = self._centres @ self._centres[slot]
        nearer = (cosines > self._cosine) & (self._ids != _EMPTY)
        nearer[slot] = False
        self._near[nearer], self._cosine[nearer] = self._ids[slot], cosines[nearer]
