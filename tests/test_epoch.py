"""bench.epoch: its arithmetic on records made by hand, its peers, and what it leaves behind."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from bench import arms, epoch
from bench.arm_table import describe_ratios, format_table
from bench.arms import ArmFailed, Job, Stamp, add_stamps, run_arm
from bench.compare import compare, find_target, order_turns, summarise
from bench.joules import JouleMeter
from bench.peers import corpus
from bench.peers.record import compute_macro_f1
from shortline import UserError

ROOT = Path(__file__).parents[1]
SCHEMA = {
    "peer", "versions", "device", "num_train", "num_valid", "batch_size", "trainings",
    "startup_seconds", "docs_per_s", "epochs",
}  # fmt: skip
EPOCH = {"epoch", "seconds", "train_seconds", "accuracy", "macro_f1"}


def make_record(accuracies, seconds, *, docs_per_s=100.0, start=5.0, **more):
    """A record of epochs of `seconds` each, with two more seconds of wall for the validation."""
    epochs = [
        {
            "epoch": number, "seconds": seconds, "train_seconds": number * seconds,
            "accuracy": accuracy, "macro_f1": accuracy / 2, "joules": 10.0 * number,
            "wall_seconds": start + number * (seconds + 2),
        }
        for number, accuracy in enumerate(accuracies, start=1)
    ]  # fmt: skip
    return {
        "arm": "a", "device": "CPU", "versions": {"python": "3"}, "num_train": 1000,
        "num_valid": 100, "batch_size": 8, "trainings": False, "startup_seconds": start,
        "docs_per_s": docs_per_s, "epochs": epochs, "wall_seconds": epochs[-1]["wall_seconds"],
        "joules": epochs[-1]["joules"], **more,
    }  # fmt: skip


def test_the_target_is_reached_after_the_first_epoch_that_is_good_enough():
    epochs = make_record([0.5, 0.95, 0.94, 0.99], 3.0)["epochs"]
    reached = find_target(epochs, 0.95)
    assert reached is not None
    assert (reached["epoch"], reached["train_seconds"]) == (2, 6.0)
    assert find_target(epochs, 0.995) is None


def test_summary_holds_the_medians_of_the_turns():
    records = [
        make_record([0.5, 0.96], 10.0, docs_per_s=100.0),
        make_record([0.97, 0.98], 14.0, docs_per_s=50.0),
        make_record([0.6, 0.99], 12.0, docs_per_s=200.0),
    ]
    row = summarise(records, 0.95)
    assert row["num_turns"] == 3
    assert row["docs_per_s"] == 100.0
    assert row["epoch_seconds"] == 10.0
    assert row["train_seconds"] == 24.0
    assert row["target_seconds"] == 20.0  # of 20, 14 and 24
    assert row["target_wall_seconds"] == 29.0  # of 29, 21 and 33
    assert (row["accuracy"], row["macro_f1"]) == (0.98, 0.49)
    assert row["joules"] == 20.0


def test_a_target_that_most_turns_miss_has_no_time():
    records = [make_record([0.99], 10.0), make_record([0.5], 10.0), make_record([0.5], 10.0)]
    row = summarise(records, 0.95)
    assert row["target_seconds"] is row["target_epoch"] is None
    assert row["train_seconds"] == 10.0
    json.dumps(row, allow_nan=False)


def test_failed_turns_do_not_count():
    failed = {"arm": "a", "seed": 0, "error": "out of memory"}
    row = summarise([failed, make_record([0.5], 10.0)], 0.95)
    assert (row["num_turns"], row["train_seconds"]) == (1, 10.0)
    assert summarise([failed], 0.95) == {"error": "out of memory", "num_turns": 0}
    ratios = compare([make_record([0.9], 1.0), make_record([0.9], 2.0)],
                     [failed, make_record([0.9], 6.0)], 0.9)  # fmt: skip
    assert ratios["target"] == 3.0
    assert set(compare([make_record([0.9], 1.0)], [failed], 0.9).values()) == {None}


def test_ratios_are_taken_turn_by_turn():
    ours = [make_record([0.96], s, docs_per_s=1 / s, start=0.0) for s in (1.0, 10.0, 3.0)]
    theirs = [make_record([0.9, 0.96], s, docs_per_s=1 / s, start=0.0) for s in (4.0, 20.0, 9.0)]
    ratios = compare(ours, theirs, 0.95)
    assert ratios["epoch"] == pytest.approx(3.0)  # of 4, 2 and 3
    assert ratios["target"] == pytest.approx(6.0)  # of 8, 4 and 6
    assert ratios["wall"] == pytest.approx(4.0)  # of 12 / 3, 44 / 12 and 22 / 5
    theirs[1] = make_record([0.5, 0.5], 20.0)
    assert compare(ours, theirs, 0.95)["target"] is None


def test_turns_go_forth_and_back():
    assert order_turns(["a", "b", "c"], 2) == [
        (0, "a"), (0, "b"), (0, "c"), (1, "c"), (1, "b"), (1, "a"),
    ]  # fmt: skip


def test_the_clock_stops_at_the_last_validation():
    record = make_record([0.5, 0.9], 10.0)
    stamped = add_stamps(record, [Stamp(1, 17.0, None), Stamp(2, 29.0, None)])
    assert stamped["wall_seconds"] == 29.0
    assert [entry["wall_seconds"] for entry in stamped["epochs"]] == [17.0, 29.0]
    assert stamped["joules"] is None


def test_of_trainings_from_scratch_the_one_asked_for_is_the_whole():
    record = make_record([0.5, 0.6], 10.0) | {"trainings": True}
    # two epochs first (20 s of training), then one (10 s)
    stamped = add_stamps(record, [Stamp(2, 27.0, 500.0), Stamp(1, 40.0, 700.0)])
    assert (stamped["wall_seconds"], stamped["joules"]) == (27.0, 500.0)
    assert [entry["wall_seconds"] for entry in stamped["epochs"]] == [17.0, 27.0]
    assert [entry["joules"] for entry in stamped["epochs"]] == [None, 500.0]


def test_no_joules_without_a_gpu():
    assert JouleMeter("none").read() is None


def _make_result(records):
    rows = {arm: summarise([record], 0.95) for arm, record in records.items()}
    ratios = {arm: compare([records["shortline"]], [records[arm]], 0.95) for arm in rows}
    ratios.pop("shortline")
    return {"target": 0.95, "arms": rows, "times_as_fast_as": ratios}


def test_table_says_what_is_not_there():
    result = _make_result(
        {
            "shortline": make_record([0.96], 10.0, docs_per_s=200.0) | {"joules": None},
            "torch": make_record([0.9], 10.0, docs_per_s=100.0) | {"joules": 12_345.0},
            "keras": {"arm": "keras", "seed": 0, "error": "no such kernel"},
        }
    )
    header, ours, torch, keras = format_table(result)
    assert header.split("  ")[0] == "arm"
    assert "to 0.95 s" in header
    assert ours.endswith("not measured")
    assert re.split(r"\s+", torch)[1:] == [
        "10.00", "100", "2.00", "-", "5.0", "17.0", "0.9000", "0.4500", "12,345",
    ]  # fmt: skip
    assert keras.split() == ["keras", "failed:", "no", "such", "kernel"]
    [sentence] = describe_ratios(result)
    assert "2.00 times as fast as torch by the epoch" in sentence
    assert "not compared to 0.95" in sentence


def test_curves_are_a_png(tmp_path):
    result = _make_result({"shortline": make_record([0.5, 0.96], 10.0)})
    runs = [make_record([0.5, 0.96], 10.0), {"arm": "b", "seed": 0, "error": "broken"}]
    result |= {"runs": runs, "num_train": 1000, "machine": {"device": "CPU"}}
    epoch.write_record(tmp_path / "record", result, ["a line"])
    names = sorted(path.name for path in (tmp_path / "record").iterdir())
    assert names == ["epoch.json", "epoch.png", "epoch.txt"]
    assert (tmp_path / "record" / "epoch.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "record" / "epoch.json").read_text())["runs"] == runs


def test_a_missing_peer_is_told_before_any_arm_runs(monkeypatch):
    monkeypatch.setattr(epoch, "open_split", pytest.fail)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else 1)
    with pytest.raises(UserError, match=r"--against torch: .* pip install -e '\.\[peers\]'"):
        epoch.main(["--against", "keras,torch"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "keras,jax"], "--against jax: must be one of keras, keras2"),
        (["--preset", "best"], "--preset best"),
        (["--docs", "10"], "--docs 10: must be 1000 or more"),
        (["--turns", "0"], "--turns 0"),
        (["--target", "95"], "--target 95"),
        (["--data", "/no/such"], "no shard set"),
    ],
)
def test_wrong_flags(words, message):
    with pytest.raises(UserError, match=message):
        epoch.main(words)


def test_a_record_is_not_written_over(tmp_path):
    (tmp_path / "epoch.json").write_text("{}")
    with pytest.raises(UserError, match="holds a record"):
        epoch.main(["--out", str(tmp_path)])


@pytest.mark.parametrize("command", ["epoch", "peers.keras_seed in", "peers.torch_lstm in"])
def test_wrong_flags_are_answered_without_a_framework(command, tmp_path):
    for name in ("tensorflow", "torch", "keras"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('imported too early')")
    done = subprocess.run(
        [sys.executable, "-m", *f"bench.{command} --no-such-flag".split()], cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "--no-such-flag" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def job(small_shards, tmp_path, monkeypatch):
    """A small job; temporary files of every process go to `tmp_path / "temporary"`."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return Job(
        shards=small_shards.folder, preset="seed", epochs=2, batch_size=128, learning_rate=1e-3,
        precision="float32", target=0.1, gpus="none",
    )  # fmt: skip


