"""Imports point one way, and what is exported to users needs no more than it says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPOSING = {
    "agreement", "build", "run", "opened", "flags", "finish", "infer", "rows", "predict",
    "evaluate", "export", "examination", "explain", "tune", "tune_study", "tune_trial",
    "linear_fit", "linear_stage", "pairs", "refit",
}  # fmt: skip
"""Modules of `model` that put a network and its input together, and so may know `tfdata`."""


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def test_tfdata_knows_nothing_above_it():
    for path in (ROOT / "tfdata").rglob("*.py"):
        assert not _packages(path) & {"model", "train", "bench", "labels"}, path.name


def test_the_network_knows_nothing_of_the_data():
    for path in (ROOT / "model").glob("*.py"):
        known = _packages(path) & {"tfdata", "train", "bench", "labels"}
        assert known <= ({"tfdata"} if path.stem in COMPOSING else set()), path.name
        if path.stem not in COMPOSING:
            assert not _imports(path) & {f"model.{name}" for name in COMPOSING}, path.name


def test_training_and_benchmarks_do_not_know_each_other():
    assert "bench" not in _packages(ROOT / "train.py")
    for path in (ROOT / "bench").rglob("*.py"):
        assert "train" not in _packages(path), path.name


def test_shortline_itself_knows_nothing():
    assert not _packages(ROOT / "shortline.py") & {"tfdata", "model", "train", "bench"}


@pytest.mark.parametrize(
    "command",
    [
        "train.py",
        "-m tfdata.ingest in.csv --out shards",
        "-m model.predict run",
        "-m model.evaluate run --data in.csv",
        "-m model.export run --out export",
        "-m bench.step_time",
    ],
)
def test_wrong_flags_are_answered_without_tensorflow(command, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('imported too early')")
    done = subprocess.run(
        [sys.executable, *command.split(), "--no-such-flag"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "--no-such-flag" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
