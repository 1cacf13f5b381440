"""bench.overfitting: order, buffers and splits are what they say, and a run of it."""

import json

import numpy as np
import pytest

from bench.arrangement import Documents, arrange
from bench.causes import CAUSES, macro_f1
from bench.overfitting import main
from shortline import UserError
from tests.checkup import make_corpus


def test_orders():
    rows = np.arange(1_000)
    plain = arrange(rows, 0, epochs=2, batch_size=128)
    assert plain.shape == (2, 7, 128)
    assert plain[1].ravel().tolist() == list(range(896))
    shuffled = arrange(rows, None, epochs=2, batch_size=100)
    assert sorted(shuffled[0].ravel()) == sorted(shuffled[1].ravel()) == rows.tolist()
    assert shuffled[0].tolist() != shuffled[1].tolist()
    buffered = arrange(rows, 50, epochs=1, batch_size=100)[0].ravel()
    moved = np.abs(buffered - rows)
    assert 20 < moved.mean() < 60
    assert sorted(buffered) == rows.tolist()


def test_ids_are_ranks_in_training_and_the_last_words_stay():
    rows = [("b a", "x"), ("a " * 50 + "end", "y"), ("new a", "x"), ("", "y")]
    documents = Documents(make_corpus(rows), np.arange(4))
    ids, lengths = documents.encode(np.array([True, True, False, True]))
    assert lengths.tolist() == [2, 40, 2, 1]
    a, b, end = ids[0, 1], ids[0, 0], ids[1, 39]
    assert a == 2
    assert {b, end} == {3, 4}
    assert ids[1].tolist() == [2] * 39 + [end]
    assert ids[2].tolist() == [1, 2] + [0] * 38
    assert not ids[3].any()


@pytest.mark.parametrize("split", ["row", "text", "tail"])
def test_splits(split):
    rows = [(f"text {i // 2}", f"c{i % 3}") for i in range(300)]
    held = Documents(make_corpus(rows), np.arange(300)).held_out(split)
    assert 20 <= held.sum() <= 40
    if split == "tail":
        assert held[270:].all()
    if split == "row":
        assert held.sum() == 30


def test_macro_f1_is_of_the_classes_that_occur():
    labels, predicted = np.array([0, 0, 3, 3]), np.array([0, 3, 3, 3])
    assert macro_f1(labels, predicted) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_settings_reach_the_network():
    flags = {cause.name: cause.flags() for cause in CAUSES}
    assert (flags["small"].model.hidden, flags["small"].model.embedding_dim) == (10, 12)
    assert flags["no_weights"].train.class_weights == "none"
    assert flags["default"].model.bidirectional


def test_an_unknown_cause_is_said():
    with pytest.raises(UserError, match="--causes moon: choose from shuffled, sorted"):
        main(["--causes", "moon"])


@pytest.mark.slow
def test_a_record(tmp_path, capsys):
    few = ["--docs", "2000", "--epochs", "2", "--causes", "shuffled", "sorted"]
    main([*few, "--out", str(tmp_path)])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads((tmp_path / "overfitting.json").read_text())
    for curve in result["causes"].values():
        assert len(curve["train"]) == len(curve["valid"]) == 2
    assert (tmp_path / "overfitting.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_doctor_foretells_an_unshuffled_run(tmp_path):
    """Sorted by class: the figures of its order finding against a network that is so trained."""
    from bench.arrangement import read_documents
    from bench.causes import run_cause
    from tfdata.checkup.order import measure_cost
    from tfdata.config import IngestConfig
    from tfdata.synthetic import write_corpus

    write_corpus(tmp_path / "a.parquet", 12_000, order="class")
    documents = read_documents([tmp_path / "a.parquet"], IngestConfig(), 12_000)
    cost = measure_cost(documents.corpus)
    causes = {cause.name: cause for cause in CAUSES}
    measured = {
        name: run_cause(documents, causes[name], epochs=2, batch_size=128).valid[-1]
        for name in ("shuffled", "sorted", "tail")
    }
    assert cost.unshuffled == pytest.approx(measured["sorted"], abs=0.1)
    assert measured["tail"] <= cost.tail <= 1 - cost.unseen
    assert measured["shuffled"] > 0.7, "the network has not learned: the test shows nothing"
