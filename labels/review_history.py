"""Decisions in words, and which of them a page would undo or redo next."""

from __future__ import annotations

from typing import Any

from labels.review_state import Change, Group, Review

_WORDS = {"keep": "kept", "drop": "dropped", "noise": "marked as noise:", "open": "reopened"}
_MOST_NAMES = 3


def describe_change(change: Change, review: Review) -> dict[str, Any]:
    """Who did what and when, and whether it can still be undone."""
    decision = change.decision
    return {
        "id": decision.id,
        "by": decision.by,
        "time": decision.time,
        "action": decision.action,
        "text": _tell(change, review),
        "groups": [id for id, group in change.after.items() if group is not None],
        "can_undo": review.can_undo(change),
    }


def _tell(change: Change, review: Review) -> str:
    decision = change.decision
    before = [group for group in change.before.values() if group is not None]
    if decision.action == "undo":
        undone = review.changes[decision.of or 0]
        if undone.decision.action == "undo":
            return f"redone: {_tell(review.changes[undone.decision.of or 0], review)}"
        whose = f" ({undone.decision.by})" if undone.decision.by != decision.by else ""
        return f"undone: {_tell(undone, review)}{whose}"
    if decision.action == "rename":
        return f"renamed {_names(before)} to “{decision.label}”"
    if decision.action == "merge":
        return f"merged {_names(before[1:])} into {_names(before[:1])}"
    if decision.action == "split":
        parts = [group for id, group in change.after.items() if change.before[id] is None and group]
        return f"split {_names(parts)} off {_names(before)}"
    return f"{_WORDS[decision.action]} {_names(before)}"


def _names(groups: list[Group]) -> str:
    shown = ", ".join(f"“{group.name}”" for group in groups[:_MOST_NAMES])
    more = len(groups) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def find_undo(review: Review, by: str) -> int | None:
    """The last decision of a page that can be undone, its undoings aside."""
    for change in reversed(review.changes.values()):
        decision = change.decision
        if decision.by == by and decision.action != "undo" and review.can_undo(change):
            return decision.id
    return None


def find_redo(review: Review, by: str) -> int | None:
    """The last undoing of a page that can be undone; none when it has decided anything since."""
    for change in reversed(review.changes.values()):
        decision = change.decision
        if decision.by != by:
            continue
        if decision.action != "undo":
            return None
        undone = review.changes[decision.of or 0]
        if undone.decision.action != "undo" and review.can_undo(change):
            return decision.id
    return None
