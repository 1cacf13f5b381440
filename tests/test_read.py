"""Readers against the csv and json modules, on hostile files of every format."""

import csv
import gzip
import io
import json
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortline import UserError
from tfdata import csv_table
from tfdata.columns import find_columns
from tfdata.config import IngestConfig
from tfdata.raw import ReadCounts
from tfdata.read import list_files, read_documents, read_table_batches

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
AWKWARD = [
    ("plain", "a"),
    ("true", "1"),
    ("NA", "null"),
    ("007", "1.0"),
    ('say "hi"', "NaN"),
    ("two\nlines", "x,y"),
    ("lone\rreturn", "é"),
    ("crlf\r\ninside", "  spaced "),
    ("tab\there; and | there", "日本"),
    ("nul\0byte", "😀"),
    ("", "empty text"),
    ("\u2028\x85\x1c", "odd breaks"),
    ("x" * 300_000, "long"),
]


def read(path, counts=None, **config):
    """All documents as (text, label) pairs; checks that the counts add up."""
    counts = ReadCounts() if counts is None else counts
    rows = []
    for batch in read_documents(Path(path), IngestConfig(**config), counts):
        batch.validate(full=True)
        rows += zip(*(column.to_pylist() for column in batch.columns), strict=True)
    dropped = counts.dropped_null_text + counts.dropped_null_label + counts.bad_rows
    assert counts.rows_kept == len(rows)
    assert counts.rows_read == len(rows) + dropped
    return rows


