"""Ingest of any texts and labels: nothing lost, nothing altered, nothing half-written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.page import escape
from tests import hostile
from tests.fuzz_ingest import fuzz
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.ingest import ingest
from tfdata.shards import PARTS, open_shards, read_batches
from tfdata.vocab import read_lines, write_lines

ROOT = Path(__file__).parents[1]
# enough to validate on, and that no class is missing
BASE = [(f"base {i}", f"base {i % 2}") for i in range(12)]


def write(path, rows):
    if path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    elif path.suffix == ".jsonl":
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        path.write_text("".join(lines))
    else:
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        pq.write_table(pa.table(columns), path)
    return path


def docs(shard_set):
    names = shard_set.labels + shard_set.unseen_labels
    return {
        part: Counter(
            (text, names[label])
            for texts, labels in read_batches(shard_set, part)
            for text, label in zip(texts.to_pylist(), labels.tolist(), strict=True)
        )
        for part in PARTS
    }


def check_ingest(rows, suffix):
    """Every document once, to the byte; the same split, whatever the order and format."""
    config, tokens = IngestConfig(valid="0.3"), TokenizerConfig(vocab_size=50)
    with tempfile.TemporaryDirectory() as folder:
        one = write(Path(folder, "in" + suffix), rows)
        made = ingest([one], Path(folder, "out"), config, tokens)
        found = docs(made)
        assert sum(found.values(), Counter()) == Counter(rows)
        assert made.counts["rows_read"] == made.counts["rows_kept"] == len(rows)
        assert {*made.labels, *made.unseen_labels} == {label for _, label in rows}
        manifest = json.loads(Path(folder, "out", "manifest.json").read_bytes())
        assert tuple(manifest["labels"]) == open_shards(made.folder).labels == made.labels
        assert sorted(p.name for p in Path(folder).iterdir()) == ["in" + suffix, "out"]
        two = write(Path(folder, "in2.parquet"), rows[::-1])
        again = ingest([two], Path(folder, "again"), config, tokens)
        assert docs(again) == found
        assert again.labels == made.labels


rows = st.lists(st.tuples(hostile.texts, hostile.labels), max_size=8).map(lambda some: some + BASE)
suffixes = st.sampled_from([".csv", ".jsonl", ".parquet"])


@hostile.QUICK
@given(rows, suffixes)
def test_any_text_and_label(rows, suffix):
    check_ingest(rows, suffix)


@pytest.mark.slow
@hostile.THOROUGH
@given(rows, suffixes)
def test_many_texts_and_labels(rows, suffix):
    check_ingest(rows, suffix)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_large_words_and_long_texts(suffix):
    check_ingest([(text, "large") for text in hostile.LARGE] + BASE, suffix)


@hostile.QUICK
@given(st.lists(st.one_of(hostile.labels, hostile.texts)))
def test_labels_come_back_from_their_file(labels):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "labels.txt")
        write_lines(path, labels)
        assert read_lines(path) == labels
        assert path.read_bytes().count(b"\n") == len(labels)


@hostile.QUICK
@given(hostile.texts)
def test_what_the_report_shows_is_harmless(text):
    shown = escape(text)
    assert not set(shown) & set("<>\"'\0\x1b\x9b\n\r\u202e\u2066\u2028")
    assert shown.encode() or not text


@pytest.mark.parametrize("module", ["tfdata.ingest", pytest.param("train", marks=pytest.mark.slow)])
def test_the_command_on_a_damaged_file(tmp_path, module):
    """In a process of its own: exit code 2, one line, and no trace in any folder."""
    path, cache = tmp_path / "a.parquet", tmp_path / "cache"
    pq.write_table(pa.table({"text": ["a b c"] * 9000, "label": ["x", "y", "z"] * 3000}), path)
    content = bytearray(path.read_bytes())
    content[4:24] = b"\xff" * 20
    path.write_bytes(content)
    flags = ["--data"] if module == "train" else []
    argv = [sys.executable, "-m", module, *flags, str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=100,
                          env=os.environ | {"SHORTLINE_CACHE": str(cache)})  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {path}: truncated, damaged or unreadable: ")
    assert {p.name for p in tmp_path.rglob("*")} - {"cache"} == {"a.parquet"}


@pytest.mark.slow
def test_a_minute_of_fuzzing(tmp_path):
    counts = fuzz(1.0, seed=99, keep=tmp_path)
    assert counts["files"] > 100
    assert counts["findings"] == 0, [path.read_text() for path in tmp_path.glob("*.txt")]
