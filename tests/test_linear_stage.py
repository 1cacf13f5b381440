"""The linear classifier of a training: what is scored is what then answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import train
from model.calibration import Calibration
from model.checkpoint import load_checkpoint
from model.examination import ask
from model.infer import build_infer
from model.opened import open_run
from shortline import EXIT_STOPPED, UserError
from tfdata.shards import open_shards

WORDS = ["--epochs", "2", "--gpus", "none", "--hidden", "8", "--embedding-dim", "8",
         "--pairs", "64", "--pieces", "64", "--long-tail", "none"]  # fmt: skip


def read_summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def run(small_shards, tmp_path_factory) -> Path:
    """Of a network so small that the linear classifier must help."""
    out = tmp_path_factory.mktemp("linear") / "run"
    assert train.main([*WORDS, "--data", str(small_shards.folder), "--out", str(out)]) == 0
    return out


def score_as_used(run: Path, shards: Path) -> float:
    opened = open_run(run)
    logits, labels = ask(build_infer(opened, has_gpu=False), opened, open_shards(shards), "valid")
    return float((logits.argmax(axis=1) == labels).mean())


def test_what_is_scored_is_what_answers(run, small_shards):
    summary = read_summary(run)
    linear = summary["linear"]
    assert linear["weight"] > 0
    assert sum(linear["after"]) > sum(linear["before"])
    assert summary["accuracy"] == pytest.approx(score_as_used(run, small_shards.folder), abs=1e-6)
    assert summary["accuracy"] > linear["before"][0]


def test_replicas_answer_alike(run, small_shards, tmp_path):
    out = tmp_path / "run"
    words = [*WORDS, "--data", str(small_shards.folder), "--out", str(out), "--cpu-replicas", "2"]
    assert train.main(words) == 0
    assert read_summary(out)["linear"]["weight"] == read_summary(run)["linear"]["weight"]
    assert read_summary(out)["accuracy"] == pytest.approx(read_summary(run)["accuracy"], abs=2e-3)
    assert read_summary(out)["accuracy"] == pytest.approx(
        score_as_used(out, small_shards.folder), abs=1e-6
    )


def test_finishing_twice_gives_the_same(run, capsys):
    before, scores = load_checkpoint(run / "linear.npz")[0], read_summary(run)
    (run / "summary.json").unlink()
    (run / "linear.npz").write_bytes(b"of a finish that was killed")
    assert train.main(["--resume", str(run), "--gpus", "none"]) == 0
    after = load_checkpoint(run / "linear.npz")[0]
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])
    again = read_summary(run)
    assert {key: again[key] for key in ("accuracy", "macro_f1", "loss")} == {
        key: scores[key] for key in ("accuracy", "macro_f1", "loss")
    }
    assert "linear classifier" in capsys.readouterr().out


def test_an_interrupted_finish_leaves_what_answered(run, monkeypatch):
    """As it was before: a resumed run that is done begins its end anew."""

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    before = load_checkpoint(run / "linear.npz")[0]["weights"]
    monkeypatch.setattr("model.linear_stage.fit_linear", interrupt)
    assert train.main(["--resume", str(run), "--gpus", "none"]) == EXIT_STOPPED
    np.testing.assert_array_equal(load_checkpoint(run / "linear.npz")[0]["weights"], before)


def test_a_run_that_lost_it_does_not_answer(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "linear.npz").unlink()
    with pytest.raises(UserError, match=r"linear\.npz: is missing.*--resume"):
        open_run(copy)
    for words in (["--linear", "auto"], ["--linear", "none"]):
        assert train.main(["--resume", str(copy), "--gpus", "none", *words]) == 0
        assert (open_run(copy).linear is None) == (words[1] == "none")
    assert read_summary(copy)["accuracy"] < read_summary(run)["accuracy"]


def test_without(small_shards, tmp_path):
    out = tmp_path / "run"
    words = [*WORDS, "--data", str(small_shards.folder), "--out", str(out), "--linear", "none"]
    assert train.main(words) == 0
    assert "linear" not in read_summary(out)
    assert not (out / "linear.npz").exists()
    opened = open_run(out)
    assert opened.linear is None
    assert opened.calibration != Calibration()