def write_csv(path, rows, header=("text", "label"), **options):
    with open(path, "w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.writer(file, **options)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def file(tmp_path):
    """A function that writes bytes under a name."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("lineterminator", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_keeps_every_character(tmp_path, delimiter, lineterminator, encoding):
    path = write_csv(
        tmp_path / "a.csv", AWKWARD,
        delimiter=delimiter, lineterminator=lineterminator, encoding=encoding,
        quoting=csv.QUOTE_ALL,  # else Python before 3.12 leaves a lone carriage return bare
    )  # fmt: skip
    assert read(path) == AWKWARD


csv_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(
    '",\n\r; \0a', max_size=8
)


@quick
@given(st.lists(st.tuples(csv_text, csv_text.map(lambda label: "l" + label)), min_size=1))
def test_csv_agrees_with_the_csv_module(tmp_path, rows):
    path = write_csv(tmp_path / "a.csv", rows)
    with open(path, newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)][1:] == rows
    assert read(path) == rows


def test_header_may_be_quoted_and_blank_lines_are_no_rows(file):
    path = file("a.csv", '\n\r\n"te\nxt","label"\na,b\n\nc,d\n')
    assert read(path, text="te\nxt") == [("a", "b"), ("c", "d")]


def test_a_last_row_needs_no_newline(file):
    assert read(file("a.csv", 'text,label\na,b\nc,"d"')) == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_packed_files_by_name_or_by_content(file, pack):
    halves = [b"text,label\na,b\n", b"c,d\n"]
    content = b"".join(
        gzip.compress(h) if pack == "gzip" else pa.compress(h, "zstd", asbytes=True) for h in halves
    )
    for name in ("a.csv.gz", "a.csv.zst", "a.csv", "a"):
        assert read(file(name, content)) == [("a", "b"), ("c", "d")]
    with pytest.raises(UserError, match=r"b\.csv\.gz: truncated"):
        read(file("b.csv.gz", content[:-5]))


def test_a_ragged_row_is_named_or_skipped(file):
    path = file("a.csv", 'text,label\n"a\na",b\nc,d,e\nf,g\nh\n')
    with pytest.raises(UserError, match=r"a\.csv: row 3 .* has 3 columns, not the 2 .*skip-bad"):
        read(path)
    counts = ReadCounts()
    assert read(path, counts, skip_bad_rows=True) == [("a\na", "b"), ("f", "g")]
    assert (counts.rows_read, counts.bad_rows) == (4, 2)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", '\n\ntext,label\n"a\na",x\nb,x,x\n\nb,x\n,\nlast,x\n', [2, 4, 6]),
        ("a.jsonl", '\n{"text": "a", "label": "x"}\n\n{\n{"text": "b", "label": "x"}', [2, 5]),
        ("a.ft", "\n__label__x a\nno label\n__label__x b\n", [2, 4]),
    ],
)
def test_rows_are_numbered_as_messages_number_them(file, name, content, expected):
    batches = read_documents(
        file(name, content), IngestConfig(skip_bad_rows=True), ReadCounts(), places=True
    )
    assert [row for batch in batches for row in batch.column("row").to_pylist()] == expected


def test_rows_of_many_blocks_are_numbered_among_skipped_ones(file, monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_ROW_BYTES", 1000)
    lines = ["bad" if i % 97 == 5 or i > 1990 else f"{i},x" for i in range(2, 2000)]
    path = file("a.csv", "text,label\n" + "\n".join(lines))
    for batch in read_documents(path, IngestConfig(skip_bad_rows=True), ReadCounts(), places=True):
        assert batch.column("row").to_pylist() == list(map(int, batch.column("text").to_pylist()))


def test_the_files_of_a_folder_are_named_with_their_rows(tmp_path):
    (tmp_path / "label=x").mkdir()
    table = pa.table({"text": ["a", None, "c"]})
    pq.write_table(table, tmp_path / "label=x" / "a.parquet")
    pq.write_table(table, tmp_path / "label=x" / "b.parquet")
    batches = read_documents(tmp_path, IngestConfig(), ReadCounts(), places=True)
    places = [row for batch in batches for row in batch.select(["file", "row"]).to_pylist()]
    assert places == [
        {"file": str(tmp_path / "label=x" / f"{name}.parquet"), "row": row}
        for name in "ab" for row in (1, 3)
    ]  # fmt: skip


def test_leading_blank_lines_are_no_rows_in_messages(file):
    with pytest.raises(UserError, match=r"a\.csv: row 3 .* has 1 columns"):
        read(file("a.csv", "\n\ntext,label\na,b\nbad\n"))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    "broken", ['"a,b', 'a,"b', 'a,"'], ids=["first column", "last column", "alone"]
)
def test_an_open_quote_swallows_nothing_silently(file, broken, skip):
    rows = "".join(f"text {i},label\n" for i in range(300))
    with pytest.raises(UserError, match="quote that is never closed"):
        read(file("a.csv", f"text,label\n{rows}{broken}\n{rows}"), skip_bad_rows=skip)


def test_a_row_beyond_the_limit_is_an_error(file, monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_ROW_BYTES", 2000)
    path = file("a.csv", "text,label\n" + "a,b\n" * 5 + "x" * 5000 + ",b\n")
    with pytest.raises(UserError, match="longer than"):
        read(path)
    path = file("a.csv", "text,label\n" + "a,b\n" * 5 + '"' + "x\n" * 5000)
    with pytest.raises(UserError, match=r"longer than .* quote that is never closed"):
        read(path)


@pytest.mark.parametrize(
    "content", ["", "\ufeff", "\n\n", "text,label", "text,label\n", "text,label\r\n\r\n"]
)
def test_no_rows_is_an_error(file, content):
    with pytest.raises(UserError, match="holds no rows"):
        read(file("a.csv", content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04....", "zip or Excel"),
        (b"ARROW1\0\0", "Parquet first"),
    ],
)
def test_foreign_files_are_named(file, content, said):
    with pytest.raises(UserError, match=said):
        read(file("a.csv", content))


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read_table_batches(tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.ft"])
def test_invalid_utf8_is_replaced_and_counted(file, name):
    bad = [(b"ok", b"a"), (b"b\xffad", b"a"), (b"fine \xef\xbf\xbd", b"a"), (b"x", b"\xc3")]
    content = {
        "a.csv": b"text,label\n" + b"".join(b"%s,%s\n" % row for row in bad),
        "a.jsonl": b"".join(b'{"text": "%s", "label": "%s"}\n' % row for row in bad),
        "a.ft": b"".join(b"__label__%s %s\n" % row[::-1] for row in bad),
    }[name]
    path, counts = file(name, content), ReadCounts()
    assert read(path, counts) == [
        ("ok", "a"), ("b\ufffdad", "a"), ("fine \ufffd", "a"), ("x", "\ufffd")
    ]  # fmt: skip
    assert counts.invalid_utf8 == 2
    row = 3 if name == "a.csv" else 2
    with pytest.raises(UserError, match=rf"row {row} is not valid UTF-8"):
        read(path, strict=True)


def test_nulls_and_blank_labels_are_dropped_and_counted(tmp_path):
    table = pa.table({
        "text": ["a", None, "c", "", None, "f"],
        "label": ["x", "x", None, "y", None, " \t\u00a0"],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    counts = ReadCounts()
    assert read(tmp_path / "a.parquet", counts) == [("a", "x"), ("", "y")]
    assert (counts.dropped_null_text, counts.dropped_null_label, counts.empty_text) == (2, 2, 1)


def test_jsonl_values_stay_as_written(file):
    lines = [
        '{"text": "a", "label": 1.0, "more": [1, {"b": 2}]}',
        '{"label": 1e5, "text": 12345678901234567890}',
        '{"text": true, "label": false}',
        '  {"text": "\\ud83d\\ude00 \\ud800", "label": "x\\u0000y"}  ',
        '{"text": null, "label": "x"}',
        '{"label": "x"}',
        '{"text": "t", "label": NaN}',
        "",
    ]
    counts = ReadCounts()
    path = file("a.jsonl", "\ufeff" + "\r\n".join(lines))
    assert read(path, counts) == [
        ("a", "1.0"), ("12345678901234567890", "1e5"), ("true", "false"),
        ("😀 \ufffd", "x\0y"), ("t", "NaN"),
    ]  # fmt: skip
    assert (counts.dropped_null_text, counts.invalid_utf8) == (2, 1)


json_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@quick
@given(st.lists(st.tuples(json_text, json_text.map(lambda label: "l" + label)), min_size=1))
def test_jsonl_agrees_with_the_json_module(tmp_path, rows):
    path = tmp_path / "a.jsonl"
    with open(path, "w", encoding="utf-8", newline="") as file:
        for i, (text, label) in enumerate(rows):
            file.write(json.dumps({"text": text, "label": label}, ensure_ascii=bool(i % 2)) + "\n")
    assert read(path) == rows


@pytest.mark.parametrize(
    "line",
    ['{"text": "a"', "[1]", '"text"', '{"text": ["a"], "label": "b"}', "{'text': 1}", "[" * 99999],
)
def test_a_bad_json_line_is_named_or_skipped(file, line):
    good = '{"text": "a", "label": "b"}\n'
    path = file("a.jsonl", good + "\n" + line + "\n" + good)
    with pytest.raises(UserError, match=r"a\.jsonl: line 3: .*--skip-bad-rows"):
        read(path)
    counts = ReadCounts()
    assert read(path, counts, skip_bad_rows=True) == [("a", "b")] * 2
    assert counts.bad_rows == 1


def test_a_json_array_is_refused(file):
    with pytest.raises(UserError, match="JSON array"):
        read(file("a.json", '[{"text": "a", "label": "b"}]'))


def test_fasttext(file):
    path = file("train.txt", "__label__a the text\r\n\n__label__b\tx  y \n__label__c\n")
    assert read(path) == [("the text", "a"), ("x  y ", "b"), ("", "c")]
    for bad in ("no label", "__label__a __label__b text", "__label__ text"):
        with pytest.raises(UserError, match="line 2"):
            read(file("b.ft", f"__label__a t\n{bad}\n"))


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)  # fmt: skip
def test_parquet_text_types(tmp_path, kind):
    values = pa.array([text for text, _ in AWKWARD])
    if pa.types.is_dictionary(kind):
        values = values.dictionary_encode()
    values = values.cast(kind)
    pq.write_table(pa.table({"text": values, "label": values}), tmp_path / "a.parquet")
    expected = [(text, text) for text, _ in AWKWARD if text.strip()]
    assert read(tmp_path / "a.parquet") == expected


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([7, None], pa.int64(), ["7"]),
        ([1.5, float("nan")], pa.float64(), ["1.5"]),
        ([True, False], pa.bool_(), ["true", "false"]),
        ([18_000], pa.date32(), ["2019-04-14"]),
    ],
)
def test_parquet_labels_of_other_types_become_text(tmp_path, values, kind, expected):
    table = pa.table({"text": ["t"] * len(values), "label": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [label for _, label in read(tmp_path / "a.parquet")] == expected


def test_parquet_that_cannot_be_text_or_is_damaged(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [["a"]], "label": ["b"]}), path)
    with pytest.raises(UserError, match="column `text` holds list"):
        read(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"a\.parquet: truncated"):
        read(path)
    pq.write_table(pa.table({"text": ["a"] * 9999, "label": ["b"] * 9999}), path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: truncated"):
        read(path)


def test_files_of_other_libraries(tmp_path):
    rows = [row for row in AWKWARD if "\0" not in row[0]]
    frame = {"text": [t for t, _ in rows], "label": [label for _, label in rows]}
    polars.DataFrame(frame).write_parquet(tmp_path / "polars.parquet")
    polars.DataFrame(frame).write_csv(tmp_path / "polars.csv")
    polars.DataFrame(frame).write_ndjson(tmp_path / "polars.jsonl")
    pandas.DataFrame(frame).astype({"label": "category"}).to_parquet(tmp_path / "pandas.parquet")
    pandas.DataFrame(frame).to_csv(tmp_path / "pandas.csv.gz", index=False, quoting=csv.QUOTE_ALL)
    pandas.DataFrame(frame).to_json(tmp_path / "pandas.jsonl", orient="records", lines=True)
    table = pa.table(frame)
    with duckdb.connect() as connection:
        connection.register("rows", table)
        for name in ("duckdb.parquet", "duckdb.csv"):
            connection.execute(f"copy (select * from rows) to '{tmp_path / name}'")
    files = list_files(tmp_path)
    assert len(files) == 8
    for file in files:
        assert read(file) == rows, file.name


def test_folders_are_read_in_order_with_their_hive_columns(file, tmp_path):
    file("d/team=b%20c/part-0.csv", "text\nthree\n")
    file("d/team=a/part-1.csv", "text\ntwo\n")
    file("d/team=a/part-0.csv", "text\none\n")
    file("d/team=a/part-2.csv", "")
    file("d/team=__HIVE_DEFAULT_PARTITION__/part-0.csv", "text\nfour\n")
    for name in ("d/_SUCCESS", "d/team=a/.part-0.csv.crc", "d/_temporary/x.csv", "d/notes.md"):
        file(name, "x")
    counts = ReadCounts()
    assert read(tmp_path / "d", counts) == [("one", "a"), ("two", "a"), ("three", "b c")]
    assert counts.dropped_null_label == 1
    with pytest.raises(UserError, match="no data file"):
        read(file("e/notes.md", "x").parent)


def test_a_file_of_a_folder_that_lacks_the_column_is_named(file, tmp_path):
    file("d/a.csv", "body,label\none,a\n")
    file("d/b.csv", "title,label\none,a\n")
    with pytest.raises(UserError, match=r"b\.csv: no column `body`"):
        read(tmp_path / "d")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["id", "Text", "LABEL"], ("Text", "LABEL")),
        (["text", "body", "y", "team"], ("text", "team")),
        (["title", "body", "category"], ("body", "category")),
        (["body", "message", "label"], "--text"),
        (["text", "team", "category"], "--label"),
        (["a", "b"], "--text and --label"),
        (["text", "text", "label"], "--text"),
    ],
)
def test_columns_are_guessed_where_names_are_plain(names, expected):
    if isinstance(expected, tuple):
        assert find_columns(names, None, None, source="f") == expected
    else:
        with pytest.raises(UserError, match=f"meant by {expected}: it has"):
            find_columns(names, None, None, source="f")


def test_columns_asked_for(file):
    path = file("a.csv", "a,b,label,a\n1,2,3,4\n")
    assert read(path, text="b") == [("2", "3")]
    assert read(path, text="label", label="b") == [("3", "2")]
    for wanted, said in (("a", "2 columns are named"), ("B ", "did you mean --text b"),
                         ("zz", "columns a, b, label, a")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            read(path, text=wanted)
    with pytest.raises(UserError, match="are both"):
        read(path, text="b", label="b")
    assert find_columns(["x", "text"], None, None, source="f", need_label=False) == ("text", None)


def test_all_columns_of_a_file(file, tmp_path):
    path = file("a.csv", "id,text,id\n007,a\xff,\n1.0,,true\n".encode("latin-1"))
    names, batches = read_table_batches(path)
    assert names == ["id", "text", "id"]
    columns = pa.Table.from_batches(list(batches)).columns
    assert [c.to_pylist() for c in columns] == [["007", "1.0"], ["a\ufffd", ""], ["", "true"]]
    late = '{"text": "a"}\n' * 400_000 + '{"late": [1, "x"], "text": 1.0}\n'
    names, batches = read_table_batches(file("a.jsonl", late))
    table = pa.Table.from_batches(list(batches))
    assert names == ["text", "late"]
    assert (len(table), table["late"][-1].as_py()) == (400_001, '["1", "x"]')
    typed = pa.table({"n": [1, 2], "text": pa.array([b"a", b"\xff"])})
    pq.write_table(typed, tmp_path / "t.parquet")
    names, batches = read_table_batches(tmp_path / "t.parquet")
    assert pa.Table.from_batches(list(batches)) == typed


def test_nvd_has_every_record(shared_data):
    path = shared_data / "nvd_cwe" / "all.csv.gz"
    reader = csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode(), newline=""))
    expected = [tuple(row) for row in reader][1:]
    assert len(expected) == 132_680
    assert read(path) == expected


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("banking77/train.csv", ","), ("goemotions_single/test_bom_crlf_semicolon.csv", ";")],
)
def test_other_real_files(shared_data, name, delimiter):
    with open(shared_data / name, newline="", encoding="utf-8-sig") as file:
        expected = [tuple(row) for row in csv.reader(file, delimiter=delimiter)][1:]
    assert read(shared_data / name) == expected
