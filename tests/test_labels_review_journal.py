"""The journal: synced, whole or not at all, several processes at once, hostile lines named."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.journal import ACTIONS, Decision, Journal, Part, read_journal
from shortline import UserError
from tests.hostile import QUICK, texts

KEY = "0123456789abcdef"
KEEP = Decision(action="keep", clusters=(KEY,), by="page 1")


def append(journal: Journal, **changed) -> Decision:
    with journal.turn() as turn:
        decision = Decision(**{**vars(KEEP), "id": turn.next_id, **changed})
        turn.append(decision)
    return decision


def test_what_is_appended_is_read_again(tmp_path):
    path = tmp_path / "review" / "journal.jsonl"
    journal = Journal(path)
    made = [
        append(journal),
        append(journal, action="rename", label="“été” 😀"),
        append(journal, action="split", parts=(Part(label="a", points=(KEY, KEY[::-1])),)),
        append(journal, action="undo", clusters=(), of=2),
    ]
    assert read_journal(path) == made
    assert [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()] == [1, 2, 3, 4]


def test_it_is_on_the_disk_before_the_maker_is_told(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd)))
    path = tmp_path / "review" / "journal.jsonl"
    journal = Journal(path)
    for turn in range(3):
        append(journal)
        sizes = [s.st_size for s in synced if s.st_ino == path.stat().st_ino]
        assert len(sizes) == turn + 1
        assert sizes[-1] == path.stat().st_size
    folders = {path.parent.stat().st_ino, tmp_path.stat().st_ino}
    assert folders <= {s.st_ino for s in synced}  # they have new names in them


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    append(journal)
    before = path.read_bytes()

    def fail(fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            append(journal)
    assert path.read_bytes() == before
    assert append(journal).id == 2


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_half_a_line_was_never_made(tmp_path, cut):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    append(journal)
    append(journal)
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(read_journal(path)) == 1
    assert append(Journal(path)).id == 2
    assert len(read_journal(path)) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: Expecting"),
        ("[]", "line 2: not a JSON object"),
        ('{"id": 2}', "action: is missing"),
        ('{"id": 2, "action": "erase"}', "must be one of rename, merge"),
        ('{"id": 3, "action": "undo", "of": 1}', "id 3 where 2 is due"),
        ('{"id": 2, "action": "keep", "clusters": []}', "0 of them do not fit"),
        ('{"id": 2, "action": "keep", "clusters": ["x"]}', "16 hexadecimal digits"),
        ('{"id": 2, "action": "keep", "clusters": [7]}', "must hold strings"),
        ('{"id": 2, "action": "keep", "clusters": "KEY"}', "must be of type list"),
        ('{"id": true, "action": "keep", "clusters": []}', "id: must be of type int"),
        ('{"id": 2, "action": "rename", "clusters": ["KEY"]}', "label: goes with rename"),
        ('{"id": 2, "action": "keep", "clusters": ["KEY"], "label": "x"}', "label: goes"),
        ('{"id": 2, "action": "undo", "of": 1, "x": 1}', "'x': is not known"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, said):
    path = tmp_path / "journal.jsonl"
    append(Journal(path))
    path.write_text(path.read_text() + line.replace("KEY", KEY) + "\n")
    for read in (read_journal, lambda path: Journal(path).turn().__enter__()):
        with pytest.raises(UserError, match=r"journal\.jsonl: line 2: ") as raised:
            read(path)
        assert said in str(raised.value)


def test_a_journal_made_shorter_meanwhile_is_noticed(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    append(journal)
    append(journal)
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")
    assert journal.has_more()
    with pytest.raises(UserError, match="made shorter"):
        append(journal)


def _append_many(path: Path, by: str, count: int) -> None:
    journal = Journal(path)
    for _ in range(count):
        append(journal, by=by)


def test_processes_take_turns(tmp_path):
    path = tmp_path / "journal.jsonl"
    mine = Journal(path)
    append(mine)
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_append_many, args=(path, f"p{i}", 40)) for i in range(3)]
    for process in others:
        process.start()
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    assert mine.has_more()
    with mine.turn() as turn:
        assert len(turn.added) == 120
    assert not mine.has_more()
    assert [decision.id for decision in read_journal(path)] == list(range(1, 122))


def test_a_file_system_without_locks_is_told_once(tmp_path, monkeypatch, capsys):
    def fail(fd, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    journal = Journal(tmp_path / "journal.jsonl")
    append(journal)
    append(journal)
    told = capsys.readouterr().err
    assert told.count("journal.jsonl") == 1
    assert "locks no files" in told


keys = st.text("0123456789abcdef", min_size=16, max_size=16)


@QUICK
@given(st.sampled_from(ACTIONS), st.lists(keys, max_size=3), texts, st.lists(texts, max_size=2))
def test_a_decision_is_refused_or_reads_as_it_was_written(action, clusters, label, part_labels):
    try:
        decision = Decision(
            action=action, clusters=tuple(clusters),
            label=label if action == "rename" else None,
            parts=tuple(Part(label=name, points=(KEY,)) for name in part_labels)
            if action == "split" else (),
            of=1 if action == "undo" else None,
        )  # fmt: skip
    except ValueError:
        return
    line = json.dumps(decision.to_json(), ensure_ascii=False)
    assert "\n" not in line
    assert Decision.from_json(json.loads(line)) == decision
