"""What unpacks to more than it should, and what Arrow does beside us: bounded, and ended."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortline import UserError
from tests.test_hostile_read import read, read_table
from tfdata import parquet_table
from tfdata.read import read_table_batches

ROOT = Path(__file__).parents[1]


def test_dictionaries_are_decoded_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_table, "_PIECE_BYTES", 1000)
    random = np.random.default_rng(0)
    some = ["x" * 300, "é" * 200, "", None, "short"]
    rows = [(some[i], f"c{i % 3}") for i in random.integers(0, 5, 500)]
    table = pa.table({"text": [t for t, _ in rows], "label": [c for _, c in rows]})
    typed = table.set_column(0, "text", table["text"].dictionary_encode())
    for content in (table, typed):
        pq.write_table(content, tmp_path / "a.parquet", row_group_size=90)
        sizes = read_table(tmp_path / "a.parquet")
        assert sum(sizes) == 500
        assert max(sizes) < 30
        assert read(tmp_path / "a.parquet") == [row for row in rows if row[0] is not None]
        assert pa.Table.from_batches(read_table_batches(tmp_path / "a.parquet")[1]) == content
    monkeypatch.setattr(parquet_table, "MAX_GROUP_BYTES", 10_000)
    with pytest.raises(UserError, match=r"a\.parquet: a row group unpacks to more than"):
        read(tmp_path / "a.parquet")


BOMBS = """
import re, sys
from pathlib import Path
from shortline import UserError
from tfdata.config import IngestConfig
from tfdata.raw import ReadCounts
from tfdata.read import read_documents
try:
    for batch in read_documents(Path(sys.argv[1]), IngestConfig(), ReadCounts()):
        del batch
except UserError as error:
    print(error)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
SIZE = 256 << 20


def write_bomb(path: Path) -> Path:
    """256 MiB, or a TiB, in less than 2 MB."""
    if path.name == "line.csv.gz":
        path.write_bytes(
            gzip.compress(b"text,label\n") + pa.compress(b"x" * SIZE, "gzip").to_pybytes()
        )
    elif path.name == "line.jsonl.zst":
        path.write_bytes(pa.compress(b'{"text": "' + b"x" * SIZE, "zstd").to_pybytes())
    else:
        rows = 150_000
        index = pa.array(np.zeros(rows, np.int32))
        texts = pa.DictionaryArray.from_arrays(index, pa.array(["x" * (8 << 20)]))
        table = pa.table({"text": texts, "label": ["a"] * rows})
        pq.write_table(table, path, dictionary_pagesize_limit=SIZE, write_statistics=False,
                       store_schema=path.name == "typed.parquet")  # fmt: skip
    assert path.stat().st_size < 2_000_000
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("name", "said"), [
    ("line.csv.gz", "a row after row 1 is longer than 16 MiB"),
    ("line.jsonl.zst", "line 1 is longer than 16 MiB"),
    ("plain.parquet", "a row group unpacks to more than 16 GiB"),
    ("typed.parquet", "a row group unpacks to more than 16 GiB"),
])  # fmt: skip
def test_bombs_take_little_memory(tmp_path, name, said):
    path = write_bomb(tmp_path / name)
    argv = [sys.executable, "-c", BOMBS, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    *message, peak = done.stdout.splitlines()
    assert said in message[0]
    assert int(peak) < 300_000, "KiB; 90,000 of them are the interpreter with Arrow"


def test_a_text_beyond_the_limit_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_table, "MAX_ROW_BYTES", 1000)
    for texts in (pa.array(["a", "x" * 999, "é" * 501]), pa.array([b"a", None, b"x" * 1001])):
        pq.write_table(pa.table({"text": texts, "label": list("abc")}), tmp_path / "a.parquet")
        with pytest.raises(UserError, match=r"a\.parquet: row 3 has a `text` of more than"):
            read(tmp_path / "a.parquet")


READ = """
import sys
from pathlib import Path
from shortline import run_command
from tfdata.config import IngestConfig
from tfdata.raw import ReadCounts
from tfdata.read import read_documents
def main(_):
    for batch in read_documents(Path(sys.argv[1]), IngestConfig(), ReadCounts()):
        del batch
run_command(main)
"""


@pytest.mark.parametrize("name", ["a.csv", pytest.param("a.csv.gz", marks=pytest.mark.slow)])
def test_an_error_early_in_a_large_csv_file(tmp_path, name):
    """Arrow's thread, blocks ahead of the error, must not end the process by a signal, or hang."""
    content = b"text,label\n" + b"a,b,c\n" + b"some text or other,label\n" * 2_500_000
    path = tmp_path / name
    path.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True,
                              text=True, cwd=ROOT, timeout=60)  # fmt: skip
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert done.stderr.startswith(f"error: {path}: row 2 ")
