"""`--engine ray` gives the very bytes that one process does, and its errors and leaves no more."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortline import UserError
from tfdata import ray_engine, shard_writer, shuffle
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.ingest import EngineConfig, ingest, main
from tfdata.shard_writer import ShardWriter
from tfdata.shards import COLUMNS

ROOT = Path(__file__).parents[1]
RAY = EngineConfig(engine="ray")


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two CPUs, which every ingest of this module joins."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(ROOT))
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def write_files(folder: Path, num_docs: int) -> Path:
    """CSV, JSONL and Parquet in one folder; an empty file comes first.

    With duplicates, texts of several labels, a rare class, a label that is the name of a folder,
    and rows that lack something.
    """
    random = np.random.default_rng(0)
    numbers = random.integers(num_docs // 2, size=num_docs)
    classes = random.integers(9, size=num_docs)
    rows = [(f"text {n} word{n % 5_000}", f"c{c}") for n, c in zip(numbers, classes, strict=True)]
    rows += [("rare", "r"), ("rarer", "r"), ("rarest \ufffd", "r"), ("", "c1"), ("none", "")]
    rows = [rows[i] for i in random.permutation(len(rows))]
    first, second, third = (rows[i::3] for i in range(3))
    (folder / "label=c3").mkdir(parents=True)
    (folder / "a.csv").write_text("")
    with gzip.open(folder / "b.csv.gz", "wt", newline="") as file:
        file.write("text,label\n" + "".join(f"{text},{label}\n" for text, label in first))
    lines = (json.dumps({"text": text, "label": label or None}) for text, label in second)
    (folder / "c.jsonl").write_text("\n".join(lines))
    pq.write_table(pa.table({"text": [text for text, _ in third]}), folder / "label=c3" / "d.pq")
    return folder


def make(out: Path, engine: EngineConfig, inputs: Path, tokens: TokenizerConfig, **config):
    return ingest([inputs], out, IngestConfig(**config), tokens, engine=engine)


def assert_same_bytes(one: Path, other: Path) -> None:
    files = sorted(path.name for path in one.iterdir())
    assert files == sorted(path.name for path in other.iterdir())
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["word", "wordpiece"])
def test_the_same_bytes_as_one_process(tmp_path, cluster, monkeypatch, tokenizer):
    """With several buckets, and row groups and shards that end between and within them."""
    monkeypatch.setattr(shuffle, "_BUCKET_BYTES", 1_000_000)
    inputs = write_files(tmp_path / "in", 190_000 if tokenizer == "word" else 20_000)
    tokens = TokenizerConfig(tokenizer=tokenizer, vocab_size=500)
    config = {"valid": "0.1", "test": "0.15"}
    local = make(tmp_path / "local", EngineConfig(), inputs, tokens, **config)
    if tokenizer == "word":
        assert len(local.parts["train"]) > 1
    make(tmp_path / "ray", RAY, inputs, tokens, **config)
    assert_same_bytes(tmp_path / "local", tmp_path / "ray")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "local", "ray"]


@pytest.mark.slow
def test_a_bucket_beyond_its_estimate_is_shuffled_alike(tmp_path, cluster):
    """A gzip file of almost one text is taken for a fifth of what it is."""
    with gzip.open(tmp_path / "a.csv.gz", "wt", compresslevel=1) as file:
        file.write("text,label\n")
        file.writelines(f"{i} {'x' * 7_000},c{i % 7}\n" for i in range(30_000))
    tokens = TokenizerConfig(vocab_size=500)
    for engine in (EngineConfig(), RAY):
        make(tmp_path / engine.engine, engine, tmp_path / "a.csv.gz", tokens)
    assert_same_bytes(tmp_path / "local", tmp_path / "ray")


@pytest.mark.slow
def test_an_error_in_a_task_is_the_same_line_and_leaves_nothing(tmp_path, cluster):
    inputs = tmp_path / "in"
    inputs.mkdir()
    for name in "ab":
        rows = "".join(f"t {i},c{i % 3}\n" for i in range(1_000))
        (inputs / f"{name}.csv").write_text("text,label\n" + rows)
    with open(inputs / "b.csv", "a") as file:
        file.write("one,two,three\n")
    said = []
    for engine in (EngineConfig(), RAY):
        with pytest.raises(UserError, match=r"b\.csv: row 1002 .* has 3 columns") as raised:
            make(tmp_path / "out", engine, inputs, TokenizerConfig())
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.slow
def test_sigterm_stops_the_tasks_and_leaves_nothing(tmp_path):
    pytest.importorskip("ray")
    inputs = write_files(tmp_path / "in", 150_000)
    command = [sys.executable, "-m", "tfdata.ingest", str(inputs), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--engine", "ray"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".out.*.tmp/work/*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (130, "error: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.csv").write_text("text,label\na,b\nc,d\n")
    with pytest.raises(UserError, match=r"Ray is not installed .*pip install -e '\.\[ray\]'"):
        main([str(tmp_path / "a.csv"), "--out", str(tmp_path / "out"), "--engine", "ray"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_an_address_where_nothing_answers(tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "a.csv").write_text("text,label\na,b\nc,d\n")
    argv = [str(tmp_path / "a.csv"), "--out", str(tmp_path / "out"), "--engine", "ray"]
    with socket.socket() as bound:  # not listening
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--ray-address {address}: nothing answers there"):
            main([*argv, "--ray-address", address])
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_an_address_needs_the_engine(tmp_path):
    argv = [str(tmp_path), "--out", str(tmp_path / "out"), "--ray-address", "head:6379"]
    with pytest.raises(UserError, match="--ray-address head:6379: needs --engine ray"):
        main(argv)


@pytest.mark.parametrize("seed", range(5))
def test_shards_are_planned_as_the_writer_ends_them(tmp_path, monkeypatch, seed):
    for module in (shard_writer, ray_engine):
        monkeypatch.setattr(module, "ROW_GROUP_DOCS", 50)
        monkeypatch.setattr(module, "SHARD_DOCS", 200)
        monkeypatch.setattr(module, "SHARD_BYTES", 12_000)
    random = np.random.default_rng(seed)
    pieces, filled = [], 0
    with ShardWriter(tmp_path, "train") as writer:
        for _ in range(60):
            size = random.integers(1, 51 - filled)  # never over the end of a row group
            texts = pa.array(["x" * random.integers(40 + 4 * len(pieces)) for _ in range(size)])
            labels = np.zeros(size, np.int32)
            batch = pa.record_batch([texts, pa.array(labels)], schema=COLUMNS)
            pieces.append(ray_engine.Piece(0, len(pieces), size, batch.nbytes))
            filled = (filled + size) % 50
            writer.write(texts, labels)
        written = [shard.num_docs for shard in writer.finish()]
    planned = ray_engine.plan_shards(pieces)
    assert [sum(piece.num_docs for piece in shard) for shard in planned] == written
    assert [piece for shard in planned for piece in shard] == pieces
    assert {200, 100} <= set(written), "some end by documents, some by bytes"


@pytest.mark.slow
def test_the_same_bytes_by_time(tmp_path, cluster):
    folder = tmp_path / "in"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, rows in zip("ab", np.array_split(random.permutation(3_000), 2), strict=True):
        lines = [f"text {i},c{i % 7},{2000 + i // 200 if i % 9 else ''}\n" for i in rows]
        (folder / f"{name}.csv").write_text("text,label,year\n" + "".join(lines))
    for engine in (EngineConfig(), RAY):
        config = {"split": "time", "time": "year", "test": "0.1"}
        made = make(tmp_path / engine.engine, engine, folder, TokenizerConfig(), **config)
        assert made.counts["without_time"] == 334
    assert_same_bytes(tmp_path / "local", tmp_path / "ray")