def test_an_arm_that_fails_says_why_and_leaves_nothing(job, tmp_path, monkeypatch):
    monkeypatch.setitem(arms.PEERS, "torch", arms.Peer("bench.peers.no_such_peer", "torch"))
    with pytest.raises(ArmFailed, match=r"No module named .*no_such_peer"):
        run_arm("torch", job, 0, print)
    assert not list((tmp_path / "temporary").iterdir())


def test_an_arm_that_validates_nothing_has_failed(job):
    with pytest.raises(ArmFailed, match="without validating"):
        arms._run(["-c", "print('epoch 1/2   45%')"], job, pytest.fail)


def test_an_arm_does_not_outlive_an_interrupt(job):
    lines = []

    def interrupt(line):
        lines.append(line)
        raise KeyboardInterrupt

    script = "import os, time; print(f'epoch 1/2 {os.getpid()} |  validation'); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        arms._run(["-c", script], job, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[0].split()[2]), 0)


def test_macro_f1_is_that_of_our_scores():
    from model.scores import score
    from model.step import Predictions

    random = np.random.default_rng(0)
    labels = random.integers(0, 7, 200)  # 6 stands for a label that training lacks
    predicted = np.where(random.random(200) < 0.6, np.minimum(labels, 5), 2)
    ones = np.ones(200, np.float32)
    predictions = Predictions(
        labels=labels, predicted=predicted, probabilities=ones, losses=ones
    )  # fmt: skip
    scores = score(predictions, np.ones(6, np.int64))
    assert compute_macro_f1(labels, predicted) == pytest.approx(scores.macro_f1)


