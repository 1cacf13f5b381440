"""Evaluate against what training computes, and against sums by hand."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from model.evaluate import LabelIds, main
from model.finish import build_predict_part
from model.infer import build_infer
from model.scores import score
from shortline import UserError
from tests.small_run import ODD_LABELS, make_run, make_texts
from tfdata.config import IngestConfig, PipelineConfig, TokenizerConfig
from tfdata.ingest import ingest
from tfdata.shards import read_batches

FIGURES = ("accuracy", "macro_f1", "weighted_f1", "loss")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def shard_run(small_shards, tmp_path_factory):
    """A run whose labels and words are those of the small shard set."""
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder, labels=small_shards.labels, words=small_shards.words)


def evaluate(capsys, run, *arguments) -> dict:
    """The last line of stdout."""
    assert main([str(run.paths.folder), "--gpus", "none", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def write(path, rows, names=("text", "label")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def test_agrees_with_training(small_shards, shard_run, capsys):
    """What finish_run writes to summary.json comes of build_predict_part and score."""
    predict = build_predict_part(
        shard_run.build_classifier("block"), shard_run.build_encoder(), small_shards, "valid",
        PipelineConfig(),
    )  # fmt: skip
    scores = score(predict(), small_shards.label_counts).summary()
    found = evaluate(capsys, shard_run, "--data", small_shards.folder)
    assert found["num_docs"] == small_shards.num_docs("valid") > 100
    assert 0 < found["accuracy"] < 1
    for name in FIGURES:
        assert found[name] == pytest.approx(scores[name], abs=1e-5)
    for name, third in scores["thirds"].items():
        assert found["thirds"][name] == pytest.approx(third, abs=1e-5)


def test_raw_files_and_shards_agree(small_shards, shard_run, tmp_path, capsys):
    rows = [
        (text, small_shards.labels[label])
        for texts, labels in read_batches(small_shards, "train")
        for text, label in zip(texts.to_pylist(), labels, strict=True)
    ]
    halves = [write(tmp_path / f"{i}.csv", rows[i::2]) for i in range(2)]
    raw = evaluate(capsys, shard_run, "--data", *halves)
    part = evaluate(capsys, shard_run, "--data", small_shards.folder, "--part", "train")
    assert raw["num_docs"] == part["num_docs"] == len(rows)
    for name in FIGURES:
        assert raw[name] == pytest.approx(part[name], abs=1e-6)


def test_labels_are_matched_by_name(small_shards, shard_run, tmp_path, capsys):
    """A shard set may number the same labels otherwise."""
    rows = [("word1", "b"), ("word2", "a"), ("word3", "a"), ("word4", "a"), ("word5", "b")] * 4
    path = write(tmp_path / "in.csv", rows)
    shards = tmp_path / "shards"
    shard_set = ingest([path], shards, IngestConfig(valid="0"), TokenizerConfig())
    assert shard_set.labels == ("a", "b")
    for labels in (("a", "b"), ("b", "c", "a")):
        run = make_run(tmp_path / "-".join(labels), labels=labels)
        raw = evaluate(capsys, run, "--data", path)
        part = evaluate(capsys, run, "--data", shards, "--part", "train")
        for name in FIGURES:
            assert raw[name] == pytest.approx(part[name], abs=1e-6)


def test_by_hand(run, tmp_path, capsys):
    texts = make_texts(200)
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, len(texts))
    names = [*ODD_LABELS, "new", "newer"]
    rows = [(text, names[label]) for text, label in zip(texts, labels, strict=True)]
    path = write(tmp_path / "in.csv", [*rows, ("no label", ""), ("blank label", " ")])
    found = evaluate(capsys, run, "--data", path)

    logits = build_infer(run, has_gpu=False)(pa.array(texts))
    predicted = tf.argmax(logits, axis=1).numpy()
    known = labels < len(ODD_LABELS)
    log_probabilities = tf.nn.log_softmax(logits).numpy()
    losses = [-log_probabilities[i, labels[i]] for i in np.flatnonzero(known)]
    f1 = []
    for label in range(8):
        hits = np.sum((labels == label) & (predicted == label))
        f1.append(2 * hits / max(1, np.sum(labels == label) + np.sum(predicted == label)))
    assert found["num_docs"] == 200
    assert found["num_dropped"] == 2
    assert found["num_unseen_labels"] == int((~known).sum()) > 20
    assert found["accuracy"] == pytest.approx(np.mean(labels == predicted))
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    assert found["loss"] == pytest.approx(np.mean(losses), abs=1e-5)


def test_what_is_printed(run, tmp_path, capsys):
    rows = [("word1", label) for label in ODD_LABELS] + [("word2", "new\x1b[2J")]
    path = write(tmp_path / "in.csv", rows, ("body", "team"))
    assert main([str(run.paths.folder), "--data", str(path), "--text", "body"]) == 0
    out = capsys.readouterr().out
    assert "7 documents: accuracy" in out
    assert "1 has a label that training lacks" in out
    assert "\x1b" not in out
    assert json.loads(out.splitlines()[-1])["num_docs"] == 7


def test_labels_that_the_run_lacks(run, tmp_path, capsys):
    """Of none of them is there a loss; of some, that it is of the others is said."""
    rows = [("word1", "new"), ("word2", "newer"), ("word3", "plain")]
    for number, loss, said in (
        (2, "none", "training lacks: scored as wrong; --label may name the wrong column"),
        (3, r"\d+\.\d{4}", "training lacks: scored as wrong; the loss is of the 1 other"),
    ):
        path = write(tmp_path / "in.csv", rows[:number])
        assert main([str(run.paths.folder), "--gpus", "none", "--data", str(path)]) == 0
        out = capsys.readouterr().out
        assert re.search(f"{number} documents: .*, loss {loss}\n", out)
        assert said in out
        found = json.loads(out.splitlines()[-1])
        assert (found["loss"] is None) == (found["calibrated_loss"] is None) == (number == 2)


def test_columns_of_the_training(tmp_path, capsys):
    run = make_run(tmp_path / "run", text="b", label="c")
    path = write(tmp_path / "in.csv", [("word1", "word2", "plain")], ("text", "b", "c"))
    assert evaluate(capsys, run, "--data", path)["num_docs"] == 1
    with pytest.raises(UserError, match="no column `nope`"):
        evaluate(capsys, run, "--data", path, "--text", "nope")


def test_rows_that_a_quote_swallows_are_told(run, tmp_path, capsys):
    rows = [f"word{i} of it,{ODD_LABELS[0]}" for i in range(150)]
    rows[5] = rows[140] = f'"word,{ODD_LABELS[0]}'
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows, ""]))
    main([str(run.paths.folder), "--gpus", "none", "--data", str(tmp_path / "a.csv")])
    said = capsys.readouterr().out
    assert "are lost: 1; probably a quote is never closed" in said
    assert json.loads(said.splitlines()[-1])["open_quotes"] == 1


def test_label_ids():
    ids = LabelIds(["a", "b"])
    assert ids.of(["b", "x", "a", "y", "x"]).tolist() == [1, 2, 0, 3, 2]
    assert ids.of(["y", "z"]).tolist() == [3, 4]
    assert ids.names == ["a", "b", "x", "y", "z"]


def test_wrong_data(run, small_shards, tmp_path, capsys):
    path = write(tmp_path / "in.csv", [("word1", "plain")])
    for arguments, message in (
        (["--data", path, "--part", "valid"], "only a shard set has parts"),
        (["--data", small_shards.folder, "--part", "test"], "has no test documents; choose --part"),
        (["--data", tmp_path / "none.csv"], "none.csv: no such file"),
        (["--data", write(tmp_path / "header.csv", [])], "header.csv: holds no rows"),
        (["--data", write(tmp_path / "blank.csv", [("word1", "")])], "no document has both"),
        (["--data", path, small_shards.folder], "a shard set must be the only data"),
        (["--data"], "--data"),
        ([], "--data"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(capsys, run, *arguments)
    (tmp_path / "broken.csv").write_text("text,label\nword1,plain\nword2,plain,extra\n")
    with pytest.raises(UserError, match=r"row 3 .* has 3 columns"):
        evaluate(capsys, run, "--data", tmp_path / "broken.csv")
    found = evaluate(capsys, run, "--data", tmp_path / "broken.csv", "--skip-bad-rows")
    assert (found["num_docs"], found["num_dropped"]) == (1, 1)


def test_columns_of_the_training_are_taken_where_the_file_has_them(run, tmp_path, capsys):
    settings = (run.paths.config).read_text()
    run.paths.config.write_text(settings + "\nlabel: team\n")
    try:
        rows = [("a b", run.labels[0], run.labels[1])]
        with_both = write(tmp_path / "both.csv", rows, ("text", "label", "team"))
        guessed = write(tmp_path / "other.csv", [row[:2] for row in rows])
        assert evaluate(capsys, run, "--data", guessed)["num_docs"] == 1
        trained = evaluate(capsys, run, "--data", with_both)["accuracy"]
        asked = evaluate(capsys, run, "--data", with_both, "--label", "team")["accuracy"]
        assert trained == asked
    finally:
        run.paths.config.write_text(settings)
