"""An unclosed quote that a later one closes takes rows away: this is said, and of nothing else."""

import gzip
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdata import csv_table, doctor, ingest
from tfdata.checkup.brief import check_briefly
from tfdata.config import IngestConfig
from tfdata.open_quotes import find_open_quotes
from tfdata.raw import ReadCounts
from tfdata.read import read_documents, read_table_batches
from tfdata.shards import open_shards

ROWS = [f"word{i % 13} text {i},c{i % 4},more" for i in range(400)]


ROWS_OF_TWO = [f"word {i},c{i % 4}" for i in range(400)]
ROWS_OF_TWO[300], ROWS_OF_TWO[390] = '"word,c1', '"word",c1'


def found(path, **config):
    counts = ReadCounts()
    for _ in read_documents(path, IngestConfig(**config), counts):
        pass
    return counts.open_quotes


def write(path, broken, rows=ROWS, delimiter=",", end="\n", closing='"he said hi",c1,more'):
    """A file whose row 302 opens a quote that row 392 closes."""
    rows = [*rows]
    rows[300], rows[390] = broken, closing
    text = end.join(["text,label,extra", *rows, ""]).replace(",", delimiter)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_row_and_its_lines_are_told(tmp_path, delimiter, end):
    path = write(tmp_path / "a.csv", '"open,c0,more', delimiter=delimiter, end=end)
    assert found(path) == ["a.csv: row 302 runs over 91 lines"]


@pytest.mark.parametrize(
    ("broken", "closing"),
    [('text,"c0,more', '"x",more'), ('text,c0,"more', '"x"')],
    ids=["the label", "a column that is not read"],
)
def test_in_any_column(tmp_path, broken, closing):
    path = write(tmp_path / "a.csv", broken, closing=closing)
    assert found(path) == ["a.csv: row 302 runs over 91 lines"]


def test_rows_are_numbered_over_blocks_and_skipped_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_ROW_BYTES", 4000)
    rows = [row if i % 50 != 7 else "bad" for i, row in enumerate(ROWS)]
    path = write(tmp_path / "a.csv.gz", '"open,c0,more', rows)
    (place,) = found(path, skip_bad_rows=True)
    assert place == "a.csv.gz: row 302 runs over 91 lines"


def test_in_a_row_that_is_skipped(tmp_path):
    path = write(tmp_path / "a.csv", '"open,c0,more', closing='"he said hi",c1')
    assert found(path, skip_bad_rows=True) == ["a.csv: row 302 runs over 91 lines"]


def test_files_of_a_folder_are_named_from_it(tmp_path):
    folder = tmp_path / "data" / "day=1"
    folder.mkdir(parents=True)
    write(folder / "a.csv", '"open,c0,more')
    assert found(tmp_path / "data") == ["data/day=1/a.csv: row 302 runs over 91 lines"]


PROSE = "Dear all,\n\nthe server is down, again.\nWe look, and write, when we know more.\n"
LEGITIMATE = {
    "prose": PROSE * 9,
    "a comma a line": "first this, then that\n" * 30,
    "a list": "apples,\n" * 30,
    "JSON": json.dumps({f"key {i}": i for i in range(30)}, indent=1),
    "JSON of lists": json.dumps([[i, i] for i in range(30)], indent=1),
    "code": "def f(a, b):\n    return g(a,b)\n\nx = 1\n" * 10,
    "a log": "2024-01-31 12:00:00,123 INFO x\n    at y\n" * 20,
    "few rows": "a,b\n" * 9,
    "blank lines": "\n" * 99,
}


@pytest.mark.parametrize("kind", LEGITIMATE)
def test_texts_of_many_lines_are_no_rows(tmp_path, kind):
    text = LEGITIMATE[kind].replace('"', '""')
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + f'"{text}",x\n' * 20)
    assert found(path) == []


TWO_COLUMNS = {
    "a log": lambda i, j: f"2024-01-31 12:0{i % 10}:{j:02},123 started",
    "decimal commas": lambda i, j: f"{i},{j}",
    "code": lambda i, j: f"call(a,{i})",
}


@pytest.mark.parametrize("kind", TWO_COLUMNS)
def test_a_comma_a_line_is_no_row_of_two_columns(tmp_path, kind):
    """A log's lines were taken for rows, a text of them for lost."""
    line = TWO_COLUMNS[kind]
    texts = ["\n".join(line(i, j) for j in range(14)) for i in range(20)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f'"{text}",x\n' for text in texts))
    assert found(tmp_path / "a.csv") == []


