"""Decisions about clusters: no point is lost, an undo puts all back, a replay gives the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.folder import key_name
from labels.journal import Decision, Part
from labels.review_state import NOISE, Refused, Review

ACTIONS = ("rename", "merge", "split", "keep", "drop", "noise", "open", "undo")


def make_review(of_point: list[int], seed: int = 0) -> Review:
    random = np.random.default_rng(seed)
    keys = random.choice(1 << 62, len(of_point), replace=False).astype(np.uint64) * 4 + 1
    weights = random.integers(1, 50, len(of_point)).astype(np.int32)
    assigned = np.array(of_point, np.int32)
    return Review(keys, weights, assigned, {n: f"cluster {n}" for n in set(of_point) - {NOISE}})


@st.composite
def steps(draw):
    """(of_point, choices that `decide` turns into decisions that mostly fit)."""
    of_point = draw(st.lists(st.integers(-1, 6), max_size=40))
    choice = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 99), st.integers(0, 99))
    return of_point, draw(st.lists(choice, max_size=25))


def decide(review: Review, step: tuple[str, int, int], id: int) -> Decision:
    """A decision about whatever groups there are."""
    action, a, b = step
    groups = [group for group in review.groups.values() if group.id != NOISE]
    if action == "undo" or not groups:
        return Decision(id=id, action="undo", of=1 + a % max(id - 1, 1))
    first, second = groups[a % len(groups)], groups[b % len(groups)]
    if action == "rename":
        return Decision(id=id, action=action, clusters=(first.key,), label=f"name {b}")
    if action == "merge":
        return Decision(id=id, action=action, clusters=(first.key, second.key))
    if action == "split":
        group = first if a % 3 else review.groups[NOISE]
        halves = [group.points[b % 5 :: 5], group.points[b % 3 :: 7]]
        parts = [
            Part(label=f"part {i}", points=review.key_names(points))
            for i, points in enumerate(halves)
            if len(points)
        ]
        if parts:
            return Decision(id=id, action=action, clusters=(group.key,), parts=tuple(parts))
        action = "keep"
    return Decision(id=id, action=action, clusters=tuple({first.key, second.key}))


def snapshot(review: Review) -> dict:
    return {
        id: (g.key, g.name, g.status, g.version, g.points.tolist())
        for id, g in review.groups.items()
    }


def check_whole(review: Review, num_points: int) -> None:
    """Every point is in one group, and `of_point` says in which."""
    members = np.concatenate([group.points for group in review.groups.values()])
    assert sorted(members.tolist()) == list(range(num_points))
    for group in review.groups.values():
        assert (review.of_point[group.points] == group.id).all()
        assert group.id == NOISE or len(group.points)
        assert (np.diff(group.points) > 0).all()


@given(steps())
def test_every_document_ends_somewhere_whatever_is_decided(case):
    of_point, choices = case
    review = make_review(of_point)
    for id, step in enumerate(choices, 1):
        review.replay([decide(review, step, id)])
        check_whole(review, len(of_point))
        outcome = review.outcome()
        for group in review.groups.values():
            ends = {NOISE} if group.status == "noise" else {group.id}
            assert set(outcome[group.points].tolist()) <= ends


@given(steps())
def test_replay_gives_the_same_from_the_same(case):
    of_point, choices = case
    review = make_review(of_point)
    decisions, skipped = [], []
    for id, step in enumerate(choices, 1):
        decision = decide(review, step, id)
        decisions.append(decision)
        skipped += review.replay([decision])
    lines = [decision.to_json() for decision in decisions]
    again = make_review(of_point)
    assert again.replay([Decision.from_json(line) for line in lines]) == skipped
    assert snapshot(again) == snapshot(review)
    assert (again.outcome() == review.outcome()).all()


@given(steps())
def test_undoing_all_from_the_last_to_the_first_ends_where_it_began(case):
    of_point, choices = case
    review = make_review(of_point)
    before, made = [snapshot(review)], []
    for id, step in enumerate((c for c in choices if c[0] != "undo"), 1):
        if not review.replay([decide(review, step, id)]):
            made.append(id)
            before.append(snapshot(review))
    for number, of in enumerate(reversed(made), 100):
        assert snapshot(review) == before.pop()
        review.commit(review.plan(Decision(id=number, action="undo", of=of)))
    assert snapshot(review) == before.pop()
    for number in range(99 + len(made), 99, -1):  # and undoing the undoings is doing it again
        review.commit(review.plan(Decision(id=number + 1000, action="undo", of=number)))
    check_whole(review, len(of_point))
    assert {g.version for g in review.groups.values()} <= {0, *made}


@given(steps())
def test_planning_changes_nothing(case):
    of_point, choices = case
    review = make_review(of_point)
    for id, step in enumerate(choices, 1):
        decision = decide(review, step, id)
        before, points = snapshot(review), review.of_point.copy()
        try:
            change = review.plan(decision)
        except Refused:
            change = None
        assert snapshot(review) == before
        assert (review.of_point == points).all()
        if change is not None:
            review.commit(change)
            assert {k: v for k, v in snapshot(review).items() if k not in change.after} == {
                k: v for k, v in before.items() if k not in change.after
            }


def test_an_undo_waits_until_what_came_after_is_undone():
    review = make_review([0, 0, 1, 1, 2])
    keys = {n: review.groups[n].key for n in range(3)}
    assert not review.replay([
        Decision(id=1, action="merge", clusters=(keys[0], keys[1])),
        Decision(id=2, action="rename", clusters=(keys[0],), label="both"),
        Decision(id=3, action="drop", clusters=(keys[2],)),
    ])  # fmt: skip
    with pytest.raises(Refused, match="undo that first"):
        review.plan(Decision(id=4, action="undo", of=1))
    assert not review.replay([Decision(id=4, action="undo", of=2)])
    assert not review.replay([Decision(id=5, action="undo", of=1)])
    assert review.groups[1].name == "cluster 1"
    assert review.groups[2].status == "dropped"  # another's, untouched


def test_noise_can_be_split_but_nothing_else():
    review = make_review([0, NOISE, NOISE, 0])
    found = Part(label="found", points=review.key_names(np.array([1])))
    assert not review.replay([
        Decision(id=1, action="split", clusters=("noise",), parts=(found,))
    ])  # fmt: skip
    assert review.outcome().tolist() == [0, 1, NOISE, 0]
    with pytest.raises(ValueError, match="16 hexadecimal digits"):
        Decision(action="keep", clusters=("noise",))
    inside = key_name(int(review._keys[2]))
    with pytest.raises(Refused, match="is not there"):
        review.plan(Decision(id=2, action="keep", clusters=(inside,)))


def test_decisions_outlast_another_clustering():
    """By keys of points: the cluster is meant that holds the point now."""
    first = make_review([0, 0, 0, 1, 1, 2, NOISE])
    keys = {n: first.groups[n].key for n in range(3)}
    decisions = [
        Decision(id=1, action="rename", clusters=(keys[0],), label="refund"),
        Decision(id=2, action="merge", clusters=(keys[1], keys[2])),
        Decision(id=3, action="rename", clusters=(keys[2],), label="both"),
        Decision(id=4, action="undo", of=2),
    ]
    assert [d.id for d, _ in first.replay(decisions)] == [4]  # decision 3 came after
    other = make_review([5, 5, 5, 3, 3, 3, NOISE])  # the same points, two clusters already one
    skipped = other.replay(decisions)
    assert [d.id for d, _ in skipped] == [2, 4]
    assert {g.name for g in other.groups.values()} == {"refund", "both", "noise"}