def test_peers_read_the_split_that_we_train_on(small_shards):
    from model.losses import class_weights
    from tfdata.shards import read_batches

    split = corpus.read_split(small_shards.folder)
    for part, texts, labels in (
        ("train", split.train_texts, split.train_labels),
        ("valid", split.valid_texts, split.valid_labels),
    ):
        batches = list(read_batches(small_shards, part))
        assert texts == [text for batch, _ in batches for text in batch.to_pylist()]
        np.testing.assert_array_equal(labels, np.concatenate([ids for _, ids in batches]))
    ours = class_weights(small_shards.label_counts, "seed", normalize=False)
    np.testing.assert_allclose(split.class_weights, ours, rtol=1e-6)
    with pytest.raises(UserError, match="no shard set"):
        corpus.read_split(small_shards.folder / "elsewhere")


def test_tokens_are_those_of_the_keras_tokenizer(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(corpus, "VOCAB_SIZE", 6)
    train = ["b a a! a", "c b  d-B", "c\td e f", " ".join("abcd" * 15)]
    valid = ["A, b", "", "nothing known", "e f g a"]
    tokenizer = tf.keras.preprocessing.text.Tokenizer(num_words=6)
    tokenizer.fit_on_texts(train)
    for texts, tokens in zip((train, valid), corpus.encode(train, valid), strict=True):
        wanted = tokenizer.texts_to_sequences(texts)
        padded = tf.keras.preprocessing.sequence.pad_sequences(wanted, 40, padding="post")
        np.testing.assert_array_equal(tokens.ids, padded)
        assert tokens.lengths.tolist() == [min(40, max(1, len(row))) for row in wanted]


def test_no_peer_of_another_framework_imports_tensorflow(small_shards):
    script = (
        "import sys; from pathlib import Path; import bench.peers.torch_lstm as peer; "
        "import bench.peers.fasttext_ngrams; peer.read_split(Path(sys.argv[1])); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(small_shards.folder)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def _check_peer(printed: str, num_epochs: int, small_shards) -> dict:
    record = json.loads(printed.splitlines()[-1])
    assert set(record) == SCHEMA
    assert record["num_train"] == small_shards.num_docs("train")
    assert record["num_valid"] == small_shards.num_docs("valid")
    assert all(set(entry) == EPOCH for entry in record["epochs"])
    assert record["epochs"][-1]["epoch"] == num_epochs
    for entry in record["epochs"]:
        assert 0 < entry["seconds"] <= entry["train_seconds"]
        assert 0 < entry["accuracy"] <= 1
        assert 0 < entry["macro_f1"] <= 1
    ended = [arms._END_OF_EPOCH.match(line) for line in printed.splitlines()]
    assert sorted(int(match[1]) for match in ended if match) == [
        entry["epoch"] for entry in record["epochs"]
    ]
    return record


@pytest.mark.slow
@pytest.mark.parametrize("words", [["keras_seed"], ["keras_seed", "--keras", "2"], ["keras_right"]])
def test_keras_peers(words, small_shards, capsys):
    peer = importlib.import_module(f"bench.peers.{words[0]}")
    peer.main([str(small_shards.folder), "--epochs", "2", *words[1:]])
    record = _check_peer(capsys.readouterr().out, 2, small_shards)
    first, second = record["epochs"]
    assert second["train_seconds"] == pytest.approx(first["seconds"] + second["seconds"])
    assert record["docs_per_s"] == pytest.approx(record["num_train"] / second["seconds"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_torch_peer(precision, small_shards, capsys):
    pytest.importorskip("torch", reason="pip install -e '.[peers]'")
    peer = importlib.import_module("bench.peers.torch_lstm")
    words = ["--epochs", "12", "--threads", "1", "--precision", precision]
    peer.main([str(small_shards.folder), "--batch-size", "32", *words])
    record = _check_peer(capsys.readouterr().out, 12, small_shards)
    assert record["epochs"][-1]["accuracy"] > 0.6


@pytest.mark.slow
def test_fasttext_peer(small_shards, job, capsys, tmp_path):
    pytest.importorskip("fasttext", reason="pip install -e '.[peers]'")
    peer = importlib.import_module("bench.peers.fasttext_ngrams")
    peer.main([str(small_shards.folder), "--epochs", "9", "--target", "0.8"])
    record = _check_peer(capsys.readouterr().out, 9, small_shards)
    assert record["trainings"]
    numbers = [entry["epoch"] for entry in record["epochs"]]
    assert numbers == [*[1, 2, 4, 8, 9][: len(numbers) - 1], 9]
    reached = [entry["accuracy"] >= 0.8 for entry in record["epochs"][:-1]]
    assert not any(reached[:-1])  # it stops at the first
    assert record["epochs"][-1]["accuracy"] > 0.8
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_a_small_comparison(small_shards, job, capsys, tmp_path):
    """Ours against a peer, two turns, on a shard set of one's own; all that is printed and left."""
    words = ["--data", str(small_shards.folder), "--epochs", "2", "--turns", "2", "--gpus", "none"]
    words += ["--target", "0.01", "--against", "keras-right", "--out", str(tmp_path / "record")]
    epoch.main(words)
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert [(run["arm"], run["seed"]) for run in result["runs"]] == [
        ("shortline", 0), ("shortline", 1), ("keras-right", 0), ("keras-right", 1),
    ]  # fmt: skip
    for run in result["runs"]:
        assert set(run) >= SCHEMA
        wall = [entry["wall_seconds"] for entry in run["epochs"]]
        assert run["startup_seconds"] < wall[0] < wall[1] == run["wall_seconds"]
        assert run["epochs"][-1]["train_seconds"] < run["wall_seconds"]
    assert set(result["arms"]) == {"shortline", "keras-right"}
    assert all(math.isfinite(ratio) for ratio in result["times_as_fast_as"]["keras-right"].values())
    assert [line for line in printed if line.endswith("of 2")] == [
        "shortline, turn 1 of 2", "keras-right, turn 1 of 2", "keras-right, turn 2 of 2",
        "shortline, turn 2 of 2",
    ]  # fmt: skip
    assert json.loads((tmp_path / "record" / "epoch.json").read_text()) == result
    text = (tmp_path / "record" / "epoch.txt").read_text().splitlines()
    assert text == printed[-1 - len(text) : -1]
    assert not list((tmp_path / "temporary").iterdir())


def test_the_learning_rate_grows_with_the_root_of_the_batch():
    assert epoch.choose_rate(epoch.EpochFlags()) == pytest.approx(1e-3)
    assert epoch.choose_rate(epoch.EpochFlags(batch_size=2048)) == pytest.approx(4e-3)
    assert epoch.choose_rate(epoch.EpochFlags(batch_size=2048, learning_rate=0.5)) == 0.5
