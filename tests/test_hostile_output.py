"""What predict and export write: labels exact, no formulas, nothing that steers or runs."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import pty
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.protobuf import saved_model_pb2

from model.export import export_run
from model.opened import open_run
from model.predict import _escape, main
from model.table import Rows, open_table
from tests import hostile
from tests.small_run import make_run

ROOT = Path(__file__).parents[1]
LABELS = tuple(dict.fromkeys(hostile.NASTY))
CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FORMULA = re.compile(r"[=+\-@\t\r\n]")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), labels=LABELS)


def write_labels(labels, kind):
    """A table of these labels, as predict would write them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out." + kind)
        texts = pa.array([str(i) for i in range(len(labels))])
        columns = [pa.array(labels, pa.string()), pa.array(np.ones(len(labels), np.float32))]
        with open_table(out, kind) as table:
            rows = Rows(texts, columns=pa.RecordBatch.from_arrays([texts], ["text"]))
            table.write(rows, pa.RecordBatch.from_arrays(columns, ["label", "probability"]))
        if kind == "parquet":
            return pq.read_table(out)["label"].to_pylist()
        content = out.read_bytes().decode()
        if kind == "jsonl":
            return [json.loads(line)["label"] for line in content.split("\n")[:-1]]
        delimiter = "\t" if kind == "tsv" else ","
        return [
            row["label"]
            for row in csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter)
        ]


some_labels = st.lists(st.one_of(hostile.texts, hostile.labels), min_size=1)


@hostile.QUICK
@given(some_labels, st.sampled_from(["parquet", "jsonl"]))
def test_labels_are_written_exactly(labels, kind):
    assert write_labels(labels, kind) == labels


@hostile.QUICK
@given(some_labels, st.sampled_from(["csv", "tsv"]))
def test_no_label_is_a_formula(labels, kind):
    for label, written in zip(labels, write_labels(labels, kind), strict=True):
        assert written in (label, "'" + label)
        if FORMULA.match(written):
            float(written.rstrip("%"))
        else:
            assert written == label or FORMULA.match(label)


@pytest.mark.parametrize("label", ["-1", "+1.5e3", "0", "a=b", "x", "-.5", "'=1"])
def test_numbers_and_the_rest_are_left_alone(label):
    assert write_labels([label, "other"], "csv") == [label, "other"]


@pytest.mark.parametrize("label", ["=1", "+a", "-a", "@a", "\t=1", "\r=1", "＝1", "-1+cmd()"])
def test_formulas_are_not(label):
    assert write_labels([label, "other"], "csv") == ["'" + label, "other"]


def test_a_run_keeps_its_labels(run, tmp_path):
    """Through labels.txt, a table of predictions and the export."""
    assert open_run(run.paths.folder).labels == LABELS
    texts = [f"word{i} word{i * 7 % 200}" for i in range(300)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    main([str(run.paths.folder), str(tmp_path / "in.parquet"), "--out", str(tmp_path / "o.parquet"),
          "--top-k", str(len(LABELS))])  # fmt: skip
    found = pq.read_table(tmp_path / "o.parquet")
    names = [name for name in found.column_names if name.startswith("label")]
    for row in found.select(names).to_pylist():
        assert sorted(row.values()) == sorted(LABELS)
    export_run(run, tmp_path / "export")
    call = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    served = [label.decode() for label in call(text=tf.constant(texts))["label"].numpy()]
    assert served == found["label"].to_pylist()
    assert len({*served}) > 5  # else equality would say little


def test_the_export_is_data(run, tmp_path):
    """No Python, no pickle, no op that runs any: what a SavedModel of TensorFlow's own ops is."""
    export_run(run, tmp_path / "export")
    files = {str(p.relative_to(tmp_path / "export")) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {
        "README.txt", "fingerprint.pb", "labels.txt", "saved_model.pb",
        "variables/variables.data-00000-of-00001", "variables/variables.index",
    }  # fmt: skip
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((tmp_path / "export" / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node}
    ops |= {node.op for function in graph.library.function for node in function.node_def}
    assert not [op for op in ops if re.search("PyFunc|ReadFile|WriteFile|Exec|Socket", op)], ops
    assert "MatMul" in ops


@hostile.QUICK
@given(st.lists(st.one_of(hostile.texts, hostile.labels), min_size=1))
def test_lines_of_stdout_do_not_steer(labels):
    """And say exactly which label it is."""
    escaped = _escape(pa.array(labels)).to_pylist()
    for label, shown in zip(labels, escaped, strict=True):
        assert not CONTROL.search(shown)
        assert not set("\t\n") & set(shown)
        meant = re.sub(r"\\(\\|[tnr]|x..|u....|U........)", _unescape, shown)
        assert meant == label


def _unescape(match):
    return match[0].encode().decode("unicode_escape")


def test_a_table_on_a_terminal_does_not_steer(monkeypatch):
    read_end, write_end = pty.openpty()
    with os.fdopen(write_end, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        texts = pa.array(["\x1b[2J", "\u202eevil", "\x9b1m", "plain é"])
        columns = [pa.array(["\x1b]0;title\x07"] * 4), pa.array(np.ones(4, np.float32))]
        with open_table(None, "csv") as table:
            rows = Rows(texts, columns=pa.RecordBatch.from_arrays([texts], ["text"]))
            table.write(rows, pa.RecordBatch.from_arrays(columns, ["label", "probability"]))
        terminal.flush()
        shown = os.read(read_end, 10_000).decode()
    os.close(read_end)
    assert not CONTROL.search(shown.replace("\r\n", "\n"))
    assert r"\x1b[2J" in shown
    assert "plain é" in shown


def test_no_module_unpickles_or_evaluates():
    """Nor starts a shell, nor loads YAML or arrays in a way that can."""
    modules = [ROOT / "shortline.py", ROOT / "train.py"]
    for package in ("tfdata", "model", "labels"):
        modules += (ROOT / package).rglob("*.py")
    seen_load = 0
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "compile", "os.system", "os.popen", "__import__")
            assert called not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"), module
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert words.get("shell", "False") == "False", module
            if called in ("np.load", "numpy.load"):
                seen_load += 1
                assert words["allow_pickle"] == "False", module
    assert seen_load
