"""The table for a spreadsheet: formula-safe both ways, taken whole, stale rows refused."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.journal import read_journal
from labels.review import JOURNAL, main
from labels.review_csv import export_csv, guard, import_csv, unguard
from labels.review_data import read_review_data
from labels.review_desk import Desk
from labels.review_state import NOISE
from shortline import UserError
from tests.hostile import THOROUGH, texts
from tests.review_folder import write_folder

cells = st.one_of(texts, st.text("'=+-@;,|\t\n\r1a.:e ＝\"\u200b\u3000", max_size=12))
_ACTIVE = tuple("=+-@＝＋－＠")


@THOROUGH
@given(cells)
def test_what_is_guarded_comes_back(text):
    assert unguard(guard(text)) == text


@THOROUGH
@given(cells, st.sampled_from([",", ";", "\t", "|", ":", " "]), st.booleans())
def test_no_cell_is_a_formula_whatever_the_separator(text, separator, knows_quotes):
    """A spreadsheet that expects another separator than ours cuts cells apart; it may take quotes
    off, doubled or not, and pass over blanks.
    """
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL).writerow(["c1", guard(text), guard(text)])
    lines = line.getvalue().replace("\r", "\n").split("\n")
    if knows_quotes:
        cut = [cell for row in csv.reader(lines, delimiter=separator) for cell in row]
    else:
        cut = [cell for row in lines for cell in row.split(separator)]
    for cell in cut:
        assert not cell.lstrip('"\u200b\u3000 \t,;|:').startswith(_ACTIVE), guard(text)


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ('a;"=1+1', "a;\"'=1+1"),
        ("a, =1", "a, '=1"),
        ("\u3000＝1", "\u3000'＝1"),
        ('""-1', '""\'-1'),
        ("a\t\u200b@x", "a\t\u200b'@x"),
        ("1,-2", "'1,'-2"),
        ("e-mail", "e-mail"),
        ("=a-b", "'=a-b"),
    ],
)
def test_signs_are_guarded_wherever_a_cell_may_begin(text, guarded):
    assert guard(text) == guarded
    assert unguard(guarded) == text


@given(st.sampled_from(["7", "007", "1e5", "1/2", "12:30", "3.14", "-1", "1 000", "50%", "true",
                        "May 5", "1-Sep", "SEPT2", "1.5E3"]))  # fmt: skip
def test_numbers_and_dates_stay_text(text):
    assert guard(text) == f"'{text}"
    assert unguard(guard(text)) == text


@pytest.mark.parametrize("part", ["1", "'", "1e", "=", "1 ", "may 1", '"=', "a;"])
def test_long_cells_cost_no_more_than_their_length(part):
    for text in (part * 100_000 + "x", "'" * 100_000 + part):
        began = time.process_time()
        assert unguard(guard(text)) == text
        assert time.process_time() - began < 5  # by the square of the length it would be minutes


@pytest.fixture
def folder(tmp_path):
    return write_folder(
        tmp_path / "tickets",
        labels={3: "=cmd|'/C calc'!A0", 4: "a;=1+1", 5: "007", 6: "'tis", 7: 'say "so", twice'},
        texts={i: f"=HYPERLINK(\"http://x\")\n;{i}" for i in range(0, 40, 7)},
    )  # fmt: skip


def open_desk(folder: Path) -> Desk:
    return Desk(read_review_data(folder), folder / JOURNAL)


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def outcome(desk: Desk) -> dict[str, tuple[str, int]]:
    return {g.name: (g.status, len(g.points)) for g in desk.review.groups.values() if g.id != NOISE}


def test_a_table_that_nobody_changed_decides_nothing(folder, tmp_path):
    desk = open_desk(folder)
    before = outcome(desk)
    export_csv(desk, tmp_path / "t.csv")
    assert "0 decisions" in import_csv(open_desk(folder), tmp_path / "t.csv")
    assert outcome(open_desk(folder)) == before
    assert len(read(tmp_path / "t.csv")) == 12
    for line in (tmp_path / "t.csv").read_text("utf-8-sig").replace("\n", ",").split(","):
        assert not line.strip('"').startswith(("=", "+", "@"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_changes_become_decisions(folder, tmp_path, delimiter):
    desk = open_desk(folder)
    export_csv(desk, tmp_path / "t.csv")
    by_id = {group.id: group for group in desk.review.groups.values()}
    rows = read(tmp_path / "t.csv")
    key = {f"c{group.key}": id for id, group in by_id.items()}
    for row in rows:
        id = key[row["cluster"]]
        if id in (0, 1):
            row["label"] = "both"
            row["status"] = "Keep"
        if id == 2:
            row["label"] = "'=2+2"  # as a spreadsheet would have to save it
        if id == 3:
            row["status"] = "DROPPED"
        if id == 8:
            row["status"] = "noise"
        if id == 9:
            row["label"], row["status"] = "", ""
    write(tmp_path / "t.csv", rows, delimiter)
    import_csv(desk, tmp_path / "t.csv")
    after = outcome(open_desk(folder))
    assert after["both"] == ("kept", len(by_id[0].points) + len(by_id[1].points))
    assert after["=2+2"] == ("open", len(by_id[2].points))
    assert after["=cmd|'/C calc'!A0"][0] == "dropped"
    assert after[by_id[8].name][0] == "noise"
    assert after[by_id[9].name] == ("open", len(by_id[9].points))
    assert len(after) == 11
    assert {decision.by for decision in read_journal(folder / JOURNAL)} == {"table t.csv"}


def test_labels_may_change_places(folder, tmp_path):
    desk = open_desk(folder)
    export_csv(desk, tmp_path / "t.csv")
    rows = read(tmp_path / "t.csv")
    sizes = {row["label"]: int(row["texts"]) for row in rows}
    a, b = rows[0]["label"], rows[1]["label"]
    rows[0]["label"], rows[1]["label"] = b, a
    import_csv(desk, write(tmp_path / "t.csv", rows))
    after = outcome(open_desk(folder))
    assert (after[unguard(a)][1], after[unguard(b)][1]) == (sizes[b], sizes[a])
    assert len(after) == 12


def test_the_label_of_a_cluster_that_was_filtered_out_is_merged_into(folder, tmp_path):
    desk = open_desk(folder)
    export_csv(desk, tmp_path / "t.csv")
    rows = read(tmp_path / "t.csv")
    rows[1]["label"] = rows[0]["label"]
    import_csv(desk, write(tmp_path / "t.csv", rows[1:2]))
    assert len(outcome(open_desk(folder))) == 11


def test_stale_rows_alone_are_refused(folder, tmp_path):
    desk = open_desk(folder)
    export_csv(desk, tmp_path / "t.csv")
    rows = read(tmp_path / "t.csv")
    key = {f"c{group.key}": group for group in desk.review.groups.values()}
    seen = [[key[rows[i]["cluster"]].id, 0] for i in range(3)]
    desk.decide({"action": "rename", "seen": seen[:1], "label": "on the page"}, "page 1")
    desk.decide({"action": "drop", "seen": seen[1:2]}, "page 1")
    rows[0]["label"] = "in the table"  # changed in both places
    rows[2]["status"] = "kept"  # rows[1] was changed on the page alone: that stays
    with pytest.raises(UserError) as raised:
        import_csv(open_desk(folder), write(tmp_path / "t.csv", rows))
    assert "1 decisions taken, 1 rows not" in str(raised.value)
    assert "row 2" in str(raised.value)
    groups = open_desk(folder).review.groups
    assert groups[seen[0][0]].name == "on the page"
    assert groups[seen[1][0]].status == "dropped"
    assert groups[seen[2][0]].status == "kept"


def _change(rows, **values):
    return [row | values if i == 1 else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: _change(rows, status="good"), "row 3: status good: must be one of kept"),
        (lambda rows: _change(rows, label="x" * 201), "row 3: label: 201 characters"),
        (lambda rows: _change(rows, label="a\u202eb"), "row 3: label: holds what cannot be seen"),
        (lambda rows: _change(rows, cluster="1.2E+15"), "row 3: cluster and version must stay"),
        (lambda rows: _change(rows, version="x"), "row 3: cluster and version must stay"),
        (lambda rows: [*rows, rows[0]], "row 14: is the same cluster as row 2"),
        (lambda rows: [{"cluster": "x"}], "row 1: must name the column version once"),
        (
            lambda rows: [
                r | {"label": "one", "status": s}
                for r, s in zip(rows[:2], ("kept", "dropped"), strict=True)
            ],
            "rows 2, 3: have one label, but more than one status",
        ),
    ],
)
def test_a_table_that_cannot_be_taken_is_not_taken_in_part(folder, tmp_path, change, said):
    desk = open_desk(folder)
    export_csv(desk, tmp_path / "t.csv")
    rows = read(tmp_path / "t.csv")
    rows[0]["status"] = "kept"
    with pytest.raises(UserError) as raised:
        import_csv(desk, write(tmp_path / "t.csv", change(rows)))
    assert said in str(raised.value)
    assert read_journal(folder / JOURNAL) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", "is not in UTF-8"),
        (b"", "row 1: must name"),
        (b'cluster,version,label,status\n"a', "save the table anew"),
        (b"cluster,version,label,status\na\0b,1,2,3\n", "must stay as exported"),
    ],
)
def test_what_is_no_table_is_named(folder, tmp_path, content, said):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=said):
        main([str(folder), "--import-csv", str(tmp_path / "t.csv")])


def test_the_command_writes_and_takes(folder, tmp_path, capsys):
    path = tmp_path / "t.csv"
    assert main([str(folder), "--export-csv", str(path)]) == 0
    rows = read(path)
    rows[0]["status"] = "kept"
    write(path, rows)
    assert main([str(folder), "--import-csv", str(path)]) == 0
    assert "1 decisions taken" in capsys.readouterr().out
    assert [d.action for d in read_journal(folder / JOURNAL)] == ["keep"]
