"""The training anew with the validation documents: they have their say before they train."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import train
from model import evaluate, predict
from model.checkpoint import load_checkpoint, write_checkpoint
from model.events import read_events
from model.examination import ask
from model.infer import build_infer
from model.longtail import Adjustment
from model.opened import open_run
from model.refit import MOST_DOCS, wants_refit
from model.words import key_pairs
from shortline import EXIT_STOPPED, UserError
from tests.runs import SMALL, arrays_of, read_summary, same_weights
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.ingest import ingest
from tfdata.shards import ShardSet, read_batches
from tfdata.synthetic import write_corpus

WORDS = [*SMALL, "--refit=auto", "--long-tail=none", "--gpus=none"]


def train_on(shards: ShardSet, out: Path, *words: str) -> int:
    return train.main([*WORDS, "--data", str(shards.folder), "--out", str(out), *words])


@pytest.fixture(scope="module")
def run(tested_shards, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("refit") / "run"
    assert train_on(tested_shards, out) == 0
    return out


@pytest.fixture
def copy(run, tmp_path) -> Path:
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def score(run: Path, shards: ShardSet, part: str, is_finished: bool = True) -> float:
    opened = open_run(run, is_finished)
    logits, labels = ask(build_infer(opened, has_gpu=False), opened, shards, part)
    return float((logits.argmax(axis=1) == labels).mean())


def same_final(a: Path, b: Path) -> bool:
    ours, theirs = arrays_of(a, "final"), arrays_of(b, "final")
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )


def test_all_documents_train_as_many_epochs_as_were_best(run, tested_shards):
    _, state = load_checkpoint(run / "checkpoints" / "final.npz")
    num_docs = tested_shards.num_docs("train") + tested_shards.num_docs("valid")
    summary = read_summary(run)
    assert state["is_done"]
    assert state["epoch"] == summary["best_epoch"] == summary["refit"]["epochs"]
    assert state["step"] == state["epoch"] * -(-num_docs // 64)
    assert not [*run.glob("checkpoints/refit*")]


def test_each_network_has_the_pairs_of_what_it_learned_from(tested_shards, tmp_path):
    out = tmp_path / "run"
    assert train_on(tested_shards, out, "--pairs=100000") == 0
    vocabulary, encoder = open_run(out).vocabulary, open_run(out).build_encoder()
    counts: Counter[int] = Counter()
    for part, file in (("train", "best"), ("valid", "final")):
        for texts, _ in read_batches(tested_shards, part):
            ids, lengths = encoder.encode(texts)
            for some in np.split(ids.astype(np.int64), np.cumsum(lengths)[:-1]):
                counts.update(key_pairs(some[:-1], some[1:]).tolist())
        arrays, _ = load_checkpoint(out / "checkpoints" / f"{file}.npz")
        found = arrays["pair_keys"]
        expected = sorted(key for key, count in counts.items() if count >= 2)
        assert 0 < len(expected) < len(vocabulary) ** 2
        assert found[: len(expected)].tolist() == expected
        assert (found[len(expected) :] == found[-1]).all()


def test_joined_parts_hold_every_document_once(tested_shards):
    joined = tested_shards.join_valid()
    texts = [
        text
        for part in ("train", "valid")
        for batch, _ in read_batches(tested_shards, part)
        for text in batch.to_pylist()
    ]
    found = [text for batch, _ in read_batches(joined, "train") for text in batch.to_pylist()]
    assert found == texts
    assert joined.num_docs("valid") == 0
    assert joined.num_docs("test") == tested_shards.num_docs("test")
    assert joined.fingerprint != tested_shards.fingerprint


def test_what_only_validation_documents_tell_is_learned_after_they_have_scored(tmp_path):
    """In training, chance labels a text; in validation, its first word does."""
    rng = np.random.default_rng(0)
    for part, told in (("train", False), ("valid", True)):
        rows = []
        for number in range(800):
            first, noise = number % 2, " ".join(f"word{n}" for n in rng.integers(50, size=5))
            label = first if told else rng.integers(2)
            rows.append({"text": f"{('zeta', 'eta')[first]} {noise}", "label": f"c{label}"})
        lines = [json.dumps(row) for row in rows]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    config = IngestConfig(valid=str(tmp_path / "valid.jsonl"))
    shards = ingest([tmp_path / "train.jsonl"], tmp_path / "shards", config, TokenizerConfig())
    out = tmp_path / "run"
    assert train_on(shards, out, "--no-doctor", "--word-dropout=0") == 0
    accuracy = read_summary(out)["accuracy"]
    assert accuracy == pytest.approx(score(out, shards, "valid", is_finished=False), abs=1e-6)
    assert accuracy < 0.8
    assert score(out, shards, "valid") > 0.9
    report = (out / "report.html").read_text()
    assert "had not learned from them" in report
    assert "the mean of this network and of another one" in report
    assert "fitted to both parts" not in report  # there is no linear classifier


def test_test_documents_are_scored_with_what_answers(run, tested_shards):
    found = score(run, tested_shards, "test")
    assert read_summary(run)["test"]["accuracy"] == pytest.approx(found, abs=1e-6)
    serve = tf.saved_model.load(str(run / "export")).signatures["serving_default"]
    texts, labels = next(iter(read_batches(tested_shards, "test", batch_docs=600)))
    exported = serve(text=tf.constant(texts.to_pylist()))["probabilities"].numpy().argmax(axis=1)
    assert (exported == labels).mean() == pytest.approx(found, abs=1e-6)


def test_logits_of_both_networks_are_averaged(run, tested_shards, tmp_path):
    """Whatever the route, with blocks or without."""
    opened = open_run(run)
    alone = dataclasses.replace(opened, refit=None)
    shutil.copytree(run, tmp_path / "other")
    shutil.copy(run / "checkpoints" / "final.npz", tmp_path / "other" / "checkpoints" / "best.npz")
    other = open_run(tmp_path / "other", is_finished=False)
    both, one, two = (
        ask(build_infer(each, has_gpu=False), each, tested_shards, "test")[0]
        for each in (opened, alone, other)
    )
    assert np.abs(one - two).max() > 0.1
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-5)
    token_ids = tf.constant(np.random.default_rng(0).integers(1, 500, (7, 9)), tf.int32)
    lengths = tf.constant([9, 9, 7, 6, 4, 2, 1])
    expected = opened.build_classifier("keras").call(token_ids, lengths)
    for num_blocks in (1, 3):
        found = opened.build_classifier("block").call(token_ids, lengths, num_blocks=num_blocks)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_long_tail_is_adjusted_in_it_too(tested_shards, tmp_path, monkeypatch):
    power = Adjustment(power=0.5, before=(0.0, 0.0), after=(0.0, 0.0))
    monkeypatch.setattr("model.examination.choose_power", lambda *args: power)
    out = tmp_path / "run"
    assert train_on(tested_shards, out, "--long-tail=auto") == 0
    assert open_run(out).calibration.logit_shift
    found = score(out, tested_shards, "test")
    assert read_summary(out)["test"]["accuracy"] == pytest.approx(found, abs=1e-6)


def test_a_stopped_one_goes_on_bitwise(run, tested_shards, tmp_path, monkeypatch):
    """In the middle of its second epoch."""
    out, is_to_stop = tmp_path / "run", train.is_to_stop

    def stop(trainer, state, signals):
        is_there = trainer.is_refit and state.epoch == 1 and state.batch
        return is_there or is_to_stop(trainer, state, signals)

    with monkeypatch.context() as patched:
        patched.setattr(train, "is_to_stop", stop)
        assert train_on(tested_shards, out) == EXIT_STOPPED
    assert (out / "checkpoints" / "refit.npz").exists()
    assert not (out / "summary.json").exists()
    _, state = load_checkpoint(out / "checkpoints" / "refit.npz")
    assert not state["is_done"]
    assert state["step"] > 0
    assert train.main(["--resume", str(out), "--gpus", "none"]) == 0
    assert same_weights(out, run)
    assert same_final(out, run)
    assert not [*out.glob("checkpoints/refit*")]
    for name in ("accuracy", "loss", "test"):
        assert read_summary(out)[name] == read_summary(run)[name]


@pytest.mark.parametrize("of", ["first", "other"])
def test_a_signal_at_the_end_of_a_training_is_answered(
    run, tested_shards, tmp_path, monkeypatch, capsys, of
):
    """When the last epoch is being saved, nothing is left that would look for it."""
    out, save = tmp_path / "run", train.save

    def interrupt(trainer, state, *rest):
        save(trainer, state, *rest)
        if state.is_done and trainer.is_refit == (of == "other"):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(train, "save", interrupt)
        assert train_on(tested_shards, out) == EXIT_STOPPED
    said = capsys.readouterr().out
    assert f"--resume {out}" in said
    assert ("training another" in said) == (of == "other")
    assert not (out / "summary.json").exists()
    assert train.main(["--resume", str(out), "--gpus", "none"]) == 0
    assert same_weights(out, run)
    assert same_final(out, run)
    assert read_summary(out)["test"] == read_summary(run)["test"]


def test_what_is_there_is_not_trained_again(run, copy, capsys):
    (copy / "summary.json").unlink()
    assert train.main(["--resume", str(copy), "--gpus", "none"]) == 0
    assert "training another" not in capsys.readouterr().out
    assert same_final(copy, run)
    assert read_summary(copy)["test"] == read_summary(run)["test"]
    assert read_summary(copy)["refit"] == read_summary(run)["refit"]


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_of_a_damaged_one_the_copy_answers(run, copy, tmp_path, capsys):
    """And of neither, predict says what to do, and that makes it again, bitwise."""
    folder, new = copy / "checkpoints", tmp_path / "new.csv"
    new.write_text("text\nsome words\n")
    spoil(folder / "final.npz")
    assert predict.main([str(copy), str(new), "--gpus", "none"]) == 0
    assert "its copy final-copy.npz is used" in capsys.readouterr().err
    spoil(folder / "final-copy.npz")
    with pytest.raises(UserError, match=r"final\.npz: damaged.*--resume"):
        predict.main([str(copy), str(new), "--gpus", "none"])
    assert train.main(["--resume", str(copy), "--gpus", "none"]) == 0
    assert "it is made again" in capsys.readouterr().out
    assert same_final(copy, run)


def test_a_damaged_checkpoint_on_the_way_there_is_not_waited_for(run, copy, capsys):
    folder = copy / "checkpoints"
    (folder / "final.npz").rename(folder / "refit.npz")
    (folder / "final-copy.npz").unlink()
    spoil(folder / "refit.npz")
    assert train.main(["--resume", str(copy), "--gpus", "none"]) == 0
    assert "this training begins again" in capsys.readouterr().out
    assert same_final(copy, run)
    assert not [*folder.glob("refit*")]


@pytest.mark.parametrize("name", ["final", "refit"])
def test_one_of_another_training_is_not_taken(run, copy, capsys, name):
    """Of other data, settings or another number of epochs."""
    folder = copy / "checkpoints"
    arrays, state = load_checkpoint(folder / "final.npz")
    changes = [
        {"epoch": state["epoch"] + 1},
        {"origin": state["origin"] | {"data": state["origin"]["data"] | {"fingerprint": "other"}}},
        {"origin": state["origin"] | {"settings": {**state["origin"]["settings"], "hidden": 9}}},
    ]
    for change in changes:
        for path in folder.glob("final*"):
            path.unlink()
        write_checkpoint(folder / f"{name}.npz", arrays, json.dumps({**state, **change}))
        assert train.main(["--resume", str(copy), "--gpus", "none"]) == 0
        assert "is of another training" in capsys.readouterr().out
        assert same_final(copy, run)


def test_killed_before_it_tidied_up_a_run_ends_without_what_is_left(run, copy):
    folder = copy / "checkpoints"
    shutil.copy(folder / "last.npz", folder / "refit.npz")
    (folder / "refit.npz.damaged").write_bytes(b"")
    assert train.main(["--resume", str(copy), "--gpus", "none"]) == 0
    assert not [*folder.glob("refit*")]
    assert same_final(copy, run)


def test_when_it_fails_the_first_training_is_not_lost(run, tested_shards, tmp_path, monkeypatch):
    """Whatever it is, the way on is named, and leads there."""
    out, run_chunk = tmp_path / "run", train.run_chunk

    def fail(trainer, *args):
        if trainer.is_refit:
            raise UserError("the loss of step 3 is not finite")
        return run_chunk(trainer, *args)

    monkeypatch.setattr(train, "run_chunk", fail)
    with pytest.raises(UserError, match=f"step 3 is not finite.*--resume {out} --refit none"):
        train_on(tested_shards, out)
    assert train.main(["--resume", str(out), "--gpus", "none", "--refit", "none"]) == 0
    assert read_summary(out)["accuracy"] == read_summary(run)["accuracy"]
    assert "refit" not in read_summary(out)


def test_without_and_with_again(run, copy, tested_shards):
    """A finished run, too, can do without: best.npz answers, and its scores are of it."""
    assert train.main(["--resume", str(copy), "--gpus", "none", "--refit", "none"]) == 0
    summary = read_summary(copy)
    assert "refit" not in summary
    assert summary["accuracy"] == read_summary(run)["accuracy"]
    assert summary["test"] != read_summary(run)["test"]
    found = score(copy, tested_shards, "test")
    assert summary["test"]["accuracy"] == pytest.approx(found, abs=1e-6)
    assert "had not learned from them" not in (copy / "report.html").read_text()
    written = (copy / "checkpoints" / "final.npz").stat().st_mtime_ns
    assert train.main(["--resume", str(copy), "--gpus", "none"]) == 0
    assert read_summary(copy)["test"] == read_summary(run)["test"]
    assert (copy / "checkpoints" / "final.npz").stat().st_mtime_ns == written


def test_evaluating_what_it_learned_from_is_told(tmp_path, capsys):
    write_corpus(tmp_path / "corpus.parquet", 1_200, num_classes=4)
    table = pq.read_table(tmp_path / "corpus.parquet")
    for name, part in (("train", table[:1000]), ("valid", table[1000:1100]), ("new", table[1100:])):
        pq.write_table(part, tmp_path / f"{name}.parquet")
    out, files = tmp_path / "run", {name: str(tmp_path / f"{name}.parquet") for name in
                                    ("train", "valid", "new")}  # fmt: skip
    words = ["--data", files["train"], "--valid", files["valid"], "--out", str(out)]
    assert train.main([*WORDS, *words]) == 0
    for name, is_told in (("train", True), ("valid", True), ("new", False)):
        assert evaluate.main([str(out), "--data", files[name], "--gpus", "none"]) == 0
        assert ("has learned from" in capsys.readouterr().out) == is_told


def test_only_the_first_training_is_logged(run):
    events = [event for event in read_events(run / "metrics.jsonl") if event["event"] == "epoch"]
    assert [event["epoch"] for event in events] == [1, 2]
    assert all("valid_accuracy" in event for event in events)


@pytest.mark.parametrize("words", [["--cpu-replicas=2"], ["--residency=stream"]])
def test_other_ways_of_training_come_to_the_same(run, tested_shards, tmp_path, words):
    out = tmp_path / "run"
    assert train_on(tested_shards, out, *words) == 0
    if read_summary(out)["best_epoch"] == read_summary(run)["best_epoch"]:
        ours, theirs = arrays_of(out, "final"), arrays_of(run, "final")
        if words == ["--cpu-replicas=2"]:
            # sums round otherwise, and where a gradient is next to nothing, Adam's steps are not
            apart = [np.abs(ours[name] - theirs[name]).ravel() for name in ours]
            assert (np.concatenate(apart) > 1e-3).mean() < 1e-3
            assert max(each.mean() for each in apart) < 1e-3
    found = score(out, tested_shards, "test")
    assert read_summary(out)["test"]["accuracy"] == pytest.approx(found, abs=1e-6)
    assert found == pytest.approx(read_summary(run)["test"]["accuracy"], abs=0.05)


def test_labels_that_training_lacks_cost_nothing(tmp_path):
    write_corpus(tmp_path / "corpus.parquet", 1_000, num_classes=4)
    table = pq.read_table(tmp_path / "corpus.parquet").slice(0, 100)
    table = table.set_column(
        table.column_names.index("label"), "label", pa.array(["nobody knows"] * 50 + ["class"] * 50)
    )
    pq.write_table(table, tmp_path / "valid.parquet")
    config = IngestConfig(valid=str(tmp_path / "valid.parquet"))
    shards = ingest([tmp_path / "corpus.parquet"], tmp_path / "shards", config, TokenizerConfig())
    out = tmp_path / "run"
    assert train_on(shards, out) == 0
    arrays = arrays_of(out, "final")
    assert all(np.isfinite(array).all() for array in arrays.values())
    _, state = load_checkpoint(out / "checkpoints" / "final.npz")
    assert state["num_skipped"] == 0


def test_where_there_is_none_it_says_why(tmp_path, capsys):
    write_corpus(tmp_path / "corpus.parquet", 1_000, num_classes=4)
    words = ["--data", str(tmp_path / "corpus.parquet"), "--valid=0", "--test=0.2"]
    assert train.main([*WORDS, *words, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "no other network: that takes a validation part of a 50th" in out
    assert "no validation part: these scores are of the very documents it has learned" in out
    assert train.main([*WORDS, *words, "--out", str(tmp_path / "b"), "--refit=none"]) == 0
    assert "no other network" not in capsys.readouterr().out


def test_the_command_line_it_began_with_resumes_it(run, copy, tested_shards, monkeypatch):
    """Also from its data's folder: a run keeps absolute paths."""
    monkeypatch.chdir(tested_shards.folder.parent)
    words = ["--resume", str(copy), "--gpus=none", "--data"]
    assert train.main([*words, tested_shards.folder.name]) == 0
    with pytest.raises(UserError, match="--data elsewhere: the run was started with"):
        train.main([*words, "elsewhere"])


@pytest.mark.parametrize(
    ("num_train", "num_valid", "wanted"),
    [(900, 100, True), (MOST_DOCS - 100_000, 100_000, True), (MOST_DOCS - 99_999, 100_000, False),
     (1000, 20, True), (1000, 19, False), (1000, 0, False), (1000, 1000, True),
     (1000, 1001, False)],
)  # fmt: skip
def test_where_it_is_worth_the_time(num_train, num_valid, wanted):
    counts = {"train": num_train, "valid": num_valid}
    shard_set: Any = SimpleNamespace(num_docs=counts.__getitem__)
    assert wants_refit("auto", shard_set) == wanted
    assert not wants_refit("none", shard_set)
