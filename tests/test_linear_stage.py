"""The linear classifier of a training: what is scored is what then answers."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import train
from model import evaluate, linear_stage, predict, refit
from model.calibration import Calibration, calibrate, quantiles, read_calibration
from model.checkpoint import load_checkpoint
from model.examination import ask, check_test
from model.infer import build_infer
from model.linear import LinearWeights, from_arrays, to_arrays
from model.linear_stage import LinearStage
from model.mixture import LEAST_DOCS
from model.opened import Run, keep_answers, open_run
from model.scope import energy
from shortline import EXIT_STOPPED, UserError
from tests.runs import read_summary
from tfdata.config import PipelineConfig
from tfdata.shards import ShardSet, read_batches

WORDS = ["--epochs", "2", "--gpus", "none", "--hidden", "8", "--embedding-dim", "8",
         "--pairs", "64", "--pieces", "64", "--long-tail", "none"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tested_shards, tmp_path_factory) -> Path:
    """Of a network so small that the linear classifier must help."""
    out = tmp_path_factory.mktemp("linear") / "run"
    assert train.main([*WORDS, "--data", str(tested_shards.folder), "--out", str(out)]) == 0
    return out


def score_as_used(run: Path, shards: ShardSet, part: str) -> float:
    opened = open_run(run)
    logits, labels = ask(build_infer(opened, has_gpu=False), opened, shards, part)
    return float((logits.argmax(axis=1) == labels).mean())


def test_what_is_scored_on_test_documents_is_what_answers(run, tested_shards):
    summary = read_summary(run)
    assert summary["linear"]["weight"] > 0
    assert sum(summary["linear"]["after"]) > sum(summary["linear"]["before"])
    assert summary["accuracy"] > summary["linear"]["before"][0]
    found = score_as_used(run, tested_shards, "test")
    assert summary["test"]["accuracy"] == pytest.approx(found, abs=1e-6)
    serve = tf.saved_model.load(str(run / "export")).signatures["serving_default"]
    texts, labels = next(iter(read_batches(tested_shards, "test", batch_docs=600)))
    exported = serve(text=tf.constant(texts.to_pylist()))["probabilities"].numpy().argmax(axis=1)
    assert (exported == labels).mean() == pytest.approx(found, abs=1e-6)


def make_stage(shards: Any, config: PipelineConfig | None = None) -> LinearStage:
    """One that is not attached to a classifier."""
    nothing: Any = None
    return LinearStage(
        nothing, nothing, shards, config or PipelineConfig(), 0, may_refit=True, weighs_rare=False
    )


def fit(opened: Run, shards: ShardSet, parts: tuple[str, ...]) -> LinearWeights:
    linear = make_stage(shards)._fit(opened, parts, threading.Event())
    assert linear is not None
    return linear


def test_validation_documents_are_scored_before_they_are_learned_from(run, tested_shards):
    """And then they are: what is kept is that of both parts, at the weight they chose."""
    summary, kept = read_summary(run), load_checkpoint(run / "linear.npz")[0]
    assert summary["linear_refit"]["seconds"] > 0
    opened, weight = open_run(run, is_finished=False), summary["linear"]["weight"]
    before, both = (fit(opened, tested_shards, parts) for parts in (("train",), ("train", "valid")))
    for name, array in to_arrays(both.scaled(weight)).items():
        np.testing.assert_array_equal(kept[name], array, err_msg=name)
    before = from_arrays(to_arrays(before.scaled(weight)))
    scored = dataclasses.replace(opened, linear=before)
    infer = build_infer(scored, has_gpu=False)
    logits, labels = ask(infer, scored, tested_shards, "valid")
    assert summary["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean(), abs=1e-6)
    assert score_as_used(run, tested_shards, "valid") > summary["accuracy"]
    found = calibrate(logits, labels)
    assert found is not None
    temperature, check = found
    calibration = read_calibration(run / "calibration.json")
    assert calibration.temperature == summary["temperature"] == pytest.approx(temperature, abs=1e-6)
    energies = quantiles(energy(tf.constant(logits), temperature).numpy())
    np.testing.assert_allclose(calibration.energies, energies, atol=1e-5)
    assert summary["calibration"]["ece_after"] == pytest.approx(check.summary()["ece_after"])
    answering = open_run(run)
    on_test = check_test(answering, tested_shards)
    assert summary["calibration"]["test"] == pytest.approx(on_test)
    earlier = dataclasses.replace(answering, linear=before)
    assert check_test(earlier, tested_shards)["ece_after"] != on_test["ece_after"]
    report = (run / "report.html").read_text()
    assert "had not learned from them" in report
    assert f"<dd>× {weight:g}</dd>" in report


def test_many_documents_are_fitted_to_once(run, tested_shards, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    monkeypatch.setattr(refit, "MOST_DOCS", 100)
    assert train.main(["--resume", str(copy), "--gpus", "none"]) == 0
    assert "linear_refit" not in read_summary(copy)
    assert read_summary(copy)["accuracy"] == pytest.approx(
        score_as_used(copy, tested_shards, "valid")
    )
    assert read_summary(copy)["accuracy"] == pytest.approx(read_summary(run)["accuracy"])


def test_pieces_are_left_out_where_there_are_many_words(run, tested_shards, monkeypatch):
    opened = open_run(run, is_finished=False)
    few = fit(opened, tested_shards, ("train",))
    assert few.pieces.any()
    monkeypatch.setattr(linear_stage, "_MOST_TOKENS_WITH_PIECES", 100)
    many = fit(opened, tested_shards, ("train",))
    assert not many.pieces.size
    assert len(many.features) < len(few.features)


def test_windows_of_both_parts_are_fitted_as_one(run, tested_shards):
    """In `stream` residency a part comes in several windows; the last are of validation."""
    opened, parts = open_run(run, is_finished=False), ("train", "valid")
    whole = fit(opened, tested_shards, parts)
    config = PipelineConfig(residency="stream", window_docs=500)
    linear = make_stage(tested_shards, config)._fit(opened, parts, threading.Event())
    assert linear is not None
    np.testing.assert_array_equal(linear.features, whole.features)
    np.testing.assert_array_equal(linear.idf, whole.idf)
    seen = [
        dataclasses.replace(opened, linear=one) for one in (whole, linear)
    ]  # fmt: skip
    answers = [
        ask(build_infer(one, has_gpu=False), one, tested_shards, "test")[0].argmax(axis=1)
        for one in seen
    ]
    assert (answers[0] == answers[1]).mean() > 0.97


def test_replicas_answer_alike(run, tested_shards, tmp_path):
    out = tmp_path / "run"
    words = [*WORDS, "--data", str(tested_shards.folder), "--out", str(out), "--cpu-replicas", "2"]
    assert train.main(words) == 0
    assert read_summary(out)["linear"]["weight"] == read_summary(run)["linear"]["weight"]
    assert read_summary(out)["accuracy"] == pytest.approx(read_summary(run)["accuracy"], abs=2e-3)
    assert read_summary(out)["test"]["accuracy"] == pytest.approx(
        score_as_used(out, tested_shards, "test"), abs=1e-6
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


@pytest.mark.parametrize("nth", [1, 2])
def test_an_interrupted_finish_leaves_what_answered(run, tmp_path, monkeypatch, nth):
    """As it was before: a resumed run that is done begins its end anew."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    fits = itertools.count(1)
    fit_linear = linear_stage.fit_linear

    def interrupt(*args, **kwargs):
        if next(fits) == nth:
            raise KeyboardInterrupt
        return fit_linear(*args, **kwargs)

    monkeypatch.setattr("model.linear_stage.fit_linear", interrupt)
    words = ["--resume", str(copy), "--gpus", "none"]
    assert train.main(words) == EXIT_STOPPED
    for name in ("linear.npz", "calibration.json", "summary.json", "report.html"):
        assert (copy / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.parametrize("kept", ["with", "without"])
@pytest.mark.parametrize("failing", ["write_linear", "write_calibration"])
def test_killed_between_its_files_a_run_can_be_opened(run, tmp_path, monkeypatch, kept, failing):
    """Whether it had a linear classifier before, and whether it is to have one."""
    for had in ("with", "without"):
        copy = tmp_path / had
        shutil.copytree(run, copy)
        opened = open_run(copy)
        bare = dataclasses.replace(opened, linear=None)
        keep_answers(opened if had == "with" else bare)

        def fail(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            patched.setattr(f"model.opened.{failing}", fail)
            keep_answers(opened if kept == "with" else bare)
        open_run(copy)
        keep_answers(opened if kept == "with" else bare)
        assert (open_run(copy).linear is not None) == (kept == "with")


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


@pytest.mark.parametrize("long_tail", ["auto", "none"])
def test_rare_classes_are_weighed_where_the_long_tail_counts(
    long_tail, small_shards, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        linear_stage, "fit_linear", lambda *_, weighs_rare, **__: asked.append(weighs_rare)
    )
    words = [*WORDS, "--epochs=1", "--refit=none", f"--long-tail={long_tail}"]
    words += ["--data", str(small_shards.folder), "--out", str(tmp_path / "run")]
    assert train.main(words) == 0
    assert asked == [long_tail == "auto"]


def test_without(small_shards, tmp_path):
    out = tmp_path / "run"
    words = [*WORDS, "--data", str(small_shards.folder), "--out", str(out), "--linear", "none"]
    assert train.main(words) == 0
    assert "linear" not in read_summary(out)
    assert not (out / "linear.npz").exists()
    opened = open_run(out)
    assert opened.linear is None
    assert opened.calibration != Calibration()


def test_a_small_validation_part_is_told(run, capsys):
    opened = open_run(run, is_finished=False)
    few = SimpleNamespace(num_docs=lambda part: LEAST_DOCS - 1, labels=opened.labels)
    assert make_stage(few).add(opened) == (opened, {})
    assert "validation part of 100 or more" in capsys.readouterr().out


def test_who_asks_an_unfinished_run_is_told(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (tmp_path / "new.csv").write_text("text\nsome words\n")
    words = [str(copy), str(tmp_path / "new.csv"), "--gpus", "none"]
    assert predict.main(words) == 0
    assert "not finished" not in capsys.readouterr().err
    (copy / "calibration.json").unlink()
    assert predict.main(words) == 0
    assert (
        f"not calibrated; to finish it: python train.py --resume {copy}" in capsys.readouterr().err
    )


def test_the_part_that_is_scored_is_named(run, tested_shards, capsys):
    for part, is_seen in (("test", False), ("valid", True)):
        words = ["--data", str(tested_shards.folder), "--part", part, "--gpus", "none"]
        assert evaluate.main([str(run), *words]) == 0
        out = capsys.readouterr().out
        assert f"the {part} part of {tested_shards.folder}:" in out
        assert (f"may have learned from its {part} part" in out) == is_seen
