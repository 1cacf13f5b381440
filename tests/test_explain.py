"""The command: rows as they were, and words that the text holds."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from model.explain import added_names, main
from model.infer import build_infer
from shortline import UserError
from tests.small_run import ODD_LABELS, make_run, make_texts, make_wordpiece_run

TEXTS = [text for text in make_texts(60) if len(text) < 400]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def explain(run, *arguments) -> None:
    assert main([str(run.paths.folder), "--gpus", "none", *map(str, arguments)]) == 0


@pytest.mark.parametrize("kind", ["word", "wordpiece"])
def test_rows_and_words(kind, run, tmp_path):
    run = run if kind == "word" else make_wordpiece_run(tmp_path / "run")
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({"text": [*TEXTS, None], "word": range(len(TEXTS) + 1)}), path)
    explain(run, path, "--out", out, "--words", 3, "--batch-size", 7)
    found = pq.read_table(out)
    assert found.column_names == ["text", "input_word", *added_names(3)]
    *rows, last = found.to_pylist()
    assert [row["text"] for row in rows] == TEXTS
    assert {last[name] for name in added_names(3)} == {None}
    p = tf.nn.softmax(build_infer(run, has_gpu=False)(pa.array(TEXTS))).numpy()
    for row, own in zip(rows, p, strict=True):
        assert row["label"] == ODD_LABELS[own.argmax()]
        assert row["probability"] == pytest.approx(own.max(), abs=1e-5)
        weights = [w for w in (row["weight"], row["weight_2"], row["weight_3"]) if w is not None]
        assert weights == sorted(weights, reverse=True)
        assert all(weight > 0 for weight in weights)
        for rank, weight in zip(("", "_2", "_3"), weights, strict=False):
            assert weight is not None
            assert row[f"word{rank}"] in row["text"]
    assert sum(row["word"] is not None for row in rows) > len(rows) / 2


def test_another_label(run, tmp_path):
    path, out = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    pq.write_table(pa.table({"text": TEXTS}), path)
    p = tf.nn.softmax(build_infer(run, has_gpu=False)(pa.array(TEXTS))).numpy()
    for number in (0, 3):
        explain(run, path, "--out", out, "--of", ODD_LABELS[number])
        rows = [json.loads(line) for line in out.read_text("utf-8").split("\n")[:-1]]
        assert {row["label"] for row in rows} == {ODD_LABELS[number]}
        found = [row["probability"] for row in rows]
        np.testing.assert_allclose(found, p[:, number], atol=1e-5)
    with pytest.raises(UserError, match=r"--of nothing: the run has no such label; .*labels\.txt"):
        explain(run, path, "--of", "nothing")
    with pytest.raises(UserError, match="--words 0: must be from 1 to 100"):
        explain(run, path, "--words", 0)
    with pytest.raises(UserError, match="--batch-size 0: must be 1 or more"):
        explain(run, path, "--batch-size", 0)


def test_words_are_no_formulas_and_steer_nothing(run, tmp_path, capfdbinary, monkeypatch):
    texts = ["word1 \x1b[2J'=cmd word2", "\u202e word3 word4", "'@x"]
    path = tmp_path / "in.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("text",), *([text] for text in texts)])
    run = make_run(tmp_path / "run", words=["word1", "\x1b[2j'=cmd", "=cmd"], filters="")
    pq.write_table(pa.table({"text": ["=cmd word1", "word1 =cmd"] * 3}), tmp_path / "in.parquet")
    for label in ODD_LABELS:
        explain(run, tmp_path / "in.parquet", "--out", tmp_path / "out.csv", "--of", label)
        with open(tmp_path / "out.csv", newline="") as file:
            for row in csv.DictReader(file):
                assert {row[n] for n in ("word", "word_2")} <= {"", "'=cmd", "word1"}
    read_end = _pipe("\n".join(texts).encode())
    monkeypatch.setattr("model.rows._STDIN", read_end)
    explain(run)
    lines = capfdbinary.readouterr().out.decode()
    assert len(lines.splitlines()) == 3
    assert not set(lines) & set("\x1b\u202e")
    assert all(len(line.split("\t")) == len(added_names(5)) for line in lines.splitlines())


def _pipe(data: bytes) -> int:
    import os

    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    return read_end


def test_no_rows(run, tmp_path):
    (tmp_path / "in.csv").write_text("text,n\n")
    explain(run, tmp_path / "in.csv", "--out", tmp_path / "out.csv", "--words", 1)
    header = (tmp_path / "out.csv").read_text().strip().replace('"', "").split(",")
    assert header == ["text", "n", *added_names(1)]
