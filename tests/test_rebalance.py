"""Logits adjusted for the long tail, wherever a run is used."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

import train
from model.calibration import Calibration, write_calibration
from model.export import export_run
from model.infer import build_infer
from model.opened import open_run
from shortline import UserError
from tests.small_run import make_run, make_texts

TEXTS = make_texts(40)


def test_shift_is_in_all_answers_and_in_the_export(tmp_path):
    run = make_run(tmp_path)
    plain = build_infer(run, has_gpu=False)(pa.array(TEXTS)).numpy()
    shift = np.linspace(-2, 2, len(run.labels)).astype(np.float32)
    write_calibration(run.paths.calibration, Calibration(logit_shift=tuple(shift.tolist())))
    run = open_run(run.paths.folder)
    np.testing.assert_allclose(
        build_infer(run, has_gpu=False)(pa.array(TEXTS)), plain + shift, atol=1e-5
    )
    export_run(run, tmp_path / "export")
    serve = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    np.testing.assert_allclose(
        serve(text=tf.constant(TEXTS))["probabilities"], tf.nn.softmax(plain + shift), atol=1e-5
    )


def test_a_shift_of_other_classes_is_damage(tmp_path):
    run = make_run(tmp_path)
    write_calibration(run.paths.calibration, Calibration(logit_shift=(1.0,)))
    with pytest.raises(UserError, match="logit_shift"):
        open_run(run.paths.folder).build_classifier("keras")


def test_training_says_what_it_did_and_finishing_twice_changes_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--docs", "2000", "--epochs", "3", "--gpus", "none", "--hidden", "8",
             "--embedding-dim", "16", "--pairs", "1024", "--pieces", "1024"]  # fmt: skip
    assert train.main([*words, "--out", str(out)]) == 0
    first = json.loads((out / "summary.json").read_text())
    power = first["long_tail"]["power"]
    assert ("long tail: logits less" in capsys.readouterr().out) == (power != 0)
    (out / "summary.json").unlink()
    calibration = (out / "calibration.json").read_text()
    assert train.main(["--resume", str(out), "--gpus", "none"]) == 0
    again = json.loads((out / "summary.json").read_text())
    assert (out / "calibration.json").read_text() == calibration
    assert {k: first[k] for k in ("accuracy", "macro_f1", "long_tail")} == {
        k: again[k] for k in ("accuracy", "macro_f1", "long_tail")
    }
    run = open_run(out)
    assert bool(run.calibration.logit_shift) == (power != 0)
    bare = dataclasses.replace(run, calibration=Calibration())
    difference = build_infer(run, False)(pa.array(TEXTS)) - build_infer(bare, False)(
        pa.array(TEXTS)
    )
    shift = np.array(run.calibration.logit_shift or [0.0] * len(run.labels), np.float32)
    np.testing.assert_allclose(difference, np.tile(shift, (len(TEXTS), 1)), atol=1e-4)