@pytest.mark.parametrize("first", ["text", "label"])
def test_rows_of_two_columns(tmp_path, first):
    rows = [f"c{i % 4},word {i}" if first == "label" else f"word {i},c{i % 4}" for i in range(400)]
    rows[300], rows[390] = (
        ('c1,"word', 'c1,"word"') if first == "label" else ('"word,c1', '"word",c1')
    )
    (tmp_path / "a.csv").write_text(
        "\n".join([f"{first},{'label text'.replace(first, '').strip()}", *rows, ""])
    )
    assert found(tmp_path / "a.csv") == ["a.csv: row 302 runs over 91 lines"]


def test_rows_of_a_class_that_is_lost_whole_or_of_no_classes(tmp_path):
    """Nothing of such lines is known from other rows, but there are few such fields."""
    by_class = [f"word {i},c{i // 50}" for i in range(400)]
    by_class[100], by_class[151] = '"word,c2', '"word",c3'
    ids = [f"{1000 + i},word {i}" for i in range(400)]
    ids[300], ids[390] = '1300,"word', '1390,"word"'
    for names, rows, place in (
        ("text,label", by_class, "row 102 runs over 52 lines"),
        ("id,text", ids, "row 302 runs over 91 lines"),
        ("text,label", ['"word,c0', *by_class[1:99], '"word",c1'], "row 2 runs over 100 lines"),
    ):
        (tmp_path / "a.csv").write_text("\n".join([names, *rows, ""]))
        counts = ReadCounts()
        for _ in read_table_batches(tmp_path / "a.csv", "csv", counts=counts)[1]:
            pass
        assert counts.open_quotes == [f"a.csv: {place}"]


def test_few_texts_of_lines_with_commas(tmp_path):
    rows = [f"word {i},c{i % 4}" for i in range(400)]
    rows[7] = '"' + "\n".join(f"call(a,{i})" for i in range(12)) + '",c1'
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows, ""]))
    assert found(tmp_path / "a.csv") == []


def test_after_many_texts_of_such_lines(tmp_path):
    texts = ["\n".join(f"call(a,{i * 100 + j})" for j in range(11)) for i in range(1_100)]
    rows = [*(f'"{text}",c{i % 4}' for i, text in enumerate(texts)), *ROWS_OF_TWO]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows, ""]))
    assert found(tmp_path / "a.csv") == ["a.csv: row 1,402 runs over 91 lines"]


def test_texts_of_lines_with_commas_are_seen_to_be_many_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_ROW_BYTES", 4000)  # a few rows each
    texts = ["\n".join(f"call(a,{i * 100 + j})" for j in range(14)) for i in range(80)]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f'"{text}",x\n' for text in texts))
    assert found(tmp_path / "a.csv") == []


def looks_like_rows(field, num_columns):
    lines = field.split("\n")[1:-1]
    rows = sum(
        line.count(",") == num_columns - 1
        and any(line[i + 1 : i + 2] > " " for i, c in enumerate(line) if c == ",")
        for line in lines
    )
    return rows >= 10 and rows >= 0.9 * len(lines)


line = st.sampled_from(["a,b", "a,b,c", "a, b", "a,", ",b", "", "ab", ",", "a,b\r"])
fields = st.lists(
    st.one_of(line, st.builds("\n".join, st.lists(line | st.just("a,b"), min_size=10)),
              st.integers(9, 15).map(lambda n: "\n".join(["a,b"] * n))),
    max_size=6,
)  # fmt: skip


@given(fields, st.integers(1, 3), st.integers(0, 2))
def test_as_line_by_line(values, num_columns, start):
    array = pa.array(values, pa.binary()).slice(start)
    expected = [
        i for i, value in enumerate(values[start:])
        if num_columns > 1 and looks_like_rows(value, num_columns)
    ]  # fmt: skip
    assert find_open_quotes(array, ",", num_columns).tolist() == expected


def test_ingest_training_and_doctor_say_it(tmp_path, capsys):
    path = write(tmp_path / "a.csv", '"open,c0,more')
    ingest.main([str(path), "--out", str(tmp_path / "out")])
    said = "CSV fields that hold lines which look like rows, and are lost: 1; probably a quote"
    (told,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(said))
    assert "a.csv: row 302 runs over 91 lines; close the quote" in told
    shard_set = open_shards(tmp_path / "out")
    assert check_briefly(shard_set, 16)[0].name == "open_quotes"
    doctor.main([str(path), "--json"])
    result = json.loads(capsys.readouterr().out)
    (finding,) = (f for f in result["findings"] if f["name"] == "open_quotes")
    assert (finding["severity"], finding["count"], finding["of"]) == ("high", 1, 310)
    assert finding["examples"] == ["a.csv: row 302 runs over 91 lines"]
