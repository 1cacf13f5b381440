"""The linear classifier of a training: what is scored is what then answers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import train
from model import linear_stage
from model.calibration import Calibration, read_calibration
from model.checkpoint import load_checkpoint
from model.examination import ask
from model.infer import build_infer
from model.linear import to_arrays
from model.opened import open_run
from shortline import EXIT_STOPPED, UserError
from tfdata.config import IngestConfig, PipelineConfig, TokenizerConfig
from tfdata.ingest import ingest
from tfdata.shards import ShardSet, read_batches
from tfdata.synthetic import write_corpus

WORDS = ["--epochs", "2", "--gpus", "none", "--hidden", "8", "--embedding-dim", "8",
         "--pairs", "64", "--pieces", "64", "--long-tail", "none"]  # fmt: skip


def read_summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    """Of generated documents that train, validate and test."""
    folder = tmp_path_factory.mktemp("tested")
    write_corpus(folder / "corpus.parquet", 2_400, num_classes=12)
    return ingest(
        [folder / "corpus.parquet"], folder / "shards",
        IngestConfig(valid="0.2", test="0.2"), TokenizerConfig(vocab_size=2_000),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory) -> Path:
    """Of a network so small that the linear classifier must help."""
    out = tmp_path_factory.mktemp("linear") / "run"
    assert train.main([*WORDS, "--data", str(shards.folder), "--out", str(out)]) == 0
    return out


def score_as_used(run: Path, shards: ShardSet, part: str) -> float:
    opened = open_run(run)
    logits, labels = ask(build_infer(opened, has_gpu=False), opened, shards, part)
    return float((logits.argmax(axis=1) == labels).mean())


def test_what_is_scored_on_test_documents_is_what_answers(run, shards):
    summary = read_summary(run)
    assert summary["linear"]["weight"] > 0
    assert sum(summary["linear"]["after"]) > sum(summary["linear"]["before"])
    assert summary["accuracy"] > summary["linear"]["before"][0]
    found = score_as_used(run, shards, "test")
    assert summary["test"]["accuracy"] == pytest.approx(found, abs=1e-6)
    serve = tf.saved_model.load(str(run / "export")).signatures["serving_default"]
    texts, labels = next(iter(read_batches(shards, "test", batch_docs=600)))
    exported = serve(text=tf.constant(texts.to_pylist()))["probabilities"].numpy().argmax(axis=1)
    assert (exported == labels).mean() == pytest.approx(found, abs=1e-6)


def test_validation_documents_are_scored_before_they_are_learned_from(run, shards, monkeypatch):
    """And then they are: what is kept is that of both parts, at the weight they chose."""
    summary, kept = read_summary(run), load_checkpoint(run / "linear.npz")[0]
    assert summary["linear_refit"]["seconds"] > 0
    opened = open_run(run, has_linear=False)
    before, both = (
        linear_stage._fit(opened, shards, parts, PipelineConfig(), 0, threading.Event())
        for parts in (("train",), ("train", "valid"))
    )
    scaled = both.scaled(summary["linear"]["weight"])
    for name, array in to_arrays(scaled).items():
        np.testing.assert_array_equal(kept[name], array, err_msg=name)
    calibration = read_calibration(run / "calibration.json")
    scored = dataclasses.replace(
        opened, linear=before.scaled(summary["linear"]["weight"]), calibration=calibration
    )  # fmt: skip
    logits, labels = ask(build_infer(scored, has_gpu=False), scored, shards, "valid")
    assert summary["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean(), abs=1e-6)
    assert score_as_used(run, shards, "valid") > summary["accuracy"]


def test_many_documents_are_fitted_to_once(run, shards, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    monkeypatch.setattr(linear_stage, "_MOST_REFIT_DOCS", 100)
    assert train.main(["--resume", str(copy), "--gpus", "none"]) == 0
    assert "linear_refit" not in read_summary(copy)
    assert read_summary(copy)["accuracy"] == pytest.approx(score_as_used(copy, shards, "valid"))
    assert read_summary(copy)["accuracy"] == pytest.approx(read_summary(run)["accuracy"])


def test_pieces_are_left_out_where_there_are_many_words(run, shards, monkeypatch):
    opened = open_run(run, has_linear=False)
    stop = threading.Event()
    few = linear_stage._fit(opened, shards, ("train",), PipelineConfig(), 0, stop)
    assert few.pieces.any()
    monkeypatch.setattr(linear_stage, "_MOST_TOKENS_WITH_PIECES", 100)
    many = linear_stage._fit(opened, shards, ("train",), PipelineConfig(), 0, stop)
    assert not many.pieces.size
    assert len(many.features) < len(few.features)


def test_replicas_answer_alike(run, shards, tmp_path):
    out = tmp_path / "run"
    words = [*WORDS, "--data", str(shards.folder), "--out", str(out), "--cpu-replicas", "2"]
    assert train.main(words) == 0
    assert read_summary(out)["linear"]["weight"] == read_summary(run)["linear"]["weight"]
    assert read_summary(out)["accuracy"] == pytest.approx(read_summary(run)["accuracy"], abs=2e-3)
    assert read_summary(out)["test"]["accuracy"] == pytest.approx(
        score_as_used(out, shards, "test"), abs=1e-6
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
