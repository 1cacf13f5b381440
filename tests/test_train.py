"""The whole way, by the command a user types: what it leaves, what it says, what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
import time

import numpy as np
import pytest
import yaml

import model.progress as progress
import train
from model.events import read_events
from shortline import UserError
from tests.runs import SMALL, arrays_of, same_weights
from tfdata.synthetic import write_corpus


def test_a_run_leaves_what_it_should(straight):
    for name in (
        "config.yaml", "metrics.jsonl", "summary.json", "report.html", "labels.txt", "vocab.txt",
        "checkpoints/last.npz", "checkpoints/best.npz", "export/saved_model.pb", "calibration.json",
    ):  # fmt: skip
        assert (straight / name).stat().st_size > 0, name
    assert list((straight / "tensorboard").iterdir())
    assert not [path for path in straight.rglob("*") if ".tmp" in path.name]


def test_summary_says_what_is_promised(straight, small_shards):
    summary = json.loads((straight / "summary.json").read_text())
    for name in (
        "num_train", "num_valid", "num_classes", "accuracy", "macro_f1", "loss", "best_epoch",
        "epoch_seconds", "docs_per_s", "startup_seconds", "route", "precision", "device",
        "padding_fraction", "seed", "versions", "temperature", "calibration",
    ):  # fmt: skip
        assert name in summary, name
    assert summary["num_train"] == small_shards.num_docs("train")
    assert len(summary["epoch_seconds"]) == 2
    assert 0 <= summary["padding_fraction"] <= 1 / 4 + 0.01
    events = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    best = max(epochs, key=lambda event: event["valid_macro_f1"])
    assert best["epoch"] == summary["best_epoch"]
    assert best["valid_accuracy"] == pytest.approx(summary["accuracy"])
    assert best["valid_loss"] == pytest.approx(summary["loss"], rel=1e-5)


def test_it_learns(straight, small_shards):
    summary = json.loads((straight / "summary.json").read_text())
    biggest = small_shards.label_counts.max() / small_shards.num_docs("train")
    assert summary["accuracy"] > 1.3 * biggest


def test_the_same_seed_gives_the_same_weights_bitwise(straight, small_shards, tmp_path):
    out = tmp_path / "again"
    train.main(["--data", str(small_shards.folder), "--out", str(out), *SMALL])
    assert same_weights(out, straight)
    other = tmp_path / "other"
    train.main(["--data", str(small_shards.folder), "--out", str(other), "--seed=1", *SMALL])
    assert not same_weights(other, straight)


def test_replicas_train_as_one_does(small_shards, straight, tmp_path):
    out = tmp_path / "two"
    shards = str(small_shards.folder)
    train.main(["--data", shards, "--out", str(out), *SMALL, "--gpus=none", "--cpu-replicas=2"])
    ours, theirs = arrays_of(out), arrays_of(straight)
    for name in theirs:
        if not name.startswith("adam"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()
         if json.loads(line)["event"] == "epoch"]
        for run in (out, straight)
    ]  # fmt: skip
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_residency_is_settled_at_the_start(straight):
    assert yaml.safe_load((straight / "config.yaml").read_text())["residency"] == "host"


def test_broken_weights_are_never_saved(small_shards, tmp_path, monkeypatch):
    """A bad update in the last step of an epoch, that no loss has shown yet."""
    run_chunk = train.run_chunk
    out = tmp_path / "run"

    def run_and_break(trainer, state, *args):
        done = run_chunk(trainer, state, *args)
        if state.epoch == 1:
            trainer.variables["logits/bias"].assign(np.full(12, np.nan, np.float32))
        return done

    monkeypatch.setattr(train, "run_chunk", run_and_break)
    with pytest.raises(UserError, match=r"logits/bias is not finite|is not finite at step"):
        train.main(["--data", str(small_shards.folder), "--out", str(out), *SMALL])
    for name in ("last", "best"):
        with np.load(out / "checkpoints" / f"{name}.npz") as archive:
            assert all(np.isfinite(archive[n]).all() for n in archive.files)


def test_nothing_is_left_of_a_run_whose_data_cannot_be_read(small_shards, tmp_path):
    shards, out = tmp_path / "shards", tmp_path / "run"
    shutil.copytree(small_shards.folder, shards)
    (file,) = shards.glob("train-*.parquet")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match=file.name):
        train.main(["--data", str(shards), "--out", str(out), *SMALL])
    assert not out.exists()


def test_waiting_for_input_counts_as_training_time(small_shards, tmp_path, monkeypatch):
    from tfdata.window import WindowSource

    read = WindowSource.read

    def read_slowly(self, *args):
        for window in read(self, *args):
            time.sleep(0.5)
            yield window

    monkeypatch.setattr(WindowSource, "read", read_slowly)
    out = tmp_path / "run"
    args = ["--data", str(small_shards.folder), "--out", str(out), *SMALL]
    train.main([*args, "--residency=stream", "--window-docs=300"])
    summary = json.loads((out / "summary.json").read_text())
    # six windows, of which a slow machine makes all but one while the epoch before is evaluated
    assert summary["epoch_seconds"][1] > 0.4


def test_few_documents_train_in_smaller_batches(tmp_path, capsys):
    rows = [f"text {i} about {topic},{topic}" for i in range(12) for topic in ("cats", "dogs")]
    (tmp_path / "few.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    out = tmp_path / "run"
    args = ["--data", str(tmp_path / "few.csv"), "--out", str(out), "--epochs=1", "--hidden=4"]
    assert train.main(args) == 0
    assert "only" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text())["num_train"] < 24


def test_validation_labels_that_training_lacks_are_scored_as_wrong(tmp_path):
    rows = [f"text {i} about {topic},{topic}" for i in range(30) for topic in ("cats", "dogs")]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "valid.csv").write_text("text,label\nabout cats,cats\nabout owls,owls\n")
    out = tmp_path / "run"
    args = ["--data", str(tmp_path / "train.csv"), "--valid", str(tmp_path / "valid.csv")]
    assert train.main([*args, "--out", str(out), "--epochs=4", "--hidden=8"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["num_unseen_labels"] == 1
    assert summary["accuracy"] <= 0.5


def test_validation_labels_that_are_all_unknown_have_no_loss(tmp_path):
    write_corpus(tmp_path / "c.parquet", 1_000, num_classes=5)
    (tmp_path / "valid.csv").write_text("text,label\nabout cats,owls\nabout owls,owls\n")
    out = tmp_path / "run"
    args = ["--data", str(tmp_path / "c.parquet"), "--valid", str(tmp_path / "valid.csv")]
    assert train.main([*args, "--out", str(out), *SMALL]) == 0
    assert json.loads((out / "summary.json").read_text())["loss"] is None
    epochs = [event for event in read_events(out / "metrics.jsonl") if event["event"] == "epoch"]
    assert all(e["valid_accuracy"] == 0 and "valid_loss" not in e for e in epochs)


def test_without_validation_the_last_epoch_is_the_best(small_shards, tmp_path):
    write_corpus(tmp_path / "c.parquet", 1_000, num_classes=5)
    out = tmp_path / "run"
    args = ["--data", str(tmp_path / "c.parquet"), "--valid=0", "--test=0.2", "--out", str(out)]
    assert train.main([*args, *SMALL]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["scored_on"] == "train"
    assert summary["best_epoch"] == 2
    assert summary["test"]["num_docs"] == pytest.approx(200, abs=12)


def test_of_equally_right_epochs_the_one_with_the_lower_loss_is_the_best(tmp_path):
    texts = [f"{word} {number % 7}" for number in range(300) for word in ("apple", "stone")]
    lines = [f"{text},{text.split()[0]}" for text in texts]
    (tmp_path / "c.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    out = tmp_path / "run"
    args = ["--data", str(tmp_path / "c.csv"), "--out", str(out), "--gpus=none"]
    small = ["--epochs=6", "--patience=4", "--hidden=8", "--batch-size=32"]
    assert train.main([*args, *small]) == 0
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epochs = [event for event in events if event["event"] == "epoch"]
    right = [e for e in epochs if e["valid_accuracy"] == 1]
    assert len(right) > 2
    best = min(right, key=lambda e: e["valid_loss"])["epoch"]
    assert json.loads((out / "summary.json").read_text())["best_epoch"] == best != right[0]["epoch"]
    assert len(epochs) == right[0]["epoch"] + 4  # a better loss alone is no reason to go on


def test_a_loss_that_is_not_finite_stops_with_a_message(small_shards, tmp_path, monkeypatch):
    import model.step as step

    cross_entropy = step.cross_entropy
    monkeypatch.setattr(step, "cross_entropy", lambda *args: cross_entropy(*args) / 0.0)
    out = tmp_path / "run"
    with pytest.raises(UserError, match="is not finite at step 0, in epoch 1; its batch"):
        train.main(["--data", str(small_shards.folder), "--out", str(out), *SMALL])
    assert not (out / "checkpoints").exists()  # nothing good to keep, nothing bad kept


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains(small_shards, straight, tmp_path, precision):
    out = tmp_path / precision
    args = ["--data", str(small_shards.folder), "--out", str(out), *SMALL]
    assert train.main([*args, f"--precision={precision}"]) == 0
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in (out, straight))
    assert ours["precision"] == precision
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.1)


def test_the_loop_is_compiled_once(small_shards, tmp_path, monkeypatch):
    import model.classifier as classifier

    calls, call = [], classifier.Classifier.call
    monkeypatch.setattr(
        classifier.Classifier, "call", lambda *a, **k: calls.append(1) or call(*a, **k)
    )
    args = ["--data", str(small_shards.folder), "--out", str(tmp_path / "run"), *SMALL]
    train.main([*args, "--epochs=4", "--batch-tokens=1500"])
    # once for training, once for validation, and for the export's signature and its tracing
    assert len(calls) <= 5


def test_what_takes_a_while_is_said(small_shards, tmp_path, capsys):
    args = ["--data", str(small_shards.folder), *SMALL, "--epochs=1", "--max-len=9"]
    for run, ids in (("first", "tokenising once"), ("second", "token ids cached")):
        train.main([*args, "--out", str(tmp_path / run)])
        printed = capsys.readouterr().out
        assert f"host residency, {ids};" in printed
        assert "\nwriting the report and the export\n" in printed
    train.main([*args, "--out", str(tmp_path / "x"), "--no-id-cache", "--residency=stream"])
    assert "stream residency, tokenising in every epoch;" in capsys.readouterr().out


def test_the_last_line_is_json_for_scripts_and_a_sentence_for_people(
    straight, tmp_path, capsys, monkeypatch
):
    shutil.copytree(straight, tmp_path / "run")
    train.main(["--resume", str(tmp_path / "run")])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(line) == ["accuracy", "macro_f1", "loss", "docs_per_s", "run", "epochs"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    train.main(["--resume", str(tmp_path / "run")])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"done: validation accuracy {line['accuracy']:.4f}, macro-F1 ")
    assert last.endswith(f"the run is in {tmp_path / 'run'}, its report {tmp_path}/run/report.html")


def test_progress_is_of_the_whole_run(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    with progress.TrainProgress(num_epochs=5, docs_per_epoch=100, done_docs=100) as display:
        display.advance(1, 55, 1000.0, 0.5, 0.9, {})
    assert capsys.readouterr().out.startswith("epoch 2/5   31% of all  1,000 docs/s")
