"""The export against predict, in a process that knows TensorFlow and nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from model.devices import mirror
from model.export import export_run, main
from model.infer import build_infer
from shortline import UserError
from tests.small_run import ODD_LABELS, make_run, make_texts, make_wordpiece_run

CLIENT = """
import json, sys
import tensorflow as tf

def serve(folder, texts):
    call = tf.saved_model.load(folder).signatures["serving_default"]
    found = {}
    for name in texts:
        values = call(text=tf.constant(texts[name], tf.string))
        found[name] = {key: value.numpy().tolist() for key, value in values.items()}
        found[name]["label"] = [label.decode() for label in found[name]["label"]]
        found[name]["shapes"] = {key: list(value.shape) for key, value in values.items()}
    return found

texts = json.load(sys.stdin)
found = {"word": serve(sys.argv[1], texts)}
found["modules"] = [m for m in sys.modules if m.split(".")[0] in
                    ("model", "tfdata", "shortline", "tensorflow_text")]
import tensorflow_text
found["wordpiece"] = serve(sys.argv[2], texts)
json.dump(found, sys.stdout)
"""
TEXTS = make_texts(1000)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {"word": make_run(folder / "w"), "wordpiece": make_wordpiece_run(folder / "wp")}


@pytest.fixture(scope="module")
def served(runs, tmp_path_factory):
    """What the exports say in another process."""
    folder = tmp_path_factory.mktemp("exports")
    for name, run in runs.items():
        export_run(run, folder / name)
    texts = {"all": TEXTS, "none": [], "one": [TEXTS[40]], "empty": [""], "unknown": ["zzz zz"]}
    client = [sys.executable, "-c", CLIENT, str(folder / "word"), str(folder / "wordpiece")]
    done = subprocess.run(
        client, input=json.dumps(texts), capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_needs_tensorflow_alone(served):
    assert served["modules"] == []


@pytest.mark.parametrize("name", ["word", "wordpiece"])
def test_agrees_with_predict(runs, served, name):
    logits = build_infer(runs[name], has_gpu=False)(pa.array(TEXTS))
    probabilities = tf.nn.softmax(logits).numpy()
    answer = served[name]["all"]
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(answer["probability"], probabilities.max(1), atol=1e-5)
    assert answer["label"] == [ODD_LABELS[best] for best in probabilities.argmax(1)]
    assert len(set(answer["label"])) > 2  # else equality would say little


@pytest.mark.parametrize("name", ["word", "wordpiece"])
def test_few_texts_and_none(served, name):
    answers = served[name]
    assert answers["none"]["shapes"] == {
        "label": [0], "probability": [0], "probabilities": [0, len(ODD_LABELS)]
    }  # fmt: skip
    expected = answers["all"]["probability"][40:41]  # sums over other padding round otherwise
    np.testing.assert_allclose(answers["one"]["probability"], expected, rtol=1e-5)
    assert answers["empty"]["probability"] == pytest.approx(answers["all"]["probability"][:1])
    assert answers["unknown"]["shapes"]["probabilities"] == [1, len(ODD_LABELS)]


def test_says_what_it_needs(runs, tmp_path, capsys):
    assert main([str(runs["wordpiece"].paths.folder), "--out", str(tmp_path / "a")]) == 0
    assert "import tensorflow_text" in capsys.readouterr().out
    assert "import tensorflow_text" in (tmp_path / "a" / "README.txt").read_text()
    assert main([str(runs["word"].paths.folder), "--out", str(tmp_path / "b")]) == 0
    assert "tensorflow_text" not in (tmp_path / "b" / "README.txt").read_text()
    labels = (tmp_path / "b" / "labels.txt").read_text()
    assert labels == runs["word"].paths.labels.read_text()


def test_under_a_strategy(runs, tmp_path):
    strategy = mirror(("CPU:0", "CPU:1"))
    with strategy.scope():
        export_run(runs["word"], tmp_path / "export")
    call = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    logits = build_infer(runs["word"], has_gpu=False)(pa.array(TEXTS[20:60]))
    answer = call(text=tf.constant(TEXTS[20:60]))
    np.testing.assert_allclose(answer["probabilities"], tf.nn.softmax(logits), atol=1e-5)


def test_whole_or_not_at_all(runs, tmp_path, monkeypatch):
    out = tmp_path / "export"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(UserError, match=r"--out .*export: is not empty"):
        main([str(runs["word"].paths.folder), "--out", str(out)])
    with pytest.raises(UserError, match="not empty"):
        export_run(runs["word"], out)

    def fail(module, folder, signatures):
        (tmp_path / folder / "saved_model.pb").write_text("half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            export_run(runs["word"], out, replace=True)
        with pytest.raises(OSError, match="disk full"):
            export_run(runs["word"], tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert (out / "mine").read_text() == "x"

    export_run(runs["word"], out, replace=True)
    assert (out / "saved_model.pb").exists()
    assert not (out / "mine").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_wrong_paths(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder"):
        main([str(runs["word"].paths.folder), "--out", str(tmp_path / "file")])
    with pytest.raises(UserError, match="not the folder of a run"):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match="--out"):
        main([str(tmp_path)])
