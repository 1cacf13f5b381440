"""A run that was stopped goes on as if nothing had been, or says why it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

import train
from model.checkpoint import CheckpointWriter, load_checkpoint
from model.flags import read_flags
from model.run import RunPaths, restore_last
from model.words import TABLES
from shortline import UserError
from tests.runs import SMALL, arrays_of, same_weights
from tfdata.synthetic import write_corpus

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("residency", ["host", "stream"])
@pytest.mark.parametrize("stop_after", [1, 4, 6])
def test_stopped_anywhere_and_resumed_is_the_straight_run(
    small_shards, tmp_path, monkeypatch, residency, stop_after
):
    """The signal comes after that many chunks, in this process, so that the place is exact."""
    flags = [*SMALL, f"--residency={residency}", "--window-docs=500"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    train.main(["--data", str(small_shards.folder), "--out", str(whole), *flags])
    run_chunk, calls = train.run_chunk, []

    def run_and_stop(*args):
        num_steps = run_chunk(*args)
        calls.append(num_steps)
        if len(calls) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return num_steps

    monkeypatch.setattr(train, "run_chunk", run_and_stop)
    assert train.main(["--data", str(small_shards.folder), "--out", str(out), *flags]) == 75
    monkeypatch.setattr(train, "run_chunk", run_chunk)
    assert not (out / "summary.json").exists()
    assert train.main(["--resume", str(out)]) == 0
    assert same_weights(out, whole)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in (out, whole))
    assert ours["accuracy"] == theirs["accuracy"]


def test_lazy_tables_resume_bitwise_and_are_caught_up_where_they_are_used(
    small_shards, tmp_path, monkeypatch
):
    """Batches small enough for it: fewer tokens than words."""
    flags = [*SMALL, "--batch-size=16", "--gpus=none"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    train.main(["--data", str(small_shards.folder), "--out", str(whole), *flags])
    with np.load(whole / "checkpoints" / "best.npz") as archive:
        steps = [archive[f"adam_steps_of_rows/{table}"] for table in TABLES]
        best_step = json.loads(archive["state.json"].tobytes())["step"]
    assert all((steps_of_rows == best_step).all() for steps_of_rows in steps)
    run_chunk, behind = train.run_chunk, []

    def run_and_stop(trainer, state, *args):
        done = run_chunk(trainer, state, *args)
        if not behind:
            assert trainer.optimizer.lazy_tables == {*TABLES}
            for table in TABLES:
                reached = trainer.variables[f"adam_steps_of_rows/{table}"].numpy()
                behind.append(np.count_nonzero(reached < state.step))
            os.kill(os.getpid(), signal.SIGTERM)
        return done

    monkeypatch.setattr(train, "run_chunk", run_and_stop)
    assert train.main(["--data", str(small_shards.folder), "--out", str(out), *flags]) == 75
    assert min(behind) > 0
    assert train.main(["--resume", str(out)]) == 0
    assert same_weights(out, whole)


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_resumed_on_more_or_fewer_replicas_is_the_straight_run(
    small_shards, tmp_path, monkeypatch, capsys, first, then
):
    """With a batch that two cannot share evenly: no document lost, none doubled.

    One replica updates its tables lazily, two do not.
    """
    flags = [*SMALL, "--batch-size=17", "--gpus=none"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    train.main(["--data", str(small_shards.folder), "--out", str(whole), *flags])
    run_chunk, docs, lazy = train.run_chunk, [], []

    def run_and_stop(trainer, state, *args):
        done = run_chunk(trainer, state, *args)
        if not docs:
            os.kill(os.getpid(), signal.SIGTERM)
        docs.append(state.num_docs)
        lazy.append(trainer.optimizer.lazy_tables)
        return done

    monkeypatch.setattr(train, "run_chunk", run_and_stop)
    shards = str(small_shards.folder)
    args = ["--data", shards, "--out", str(out), *flags, f"--cpu-replicas={first}"]
    assert train.main(args) == 75
    capsys.readouterr()
    assert train.main(["--resume", str(out), f"--cpu-replicas={then}"]) == 0
    note = f"note: replicas was {first}, and is {then} now: the same documents"
    assert note in capsys.readouterr().out
    assert max(docs) == small_shards.num_docs("train")
    assert [lazy[0], lazy[-1]] == [set(TABLES) if n == 1 else set() for n in (first, then)]
    ours, theirs = arrays_of(out), arrays_of(whole)
    for name in theirs:  # as far as Adam spreads rounding: a fifth of a step's .02
        if not name.startswith("adam"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=4e-3, err_msg=name)
    scores, expected = (
        json.loads((run / "summary.json").read_text())["loss"] for run in (out, whole)
    )
    assert scores == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_same_weights(small_shards, straight, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "train.py"]
    args = ["--data", str(small_shards.folder), "--out", str(out), *SMALL, "--gpus=none"]
    process = subprocess.Popen([*command, *args], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/2"):
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(60) == 75, rest
    assert "--resume" in rest
    done = subprocess.run([*command, "--resume", str(out)], cwd=ROOT, check=False, text=True,
                          capture_output=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["run"] == str(out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["accuracy"] == json.loads((straight / "summary.json").read_text())["accuracy"]


def test_resume_refuses_other_settings_and_other_data(straight, tmp_path):
    with pytest.raises(UserError, match=r"--hidden 9: the run was started with 8"):
        train.main(["--resume", str(straight), "--hidden", "9"])
    with pytest.raises(UserError, match=r"--data a b: the run was started with /\S+shards; leave"):
        train.main(["--resume", str(straight), "--data", "a", "b"])
    with pytest.raises(UserError, match=r"--nfkc on: the run was started with off; leave"):
        train.main(["--resume", str(straight), "--nfkc"])
    copy = tmp_path / "copy"
    shutil.copytree(straight, copy)
    write_corpus(tmp_path / "other.parquet", 1_500, num_classes=12, seed=5)
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    settings["data"] = [str(tmp_path / "other.parquet")]
    (copy / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=r"started with \(.*1,800 train documents then, 1,\d+ now"):
        train.main(["--resume", str(copy)])


def test_who_wants_to_train_longer_is_told_how(straight):
    """The schedule of the learning rate ends with the epochs, so it is another run."""
    said = r"--epochs 9: the run was started with 2, .* --config \S+/config\.yaml --epochs 9 --out"
    with pytest.raises(UserError, match=said) as refused:
        train.main(["--resume", str(straight), "--epochs", "9"])
    words = str(refused.value).partition("start a new run: ")[2].split()
    flags = read_flags(words)
    assert (flags.train.epochs, flags.out, flags.resume) == (9, "ANOTHER", None)
    assert flags.model == read_flags(["--config", str(straight / "config.yaml")]).model


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("config.yaml", "dropout: 0.5", "dropout: 0.4", r"--dropout is 0\.4 now, .* with 0\.5;"),
        ("config.yaml", "hidden: 8", "hidden: 9", "--hidden is 9 now"),
        ("vocab.txt", "[UNK]", "UNK", r"vocab\.txt: line 2 is `UNK`, the data gives `\[UNK\]`"),
        ("labels.txt", None, "", r"labels\.txt: line 1 is missing, the data gives `"),
    ],
)
def test_a_file_of_the_run_that_says_otherwise_is_named(
    straight, tmp_path, file, old, new, message
):
    copy = tmp_path / "copy"
    shutil.copytree(straight, copy)
    text = (copy / file).read_text("utf-8")
    assert old is None or old in text
    (copy / file).write_text(new if old is None else text.replace(old, new, 1), "utf-8")
    with pytest.raises(UserError, match=message):
        train.main(["--resume", str(copy)])


def test_another_machine_is_noted_and_goes_on(straight, tmp_path, capsys, monkeypatch):
    shutil.copytree(straight, tmp_path / "run")
    monkeypatch.setattr(tf, "__version__", "2.99.0")
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert "note: TensorFlow was 2.21.0, and is 2.99.0 now" in capsys.readouterr().out


def test_a_run_that_was_killed_while_it_was_made_begins_again(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run", ignore=lambda *a: {"checkpoints", "labels.txt"})
    assert train.main(["--resume", str(tmp_path / "run")]) == 0
    assert same_weights(tmp_path / "run", straight)
    assert (tmp_path / "run" / "labels.txt").read_text() == (straight / "labels.txt").read_text()


def test_a_finished_run_resumed_is_finished_again(straight, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(straight, copy)
    shutil.rmtree(copy / "export")
    (copy / "summary.json").unlink()
    assert train.main(["--resume", str(copy)]) == 0
    assert (copy / "summary.json").exists()
    assert same_weights(copy, straight)


@pytest.mark.parametrize("had_one", [True, False])  # lazy table, the embedding
@pytest.mark.parametrize("batch_size", [128, 16])  # dense; lazy, and caught up at an epoch's end
def test_a_checkpoint_of_before_lazy_rows_goes_on_as_it_would_have(
    small_shards, tmp_path, monkeypatch, batch_size, had_one
):
    network = ["--stems=0", "--pieces=0", "--pairs=0", "--no-bag"]
    flags = [*SMALL, *network, f"--batch-size={batch_size}", "--gpus=none"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    train.main(["--data", str(small_shards.folder), "--out", str(whole), *flags])
    end_epoch = train.end_epoch

    def end_and_stop(*args):
        end_epoch(*args)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train, "end_epoch", end_and_stop)
    assert train.main(["--data", str(small_shards.folder), "--out", str(out), *flags]) == 75
    monkeypatch.setattr(train, "end_epoch", end_epoch)
    last = out / "checkpoints" / "last.npz"
    with np.load(last) as archive:
        newer = {"adam_steps_of_rows/embedding", "sha256"}
        older = {name: archive[name] for name in archive.files if name not in newer}
        assert len(older) == len(archive.files) - 2
        if had_one:
            older["adam_steps_of_rows"] = archive["adam_steps_of_rows/embedding"]
    np.savez(last, **older)
    assert train.main(["--resume", str(out)]) == 0
    assert same_weights(out, whole)


def test_a_checkpoint_of_when_macro_f1_chose_goes_on_with_its_best(straight, tmp_path):
    """Its score is that of the same epoch in metrics.jsonl, not less than any."""
    shutil.copytree(straight, tmp_path / "run")
    paths = RunPaths(tmp_path / "run")
    arrays, state = load_checkpoint(paths.last)
    best = state.pop("best_score")
    variables = {name: tf.Variable(array) for name, array in arrays.items()}
    with CheckpointWriter() as writer:
        writer.save([paths.last], variables, {**state, "best_macro_f1": 0.5})
    assert restore_last(paths, {}, state["origin"])["best_score"] == best
    paths.metrics.unlink()
    assert restore_last(paths, {}, state["origin"])["best_score"] == 0.5
