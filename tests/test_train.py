"""The whole way, by the commands a user types: trained, stopped, resumed, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import train
from shortline import UserError
from tfdata.synthetic import write_corpus

ROOT = Path(__file__).parents[1]
SMALL = [
    "--embedding-dim=8", "--hidden=8", "--batch-size=64", "--epochs=2", "--steps-per-call=5",
    "--learning-rate=0.02",
]  # fmt: skip


def _arrays(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "checkpoints" / "last.npz") as archive:
        return {name: archive[name] for name in archive.files if name != "state.json"}


def _same(a: Path, b: Path) -> bool:
    ours, theirs = _arrays(a), _arrays(b)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )


@pytest.fixture(scope="module")
def straight(small_shards, tmp_path_factory):
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    assert train.main(["--data", str(small_shards.folder), "--out", str(out), *SMALL]) == 0
    return out


def test_a_run_leaves_what_it_should(straight):
    for name in (
        "config.yaml", "metrics.jsonl", "summary.json", "report.html", "labels.txt", "vocab.txt",
        "checkpoints/last.npz", "checkpoints/best.npz", "export/saved_model.pb",
    ):  # fmt: skip
        assert (straight / name).stat().st_size > 0, name
    assert list((straight / "tensorboard").iterdir())
    assert not [path for path in straight.rglob("*") if ".tmp" in path.name]


def test_summary_says_what_is_promised(straight, small_shards):
    summary = json.loads((straight / "summary.json").read_text())
    for name in (
        "num_train", "num_valid", "num_classes", "accuracy", "macro_f1", "loss", "best_epoch",
        "epoch_seconds", "docs_per_s", "startup_seconds", "route", "precision", "device",
        "padding_fraction", "seed", "versions",
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
    assert _same(out, straight)
    other = tmp_path / "other"
    train.main(["--data", str(small_shards.folder), "--out", str(other), "--seed=1", *SMALL])
    assert not _same(other, straight)


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
    assert _same(out, whole)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in (out, whole))
    assert ours["accuracy"] == theirs["accuracy"]


def test_replicas_train_as_one_does(small_shards, straight, tmp_path):
    out = tmp_path / "two"
    shards = str(small_shards.folder)
    train.main(["--data", shards, "--out", str(out), *SMALL, "--gpus=none", "--cpu-replicas=2"])
    ours, theirs = _arrays(out), _arrays(straight)
    for name in theirs:
        if not name.startswith("adam"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()
         if json.loads(line)["event"] == "epoch"]
        for run in (out, straight)
    ]  # fmt: skip
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_a_lazy_embedding_resumes_bitwise_and_is_caught_up_where_it_is_used(
    small_shards, tmp_path, monkeypatch
):
    """Batches small enough for it: fewer tokens than words."""
    flags = [*SMALL, "--batch-size=16", "--gpus=none"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    train.main(["--data", str(small_shards.folder), "--out", str(whole), *flags])
    with np.load(whole / "checkpoints" / "best.npz") as archive:
        steps = archive["adam_steps_of_rows"]
        best_step = json.loads(archive["state.json"].tobytes())["step"]
    assert (steps == best_step).all()
    run_chunk, behind = train.run_chunk, []

    def run_and_stop(trainer, state, *args):
        done = run_chunk(trainer, state, *args)
        if not behind:
            assert trainer.optimizer.is_lazy
            reached = trainer.variables["adam_steps_of_rows"].numpy()
            behind.append(np.count_nonzero(reached < state.step))
            os.kill(os.getpid(), signal.SIGTERM)
        return done

    monkeypatch.setattr(train, "run_chunk", run_and_stop)
    assert train.main(["--data", str(small_shards.folder), "--out", str(out), *flags]) == 75
    assert behind[0] > 0
    assert train.main(["--resume", str(out)]) == 0
    assert _same(out, whole)


def test_a_run_resumed_on_more_replicas_is_the_straight_run(small_shards, tmp_path, monkeypatch):
    """With a batch that two cannot share evenly: no document lost, none doubled."""
    flags = [*SMALL, "--batch-size=65", "--gpus=none"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    train.main(["--data", str(small_shards.folder), "--out", str(whole), *flags])
    run_chunk, docs = train.run_chunk, []

    def run_and_stop(trainer, state, *args):
        done = run_chunk(trainer, state, *args)
        if not docs:
            os.kill(os.getpid(), signal.SIGTERM)
        docs.append(state.num_docs)
        return done

    monkeypatch.setattr(train, "run_chunk", run_and_stop)
    shards = str(small_shards.folder)
    args = ["--data", shards, "--out", str(out), *flags, "--cpu-replicas=2"]
    assert train.main(args) == 75
    assert train.main(["--resume", str(out), "--cpu-replicas=1"]) == 0
    assert max(docs) == small_shards.num_docs("train")
    ours, theirs = _arrays(out), _arrays(whole)
    for name in theirs:
        if not name.startswith("adam"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=2e-3, err_msg=name)


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
    with pytest.raises(UserError, match=r"logits/bias is not finite|the loss is not finite"):
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
    # six windows, of which up to three are made while the epoch before is evaluated
    assert summary["epoch_seconds"][1] > 3 * 0.4


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


def test_presets_yaml_and_flags_win_in_this_order(tmp_path):
    (tmp_path / "c.yaml").write_text("hidden: 24\nepochs: 7\nbidirectional: true\ndata: [a, b]\n")
    from model.flags import read_flags

    flags = read_flags(["--preset=seed", f"--config={tmp_path / 'c.yaml'}", "--epochs", "3"])
    assert (flags.model.hidden, flags.train.epochs, flags.model.bidirectional) == (24, 3, True)
    assert flags.model.num_layers == 2  # the preset's
    assert flags.data == ("a", "b")
    assert flags.train.clip_norm is None


def test_the_written_config_gives_the_same_settings(straight):
    from model.flags import read_flags
    from shortline import flat_values

    written = yaml.safe_load((straight / "config.yaml").read_text())
    flags = flat_values(read_flags(["--config", str(straight / "config.yaml")]))
    assert {**flags, "config": None} == written


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max-len=0"], "--max-len 0"),
        (["--batch-size=-3"], "--batch-size -3"),
        (["--epochs", "x"], "--epochs"),
        (["--preset", "sed"], "--preset sed.*default, seed"),
        (["--no-such"], "--no-such"),
        (["--data", "no.csv"], r"no\.csv"),
        (["--gpus", "3"], "--gpus 3: there is no GPU 0"),
        (["--gpus", "x"], "--gpus x"),
        (["--gpus", "0"], "--gpus 0: say none"),
        (["--route", "cudnn", "--gpus", "none"], "--route cudnn"),
        (["--valid", "1.5"], "--valid 1.5"),
        (["--config", "no.yaml"], r"no\.yaml"),
        (["--resume", "no-run"], "--resume no-run"),
    ],
)
def test_wrong_flags_are_named(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        train.main(argv if "--data" in argv else [*argv, "--docs=1000"])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_a_misspelt_key_of_a_yaml_file_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("max_lne: 30\n")
    with pytest.raises(UserError, match=r"c\.yaml: unknown key `max_lne`; did you mean `max_len`"):
        train.main(["--config", str(tmp_path / "c.yaml")])
    (tmp_path / "c.yaml").write_text("epochs: many\n")
    with pytest.raises(UserError, match="--epochs"):
        train.main(["--config", str(tmp_path / "c.yaml")])


def test_a_folder_with_another_run_is_left_alone(straight, small_shards):
    before = sorted(straight.rglob("*"))
    with pytest.raises(UserError, match="holds another run"):
        train.main(["--data", str(small_shards.folder), "--out", str(straight)])
    assert sorted(straight.rglob("*")) == before


def test_resume_refuses_other_settings_and_other_data(straight, tmp_path):
    with pytest.raises(UserError, match=r"--hidden 9: the run was started with 8"):
        train.main(["--resume", str(straight), "--hidden", "9"])
    copy = tmp_path / "copy"
    shutil.copytree(straight, copy)
    write_corpus(tmp_path / "other.parquet", 1_500, num_classes=12, seed=5)
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    settings["data"] = [str(tmp_path / "other.parquet")]
    (copy / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="the data is not what the run was started with"):
        train.main(["--resume", str(copy)])


def test_a_finished_run_resumed_is_finished_again(straight, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(straight, copy)
    shutil.rmtree(copy / "export")
    (copy / "summary.json").unlink()
    assert train.main(["--resume", str(copy)]) == 0
    assert (copy / "summary.json").exists()
    assert _same(copy, straight)


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


def test_without_validation_the_last_epoch_is_the_best(small_shards, tmp_path):
    write_corpus(tmp_path / "c.parquet", 1_000, num_classes=5)
    out = tmp_path / "run"
    args = ["--data", str(tmp_path / "c.parquet"), "--valid=0", "--test=0.2", "--out", str(out)]
    assert train.main([*args, *SMALL]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["scored_on"] == "train"
    assert summary["best_epoch"] == 2
    assert summary["test"]["num_docs"] == pytest.approx(200, abs=12)


def test_a_loss_that_is_not_finite_stops_with_a_message(small_shards, tmp_path, monkeypatch):
    import model.step as step

    cross_entropy = step.cross_entropy
    monkeypatch.setattr(step, "cross_entropy", lambda *args: cross_entropy(*args) / 0.0)
    out = tmp_path / "run"
    with pytest.raises(UserError, match="the loss is not finite in 4 of the steps 0 to 3"):
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
