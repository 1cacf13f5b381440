"""What is shown of a group is right after any changes, and so are its neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.review_data import read_review_data
from labels.review_desk import Desk
from labels.review_facts import NUM_NEIGHBOURS, Facts, Nearest
from labels.review_state import NOISE, Refused
from labels.review_words import distinctive, mean_shares, share_words
from shortline import UserError
from tests.review_folder import write_folder


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    return vector / np.linalg.norm(vector)


change = st.dictionaries(st.integers(0, 9), st.none() | st.integers(0, 99), max_size=4)


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 99), max_size=8), st.lists(change))
def test_the_nearest_is_the_nearest_however_centres_move(first, changes):
    centres = {id: unit(seed) for id, seed in first.items()}
    nearest = Nearest(centres)
    for new in changes:
        update = {id: None if seed is None else unit(seed) for id, seed in new.items()}
        update = {id: c for id, c in update.items() if c is not None or id in centres}
        before = {id: nearest.first(id) for id in centres}
        told = nearest.update(update)
        centres = {k: v for k, v in (centres | update).items() if v is not None}
        for id, centre in centres.items():
            cosines = {other: float(c @ centre) for other, c in centres.items() if other != id}
            got = nearest.first(id)
            if not cosines:
                assert got is None
                continue
            assert got is not None
            assert got[1] == pytest.approx(max(cosines.values()), abs=1e-6)
            assert cosines[got[0]] == pytest.approx(got[1], abs=1e-6)
            assert id in told or before.get(id) == got or id not in before
            found = nearest.find(centre, id)
            best = sorted(cosines.values(), reverse=True)[:NUM_NEIGHBOURS]
            assert [cosine for _, cosine in found] == pytest.approx(best, abs=1e-6)


def test_after_decisions_all_is_as_if_counted_anew(tmp_path):
    data = read_review_data(write_folder(tmp_path / "tickets", 20))
    desk = Desk(data, tmp_path / "journal.jsonl")
    background = desk.facts._background
    random = np.random.default_rng(1)
    for step in range(60):
        groups = [group for group in desk.review.groups.values() if group.id != NOISE]
        first, second = random.choice(len(groups), 2, replace=False)
        seen = [[g.id, g.version] for g in (groups[first], groups[second])]
        asked = [
            {"action": "merge", "seen": seen},
            {"action": "drop", "seen": seen},
            {"action": "undo"},
            {"action": "split", "seen": seen[:1], "how": {"kind": "parts", "num": 2},
             "labels": [f"part {step}"]},
        ][step % 4]  # fmt: skip
        try:
            desk.decide(asked, "test")
        except Refused:
            continue
    assert len(desk.review.changes) > 30
    fresh = Facts(data, desk.review)
    fresh._background = background
    for id, group in desk.review.groups.items():
        kept, again = desk.facts[id], fresh.describe(group.points)
        assert (kept.size, kept.typical, kept.words) == (again.size, again.typical, again.words)
        assert kept.size == data.weights[group.points].sum()
        if id != NOISE:
            assert desk.facts.nearest(id)[1] == pytest.approx(fresh.nearest(id)[1], abs=1e-5)


def test_cohesion_is_the_mean_cosine_to_the_mean(tmp_path):
    data = read_review_data(write_folder(tmp_path / "tickets"))
    desk = Desk(data, tmp_path / "journal.jsonl")
    group = desk.review.groups[0]
    weights = data.weights[group.points]
    mean = np.average(data.units[group.points], axis=0, weights=weights)
    cosines = data.units[group.points] @ (mean / np.linalg.norm(mean))
    fact = desk.facts[0]
    assert fact.cohesion == pytest.approx(np.average(cosines, weights=weights), abs=1e-5)
    assert fact.typical == group.points[cosines.argmax()]


def test_words_that_are_everywhere_do_not_set_apart():
    shares = [
        share_words(["card lost please", "card gone <NUM>"]),
        share_words(["please transfer <NUM>", "transfer please"]),
    ]
    background = mean_shares(shares)
    assert [word for word, _ in distinctive(shares[0], background, 2)] == ["card", "gone"]
    assert distinctive(shares[1], background, 5) == [("transfer", 1.0)]
    assert distinctive({}, {}, 5) == []


def test_files_of_two_runs_are_told(tmp_path):
    folder = write_folder(tmp_path / "tickets")
    np.save(folder / "encode" / "codes.npy", np.zeros((3, 16), np.float32))
    with pytest.raises(UserError, match="not of one run"):
        read_review_data(folder)
    (folder / "encode" / "codes.npy").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"codes\.npy: cannot be read"):
        read_review_data(folder)
