"""What the pages are shown of a review, in words of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labels.review_data import ReviewData
from labels.review_facts import Facts
from labels.review_history import describe_change
from labels.review_split import count_unmerged, find_holding, free_name, split_group
from labels.review_state import NOISE, Group, Refused, Review
from labels.review_words import distinctive, share_words

_MOST_DOCUMENTS = 200  # of one answer
_LONGEST_TEXT = 4_000
_LONGEST_LINE = 240  # of a text in the list
_NUM_EXAMPLES = 12
_NUM_SAMPLED = 200  # texts of a part whose words are counted


@dataclass(frozen=True, kw_only=True)
class View:
    """Asked by one thread at a time. Its methods raise Refused where there is no such thing."""

    data: ReviewData
    review: Review
    facts: Facts

    def group(self, id: Any) -> Group:
        group = self.review.groups.get(id) if type(id) is int else None
        if group is None:
            raise Refused("that cluster is not there any more")
        return group

    def show(self, group: Group) -> dict[str, Any]:
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

    def preview(self, id: Any, how: Any) -> dict[str, Any]:
        """What a split would make: parts with names that are free, words and examples."""
        group = self.group(id)
        parts = split_group(self.data, group, read_how(how))
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
        group = self.group(id)
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
        group = self.group(id)
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
        changes = [self.review.changes[id] for id in reversed(self.review.changes)]
        if type(before) is int:
            changes = [change for change in changes if change.decision.id < before]
        return {"decisions": [describe_change(c, self.review) for c in changes[:100]]}

    def _document(self, point: int) -> dict[str, Any]:
        return {
            "point": point,
            "text": self._text(point, _LONGEST_TEXT),
            "size": int(self.data.weights[point]),
        }

    def _text(self, point: int, longest: int) -> str:
        text = self.data.texts[point].as_py() or ""
        return text if len(text) <= longest else text[: longest - 1] + "…"


def read_how(value: Any) -> Mapping[str, Any]:
    """The way of a split, as a page gives it."""
    if not isinstance(value, dict):
        raise Refused("how: must be an object")
    return value
