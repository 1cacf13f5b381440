"""A run's temperature wherever it is used; abstaining; scope; and how training sets it."""

from __future__ import annotations

import csv
import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import train
from model import evaluate, examination, predict
from model.calibration import Calibration, quantiles, read_calibration, write_calibration
from model.confidence import bin_reliability
from model.export import export_run
from model.infer import build_infer
from model.opened import open_run
from model.run import RunPaths
from model.scope import energy
from shortline import UserError
from tests.runs import SMALL
from tests.small_run import ODD_LABELS, make_run, make_texts

TEXTS = make_texts(200)
TEMPERATURE = 2.5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a temperature."""
    run = make_run(tmp_path_factory.mktemp("run"))
    energies = energy(build_infer(run, has_gpu=False)(pa.array(TEXTS)), TEMPERATURE).numpy()
    calibration = Calibration(
        temperature=TEMPERATURE, num_docs=len(TEXTS), energies=quantiles(energies)
    )
    write_calibration(run.paths.calibration, calibration)
    return open_run(run.paths.folder)


@pytest.fixture(scope="module")
def probabilities(run):
    """float32[D, C] of TEXTS."""
    return tf.nn.softmax(build_infer(run, has_gpu=False)(pa.array(TEXTS)) / TEMPERATURE).numpy()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": [*TEXTS, None]}), path)
    return path


def run_predict(run, *arguments) -> None:
    assert predict.main([str(run.paths.folder), "--gpus", "none", *map(str, arguments)]) == 0


def run_evaluate(capsys, run, rows, *arguments) -> dict:
    path = run.paths.folder.parent / "labelled.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    argv = [str(run.paths.folder), "--data", str(path), "--gpus", "none", *arguments]
    assert evaluate.main(argv) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_predict_and_export_give_the_same_scaled_probabilities(
    run, probabilities, source, tmp_path
):
    out = tmp_path / "out.parquet"
    run_predict(run, source, "--out", out, "--top-k", len(ODD_LABELS))
    found = pq.read_table(out)
    export_run(run, tmp_path / "export")
    call = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    served = call(text=tf.constant(TEXTS))
    np.testing.assert_allclose(served["probabilities"], probabilities, atol=1e-6)
    ranks = ["", *(f"_{rank}" for rank in range(2, len(ODD_LABELS) + 1))]
    for rank, suffix in enumerate(ranks):
        expected = np.sort(probabilities, axis=1)[:, -1 - rank]
        np.testing.assert_allclose(
            found[f"probability{suffix}"].to_numpy()[:-1].astype(float), expected, atol=1e-6
        )
    np.testing.assert_allclose(
        served["probability"], found["probability"].to_numpy()[:-1].astype(float), atol=1e-6
    )
    assert [label.decode() for label in served["label"].numpy()] == found["label"].to_pylist()[:-1]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_abstaining_takes_the_labels_and_leaves_the_probabilities(
    run, probabilities, source, tmp_path, capsys, suffix
):  # fmt: skip
    out, all_labels = tmp_path / f"out{suffix}", tmp_path / "all.parquet"
    threshold = float(np.median(probabilities.max(axis=1)))
    run_predict(run, source, "--out", all_labels, "--top-k", 2)
    run_predict(run, source, "--out", out, "--top-k", 2, "--abstain", threshold)
    num_withheld = int((probabilities.max(axis=1) < threshold).sum())
    assert 0 < num_withheld < len(TEXTS)
    told = f"no label for {num_withheld} of {len(TEXTS) + 1} rows (--abstain)"
    assert told in capsys.readouterr().err
    if suffix == ".parquet":
        found = pq.read_table(out).to_pylist()
    elif suffix == ".jsonl":
        found = [json.loads(line) for line in out.read_text("utf-8").split("\n")[:-1]]
    else:
        found = list(csv.DictReader(io.StringIO(out.read_bytes().decode(), newline="")))
    nothing = "" if suffix == ".csv" else None
    for row, before in zip(found, pq.read_table(all_labels).to_pylist(), strict=True):
        if before["probability"] is None:
            assert {row["label"], row["probability"]} == {nothing}
            continue
        assert float(row["probability"]) == pytest.approx(before["probability"], abs=1e-6)
        is_kept = before["probability"] >= threshold
        for name in ("label", "label_2"):
            assert row[name] == (before[name] if is_kept else nothing)


def test_abstaining_in_lines(run, probabilities, monkeypatch, capfdbinary):
    texts = [text for text in TEXTS if not set(text) & set("\r\n\0") and len(text) < 300]
    threshold = float(np.median(probabilities.max(axis=1)))
    read_end = open_pipe("\n".join(texts).encode())
    monkeypatch.setattr("model.rows._STDIN", read_end)
    run_predict(run, "--abstain", threshold, "--scope")
    lines = [line.split("\t") for line in capfdbinary.readouterr().out.decode().splitlines()]
    assert len(lines) == len(texts)
    assert {len(line) for line in lines} == {3}
    for label, probability, scope in lines:
        assert (label == "") == (float(probability) < threshold)
        assert 0 <= float(scope) <= 1


def open_pipe(data: bytes) -> int:
    """The end to read from; the data must fit into a pipe."""
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    return read_end


def test_scope_is_the_share_of_validation_documents_no_more_familiar(run, source, tmp_path):
    out = tmp_path / "out.parquet"
    run_predict(run, source, "--out", out, "--scope")
    found = pq.read_table(out)
    assert found.column_names == ["text", "label", "probability", "scope"]
    *scopes, last = found["scope"].to_pylist()
    assert last is None
    energies = energy(build_infer(run, has_gpu=False)(pa.array(TEXTS)), TEMPERATURE).numpy()
    for scope, own in zip(scopes, energies, strict=True):  # TEXTS stand for the validation part
        assert (energies < own - 1e-6).mean() - 0.01 <= scope <= (energies <= own + 1e-6).mean()
    for clash in ("scope", "label"):
        pq.write_table(pa.table({"text": ["a"], clash: ["x"]}), tmp_path / "clash.parquet")
        run_predict(run, tmp_path / "clash.parquet", "--out", out, "--scope")
        assert pq.read_table(out)[f"input_{clash}"].to_pylist() == ["x"]


def test_scope_needs_a_validation_part(source, tmp_path):
    bare = make_run(tmp_path / "bare")
    with pytest.raises(UserError, match=r"--scope: .* nothing to compare with"):
        run_predict(bare, source, "--scope")
    run_predict(bare, source, "--out", tmp_path / "out.csv")  # and all else works
    bare.paths.calibration.write_text("{")
    with pytest.raises(UserError, match=r"calibration\.json: damaged"):
        run_predict(bare, source, "--out", tmp_path / "out.csv")


@pytest.mark.parametrize("command", [predict.main, evaluate.main])
@pytest.mark.parametrize("wrong", ["0", "1.5", "-1", "nan"])
def test_wrong_thresholds(command, wrong, run, source):
    data = ["--data"] if command is evaluate.main else []
    with pytest.raises(UserError, match=r"--abstain .*: must be above 0, and at most 1"):
        command([str(run.paths.folder), *data, str(source), f"--abstain={wrong}"])


def test_evaluate_by_hand(run, probabilities, capsys):
    labels = np.random.default_rng(0).integers(0, len(ODD_LABELS), len(TEXTS))
    labels = np.where(np.arange(len(TEXTS)) % 2, probabilities.argmax(axis=1), labels)
    rows = [(text, ODD_LABELS[label]) for text, label in zip(TEXTS, labels, strict=True)]
    found = run_evaluate(capsys, run, rows, "--abstain", "0.3")
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    assert found["temperature"] == TEMPERATURE
    assert found["ece"] == pytest.approx(bin_reliability(sure, right).error, abs=1e-5)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    assert found["calibrated_loss"] == pytest.approx(losses.mean(), abs=1e-4)
    logits = build_infer(run, has_gpu=False)(pa.array(TEXTS))
    log_p = tf.nn.log_softmax(logits).numpy()[np.arange(len(labels)), labels]
    assert found["loss"] == pytest.approx(-log_p.mean(), abs=1e-4)  # as training has it
    kept = sure >= 0.3
    assert found["abstain"] == {
        "threshold": 0.3, "num_answered": int(kept.sum()), "coverage": pytest.approx(kept.mean()),
        "accuracy": pytest.approx(right[kept].mean()),
    }  # fmt: skip


def test_out_of_scope_by_a_class_or_by_energy(run, probabilities, capsys):
    number = 0
    likely = np.argsort(-probabilities[:, number])[:40]
    labels = probabilities.argmax(axis=1).astype(object)
    labels = np.array([ODD_LABELS[label] for label in labels], object)
    labels[likely] = ODD_LABELS[number]
    rest = ~np.isin(np.arange(len(TEXTS)), likely) & (labels != ODD_LABELS[number])
    chosen = np.flatnonzero(rest | np.isin(np.arange(len(TEXTS)), likely))
    rows = [(TEXTS[i], labels[i]) for i in chosen]
    found = run_evaluate(capsys, run, rows, "--oos-label", ODD_LABELS[number])
    assert found["oos_score"] == "class"
    assert found["oos_auroc"] == found["oos_aurocs"]["class"] == 1
    assert found["num_oos"] == 40
    assert found["in_scope_accuracy"] == 1
    low = np.argsort(-np.log(probabilities).mean(axis=1))[:30]  # the least energy
    rows = [(t, "foreign" if i in low else ODD_LABELS[0]) for i, t in enumerate(TEXTS)]
    found = run_evaluate(capsys, run, rows, "--oos-label", "foreign")
    assert found["oos_score"] == "energy"
    assert found["oos_auroc"] > 0.99
    assert set(found["oos_aurocs"]) == {"energy", "probability"}
    for rows, which in (
        ([("word1", "plain")], "no document has"), ([("word1", "foreign")], "all documents have"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"--oos-label foreign: {which} that label"):
            run_evaluate(capsys, run, rows, "--oos-label", "foreign")


def test_a_training_calibrates_its_run(small_shards, tmp_path):
    out = tmp_path / "run"
    words = ["--data", str(small_shards.folder), "--out", str(out), "--gpus=none"]
    assert train.main([*SMALL, *words, "--label-smoothing=0.3"]) == 0  # it doubts too much
    summary = json.loads((out / "summary.json").read_text())
    calibration = read_calibration(RunPaths(out).calibration)
    assert summary["temperature"] == calibration.temperature != 1
    assert calibration.num_docs == summary["calibration"]["num_docs"] == summary["num_valid"]
    assert summary["calibration"]["loss_after"] < summary["calibration"]["loss_before"]
    assert summary["calibration"]["loss_before"] == pytest.approx(summary["loss"], abs=1e-4)
    run = open_run(out)
    assert run.calibration == calibration
    call = tf.saved_model.load(str(out / "export")).signatures["serving_default"]
    logits = build_infer(run, has_gpu=False)(pa.array(TEXTS))
    scaled = tf.nn.softmax(logits / calibration.temperature)
    np.testing.assert_allclose(
        call(text=tf.constant(TEXTS))["probabilities"], scaled, atol=1e-6
    )  # fmt: skip


def test_of_a_large_part_some_documents_are_asked(small_shards, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", labels=small_shards.labels, words=small_shards.words)
    num_valid = small_shards.num_docs("valid")
    whole = examination.examine(run, small_shards)
    assert whole.check is not None
    assert len(whole.check.right) == num_valid
    monkeypatch.setattr(examination, "sample_size", lambda num_classes: num_valid // 2 + 1)
    some = examination.examine(run, small_shards)
    assert some.check is not None
    assert len(some.check.right) == -(-num_valid // 2)
    np.testing.assert_allclose(some.check.before, whole.check.before[::2], atol=1e-5)
    monkeypatch.setattr(examination, "sample_size", lambda num_classes: 50)
    few = examination.examine(run, small_shards)
    assert few.check is None
    assert few.calibration == Calibration()
    assert not run.paths.calibration.exists()
    assert few.summary() == {"temperature": 1.0}
