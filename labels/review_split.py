"""Ways to take a group apart. Each gives the points that leave it, one array a new group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labels.review_data import ReviewData
from labels.review_state import NOISE, Group, Refused

_MOST_PARTS = 40
_MOST_SAMPLED = 4_000  # points that the centres of parts are found from


def split_group(data: ReviewData, group: Group, how: Mapping[str, Any]) -> list[np.ndarray]:
    """The same for the same group and way, so that what was shown is what is done.

    Args:
      how: {"kind": "holding", "text": …}, {"kind": "parts", "num": 2 …},
        {"kind": "unmerged"} or {"kind": "points", "points": [point, …]}.

    Raises:
      Refused: nothing would leave, or nothing would stay.
    """
    kind = how.get("kind")
    if kind == "holding":
        parts = [find_holding(data, group.points, str(how.get("text", "")))]
    elif kind == "unmerged":
        parts = _by_value(data, group.points, data.unmerged[group.points])
    elif kind == "parts":
        parts = _in_parts(data, group.points, how.get("num"))
    elif kind == "points":
        parts = [_listed(group.points, how.get("points"))]
    else:
        raise Refused("it is not known how to split")
    parts = [part for part in parts if len(part)]
    if not parts:
        raise Refused("nothing would leave it")
    if group.id != NOISE and sum(map(len, parts)) >= len(group.points):
        raise Refused("nothing would be left of it")
    return parts


def find_holding(data: ReviewData, points: np.ndarray, text: str) -> np.ndarray:
    """int32[n]: those of some points whose texts hold these letters, large or small."""
    if not text.strip():
        return points[:0]
    held = pc.match_substring(data.texts.take(pa.array(points)), text, ignore_case=True)
    return points[held.to_numpy(zero_copy_only=False)]


def _listed(points: np.ndarray, listed: Any) -> np.ndarray:
    if not isinstance(listed, list) or not all(type(point) is int for point in listed):
        raise Refused("points: must be a list of whole numbers")
    wanted = set(listed)
    return points[np.array([point in wanted for point in points.tolist()], bool)]


def _by_value(data: ReviewData, points: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    """A part a value, the heaviest first; the heaviest itself stays."""
    parts = [points[values == value] for value in np.unique(values)]
    parts.sort(key=lambda part: -int(data.weights[part].sum()))
    return parts[1:_MOST_PARTS]


def _in_parts(data: ReviewData, points: np.ndarray, num: Any) -> list[np.ndarray]:
    """By k-means on the codes, the centres found from a sample of the points."""
    if type(num) is not int or not 2 <= num <= _MOST_PARTS:
        raise Refused(f"in 2 to {_MOST_PARTS} parts")
    if len(points) < num:
        raise Refused(f"it has fewer than {num} different texts")
    from sklearn.cluster import KMeans

    sampled = points[:: -(-len(points) // _MOST_SAMPLED)]
    means = KMeans(num, init="k-means++", n_init="auto", max_iter=50, random_state=0)
    means.fit(data.units[sampled], sample_weight=data.weights[sampled])
    return _by_value(data, points, np.asarray(means.predict(data.units[points])))


def import_late() -> None:
    """Imports what takes a second, before it is wanted."""
    import sklearn.cluster  # noqa: F401


def count_unmerged(data: ReviewData, group: Group) -> int:
    """Of how many clusters a group was merged."""
    return len(np.unique(data.unmerged[group.points]))


def free_name(wanted: str, taken: Sequence[str] | set[str]) -> str:
    """
    >>> free_name("refund", {"refund", "refund 2"})
    'refund 3'
    """
    if wanted not in taken:
        return wanted
    return next(name for i in range(2, len(taken) + 3) if (name := f"{wanted} {i}") not in taken)
