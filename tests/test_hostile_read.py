"""Readers on files that are damaged, or made to harm: an answer, never a crash or a flood."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortline import UserError
from tests.fuzz_ingest import mutate, seed_files
from tests.hostile import LARGE, QUICK, THOROUGH
from tfdata import line_table
from tfdata.config import IngestConfig
from tfdata.csv_table import _Utf8Stream
from tfdata.raw import ReadCounts
from tfdata.read import list_files, read_documents, read_table_batches

ROOT = Path(__file__).parents[1]
FILES = seed_files()


def read(path, counts=None, **config):
    counts = ReadCounts() if counts is None else counts
    rows = []
    for batch in read_documents(path, IngestConfig(**config), counts):
        batch.validate(full=True)
        rows += zip(*(column.to_pylist() for column in batch.columns), strict=True)
    dropped = counts.dropped_null_text + counts.dropped_null_label + counts.bad_rows
    assert counts.rows_read == len(rows) + dropped
    return rows


def read_or_complain(path, read=read):
    """What is read, or None where an error names the file."""
    said = ""
    try:
        return read(path)
    except UserError as error:
        said = str(error)
    assert said.startswith(f"{path}: ")
    return None


def read_table(path):
    return [batch.num_rows for batch in read_table_batches(path)[1]]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".parquet")])
def test_parquet_cut_short_is_refused(tmp_path, name):
    content, path = FILES[name], tmp_path / name
    for size in [*range(1, len(content), 1000), *range(len(content) - 12, len(content))]:
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=f"{name}: "):
            read(path)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_gzip_is_whole_or_refused(tmp_path, name):
    """Its checksum finds every cut and every bit that changes what it holds."""
    content, path = FILES[name], tmp_path / name
    path.write_bytes(content)
    expected = read(path)
    for size in range(5, len(content), 100):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=f"{name}: "):
            read(path)
    for at in range(0, len(content), 60):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        if read_or_complain(path) not in (None, expected):
            assert at < 2, "without its first two bytes it is no gzip file"


def test_page_checksums_are_verified(tmp_path):
    """Where a Parquet file has them, no flipped bit of a page passes."""
    texts = [f"the text {i}" for i in range(300)]
    path = tmp_path / "a.parquet"
    table = pa.table({"text": texts, "label": ["a"] * 300})
    pq.write_table(
        table,
        path,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    content = path.read_bytes()
    for i in range(0, 300, 20):
        damaged = bytearray(content)
        damaged[content.index(b"the text %d" % i) + 4] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.parquet: truncated, damaged"):
            read(path)


def check_mutants(tmp_path, seed):
    random = np.random.default_rng(seed)
    for name, content in FILES.items():
        path = tmp_path / name
        path.write_bytes(mutate(content, random))
        read_or_complain(path)
        read_or_complain(path, read_table)


@QUICK
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_read_or_refused(tmp_path, seed):
    check_mutants(tmp_path, seed)


@pytest.mark.slow
@THOROUGH
@given(seed=st.integers(0, 2**32))
def test_many_damaged_files_are_read_or_refused(tmp_path, seed):
    check_mutants(tmp_path, seed)


fields = st.sampled_from([b"x", b"\xff", b"\xe6\x97", "é".encode(), b"\0", b" y "])


@QUICK
@given(st.lists(st.lists(fields, min_size=1, max_size=4), min_size=1))
def test_ragged_rows_are_counted_whatever_their_bytes(tmp_path, rows):
    path, counts = tmp_path / "a.csv", ReadCounts()
    rows = [[b"first", b"a"], *rows, [b"last", b"b"]]
    path.write_bytes(b"text,label\n" + b"".join(b",".join(row) + b"\n" for row in rows))
    kept = [tuple(v.decode("utf-8", "replace") for v in row) for row in rows if len(row) == 2]
    kept = [(text, label) for text, label in kept if label.strip()]
    assert read(path, counts, skip_bad_rows=True) == kept
    assert counts.bad_rows == len(rows) - sum(len(row) == 2 for row in rows)


def test_a_ragged_row_of_invalid_utf8_is_named(tmp_path, capfd):
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\nok,a\nb\xffad,b,c\n\xff,a\n\xef\xb7\x90,a\n")
    with pytest.raises(UserError, match=r"a\.csv: row 3 .* has 3 columns, not the 2"):
        read(path)
    counts = ReadCounts()
    assert read(path, counts, skip_bad_rows=True)[:2] == [("ok", "a"), ("\ufffd", "a")]
    assert counts.bad_rows == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_invalid_utf8_on_the_edge_of_a_block(tmp_path, block):
    content = "é日😀".encode() + b"\xff\xf0\x9f" + "a\ufdd0".encode() + b"\xe6\x97"
    path = tmp_path / "a"
    path.write_bytes(content)
    stream, got = _Utf8Stream(path, ReadCounts()), b""
    while data := stream.read(block):
        assert len(data) <= block
        got += data
    assert got.decode() == content.decode("utf-8", "replace").replace("\ufffd", "\ufdd0")


def test_a_first_row_of_a_megabyte(tmp_path):
    for number, text in enumerate(LARGE):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"text,label\n{text},a\nb,c\n")
        assert read(path) == [(text, "a"), ("b", "c")]


@QUICK
@given(st.lists(st.text(max_size=9), min_size=1), st.booleans())
def test_lone_surrogates_in_jsonl_are_replaced_and_counted(tmp_path, values, as_key):
    path, counts = tmp_path / "a.jsonl", ReadCounts()
    rows = [{"text": v, "label": "l", **({v + "\ud800": 1} if as_key else {})} for v in values]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [json.loads(json.dumps(v)).encode("utf-16", "surrogatepass") for v in values]
    assert [t for t, _ in read(path, counts)] == [v.decode("utf-16", "replace") for v in expected]
    names, batches = read_table_batches(path)
    assert sum(batch.num_rows for batch in batches) == len(rows)
    assert all(name.encode() for name in names)


def test_names_of_any_bytes(tmp_path):
    """Of files, folders and Parquet columns."""
    odd = os.fsdecode(b"\xff")
    folder = tmp_path / odd / f"label={odd}"
    folder.mkdir(parents=True)
    (folder / f"{odd}.csv").write_text("text\na\n")
    table = pa.table({"text": ["b"]})
    pq.write_table(table, tmp_path / "b.parquet")
    (tmp_path / "b.parquet").rename(folder / f"{odd}.parquet")
    counts = ReadCounts()
    assert read(tmp_path / odd, counts) == [("a", "\ufffd"), ("b", "\ufffd")]
    assert counts.invalid_utf8 == 2
    content = (folder / f"{odd}.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(content.replace(b"text", b"te\xfft"))
    with pytest.raises(UserError, match=r"c\.parquet: truncated, damaged"):
        read(tmp_path / "c.parquet")


def test_pipes_and_devices_are_refused(tmp_path):
    """They would be read twice: their first MiB would be lost, or they would never end."""
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        for refuse in (list_files, read, read_table_batches):
            with pytest.raises(UserError, match=f"{path}: is a pipe or a device"):
                refuse(path)
    with pytest.raises(UserError, match="is a pipe or a device"):
        list_files(tmp_path)


def test_too_many_keys_for_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(line_table, "_MOST_KEYS", 20)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": "a", "label": "b", "k{i}": 1}}\n' for i in range(30)))
    assert len(read(path)) == 30
    with pytest.raises(UserError, match=r"a\.jsonl: has 32 different keys"):
        next(read_table_batches(path)[1])


def test_a_pickled_type_is_not_loaded(tmp_path):
    """Old versions of Arrow unpickled extension types on reading (CVE-2023-47248)."""
    payload = b"cos\nmkdir\n(V" + str(tmp_path / "ran").encode() + b"\ntR."
    field = pa.field("text", pa.binary(), metadata={
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": payload,
    })  # fmt: skip
    schema = pa.schema([field, pa.field("label", pa.string())])
    table = pa.table([pa.array([b"a"]), pa.array(["b"])], schema=schema)
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("a", "b")]
    assert not (tmp_path / "ran").exists()


def test_delta_encoded_texts(tmp_path):
    """Arrow cannot read these as dictionaries."""
    rows = [(f"the same start, then {i // 3}", f"c{i % 7}") for i in range(1000)]
    table = pa.table({"text": [t for t, _ in rows], "label": [c for _, c in rows]})
    for name in ("text", "label"):
        pq.write_table(
            table,
            tmp_path / "a.parquet",
            use_dictionary=[{"text": "label", "label": "text"}[name]],
            column_encoding={name: "DELTA_BYTE_ARRAY"},
            row_group_size=300,
        )
        assert read(tmp_path / "a.parquet") == rows


def test_footers_that_lie(tmp_path):
    """Of the sizes and row counts in a footer none is believed."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"] * 300, "label": ["b"] * 300}), path)
    content, found = path.read_bytes(), Counter()
    for at in range(len(content) - 8 - int.from_bytes(content[-8:-4], "little"), len(content) - 8):
        for value in (0, 1, 0x7F, 0x80):
            path.write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
            rows = read_or_complain(path)
            found["read" if rows is not None else "refused"] += 1
            list_files(path)
    assert found["refused"] > 100
