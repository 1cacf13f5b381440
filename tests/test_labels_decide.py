"""Decisions of a review: written whole, applied alike again, undone, and never lost silently."""

from __future__ import annotations

import json
import multiprocessing

import numpy as np
import pyarrow as pa
import pytest

from labels.decide import NOISE, Cluster, Clusters, Points
from labels.folder import key_name
from labels.journal import Conflict, Decision, append_decision, effective, read_journal
from shortline import UserError

KEYS = [key_name(k) for k in (900, 3, 77, 12, 500, 41)]


def _clusters():
    """Points 0 1 2 are cluster 0, points 3 4 cluster 1, point 5 is noise."""
    masked = pa.array(["card lost", "card stolen", "card lost abroad", "pin", "pin new", "?"])
    points = Points(np.array([900, 3, 77, 12, 500, 41], np.uint64), np.arange(6) + 1, masked)
    by_number = {0: Cluster(key=KEYS[2], label="card"), 1: Cluster(key=KEYS[3], label="pin")}
    return Clusters(points, np.array([0, 0, 0, 1, 1, NOISE], np.int32), by_number)


def _apply(*decisions):
    clusters = _clusters()
    return clusters, clusters.apply_all(decisions)


def test_merge_goes_into_the_first_whatever_point_names_it():
    clusters, left = _apply(Decision(action="merge", clusters=(KEYS[4], KEYS[0]), label=" both "))
    assert not left
    assert clusters.of_point.tolist() == [1, 1, 1, 1, 1, NOISE]
    assert vars(clusters.by_number[1]) == vars(Cluster(key=KEYS[3], label="both", confirmed=True))


def test_split_by_letters_and_by_points_give_the_same():
    by_letters, _ = _apply(Decision(action="split", clusters=(KEYS[2],), holding="lost"))
    by_points, _ = _apply(
        Decision(action="split", clusters=(KEYS[2],), points=(KEYS[0], KEYS[2], KEYS[3]))
    )
    for clusters in (by_letters, by_points):
        assert clusters.of_point.tolist() == [2, 0, 2, 1, 1, NOISE]
        assert clusters.by_number[2].label == "card 2"
        assert clusters.by_number[2].key == KEYS[2]  # of the heaviest
        assert clusters.by_number[0].key == KEYS[1]  # its own had moved out


def test_drop_keeps_the_points_and_noise_does_not():
    clusters, _ = _apply(
        Decision(action="drop", clusters=(KEYS[0],)), Decision(action="noise", clusters=(KEYS[3],))
    )
    assert clusters.of_point.tolist() == [0, 0, 0, NOISE, NOISE, NOISE]
    assert clusters.by_number[0].dropped
    assert set(clusters.by_number) == {0}


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (Decision(action="drop", clusters=(key_name(1),)), "not there"),
        (Decision(action="drop", clusters=(KEYS[5],)), "not there"),
        (Decision(action="merge", clusters=(KEYS[0], KEYS[1])), "one already"),
        (Decision(action="split", clusters=(KEYS[0],), holding="card"), "3 of 3"),
        (Decision(action="split", clusters=(KEYS[0],), points=(KEYS[4],)), "0 of 3"),
    ],
)
def test_what_cannot_be_applied_changes_nothing_and_says_why(decision, why):
    clusters, left = _apply(decision)
    assert why in left[0][1]
    assert clusters.of_point.tolist() == _clusters().of_point.tolist()
    assert clusters.by_number == _clusters().by_number


@pytest.mark.parametrize(
    "values",
    [
        {"action": "rename", "clusters": [KEYS[0]]},
        {"action": "rename", "clusters": [KEYS[0]], "label": "  "},
        {"action": "rename", "clusters": [KEYS[0]], "label": "x" * 201},
        {"action": "merge", "clusters": [KEYS[0]]},
        {"action": "split", "clusters": [KEYS[0]]},
        {"action": "drop", "clusters": []},
        {"action": "drop", "clusters": ["card"]},
        {"action": "drop", "clusters": [1]},
        {"action": "drop", "clusters": KEYS[0]},
        {"action": "undo"},
        {"action": "undo", "of": True},
        {"action": "eval", "clusters": [KEYS[0]]},
        {"action": "drop", "clusters": [KEYS[0]], "more": 1},
        {"clusters": [KEYS[0]]},
        ["drop"],
    ],
)
def test_what_is_no_decision_is_refused(values):
    with pytest.raises((ValueError, TypeError)):
        Decision.from_json(values)


def test_the_journal_gives_back_what_was_appended(tmp_path):
    path = tmp_path / "review" / "journal.jsonl"
    assert read_journal(path) == []
    made = [
        append_decision(path, Decision(action="rename", clusters=(KEYS[0],), label="Ä\n=1"), 0),
        append_decision(path, Decision(action="split", clusters=(KEYS[3],), holding="new"), 1),
        append_decision(path, Decision(action="undo", of=2), 2),
        append_decision(path, Decision(action="undo", of=3), 3),
    ]
    assert [d.id for d in made] == [1, 2, 3, 4]
    assert read_journal(path) == made
    assert effective(made[:3]) == made[:1]
    assert effective(made) == made[:2]  # an undo undone


def test_of_two_who_decide_about_one_cluster_the_second_is_told(tmp_path):
    path = tmp_path / "journal.jsonl"
    append_decision(path, Decision(action="merge", clusters=(KEYS[0], KEYS[3]), by="a"), 0)
    append_decision(path, Decision(action="drop", clusters=(KEYS[5],), by="b"), 0)
    before = path.read_bytes()
    with pytest.raises(Conflict, match="decision 1 of a"):
        append_decision(path, Decision(action="drop", clusters=(KEYS[3],)), 0)
    with pytest.raises(Conflict, match="decision 2 of b"):
        append_decision(path, Decision(action="drop", clusters=(KEYS[5],)), 1)
    assert path.read_bytes() == before
    append_decision(path, Decision(action="undo", of=1), 1)
    with pytest.raises(Conflict):
        append_decision(path, Decision(action="rename", clusters=(KEYS[0],), label="x"), 2)


def test_half_a_line_was_never_decided_and_damage_is_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    append_decision(path, Decision(action="drop", clusters=(KEYS[0],)), 0)
    with open(path, "ab") as file:
        file.write(b'{"id": 2, "action": "dr')
    assert len(read_journal(path)) == 1
    append_decision(path, Decision(action="drop", clusters=(KEYS[3],)), 1)
    assert [d.clusters for d in read_journal(path)] == [(KEYS[0],), (KEYS[3],)]
    whole = path.read_text()
    for line, why in (
        ({"id": 9, "action": "undo", "of": 1}, "line 3: id 9 where 3 is due"),
        ({"id": 3, "action": "undo", "of": 3}, "line 3: of 3: must be the id of an earlier"),
    ):
        path.write_text(whole + json.dumps(line) + "\n")
        with pytest.raises(UserError, match=why):
            read_journal(path)


def _append_many(path, number):
    for i in range(20):
        key = key_name(1000 * number + i)
        append_decision(path, Decision(action="drop", clusters=(key,), by=str(number)), 0)


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    path = tmp_path / "journal.jsonl"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_append_many, args=(path, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    decisions = read_journal(path)
    assert len({d.clusters for d in decisions}) == len(decisions) == 60
