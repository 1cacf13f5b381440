"""The peers of bench.epoch: on the split that we train on, in the words that we train on."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import arms
from bench.peers import corpus
from bench.peers.record import compute_macro_f1
from shortline import UserError
from tests.records import SCHEMA

ROOT = Path(__file__).parents[1]
EPOCH = {"epoch", "seconds", "train_seconds", "accuracy", "macro_f1"}


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
    words = ["--epochs", "12", "--torch-threads", "1", "--precision", precision]
    peer.main([str(small_shards.folder), "--batch-size", "32", *words])
    record = _check_peer(capsys.readouterr().out, 12, small_shards)
    assert record["epochs"][-1]["accuracy"] > 0.6


@pytest.mark.slow
def test_fasttext_peer(small_shards, capsys, temporary):
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
    assert not list(temporary.iterdir())


def _make_split(num_docs):
    labels = np.arange(num_docs, dtype=np.int32) % 5
    return corpus.Split(
        train_texts=["word " * (n % 7) for n in range(num_docs)], train_labels=labels,
        valid_texts=["word"], valid_labels=labels[:1], num_classes=5,
    )  # fmt: skip


def test_keras_right_shuffles_all_documents_into_every_epoch():
    from bench.peers.keras_right import build_dataset

    split = _make_split(103)
    ids = np.arange(103, dtype=np.int32)
    dataset = build_dataset({"ids": ids}, split, batch_size=10, seed=0)
    assert dataset.cardinality() == 11
    epochs = [list(dataset.as_numpy_iterator()) for _ in range(2)]
    orders = [np.concatenate([batch[0]["ids"] for batch in epoch]) for epoch in epochs]
    for epoch, order in zip(epochs, orders, strict=True):
        assert [len(batch[1]) for batch in epoch] == [10] * 10 + [3]
        assert sorted(order) == ids.tolist()
        labels = np.concatenate([batch[1] for batch in epoch])
        np.testing.assert_array_equal(labels, split.train_labels[order])
        weights = np.concatenate([batch[2] for batch in epoch])
        np.testing.assert_array_equal(weights, split.class_weights[labels])
    assert not np.array_equal(*orders)
    assert np.abs(np.diff(orders[0])).mean() > 20  # 34 of a fair shuffle


def test_keras_is_compiled_before_its_first_epoch_and_its_weights_stay():
    import keras

    from bench.peers.keras_seed import warm_up

    traced, calls = [], []

    class Dense(keras.layers.Dense):
        def call(self, inputs, training=None):
            traced.append(1)
            return super().call(inputs, training)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), Dense(3)])
    model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
    x, y = np.ones((23, 4), np.float32), np.zeros((23, 3), np.float32)

    def fit(num_docs):
        before = [weight.numpy().copy() for weight in model.weights]
        model.fit(x[:num_docs], y[:num_docs], batch_size=10, verbose=0)
        calls.append((before, len(traced)))

    warm_up(model, lambda: fit(13))
    (before, _), weights = calls[0], [weight.numpy() for weight in model.weights]
    for ours, theirs in zip(weights, before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model.optimizer.iterations.numpy() == 0
    fit(23)
    assert calls[1][1] == calls[0][1]  # nothing was traced again


def test_torch_is_warmed_up_and_its_weights_stay():
    torch = pytest.importorskip("torch", reason="pip install -e '.[peers]'")
    from bench.peers import torch_lstm

    split = _make_split(30)
    train, _ = corpus.encode(split.train_texts, split.valid_texts)
    device = torch.device("cpu")
    layers, forward = torch_lstm._build_network(torch, 5, device)
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    random, calls = torch.get_rng_state(), []

    def count(*args):
        calls.append(len(args[0]))
        return forward(*args)

    flags = torch_lstm.TorchFlags(shards=Path("x"), batch_size=8)
    run = torch_lstm._build_training(torch, layers, count, train, split, flags, device)
    assert calls == [8]
    assert torch.equal(torch.get_rng_state(), random)
    for name, value in layers.state_dict().items():
        assert torch.equal(value, before[name]), name
    run()
    assert calls == [8, 8, 8, 8, 6]
    assert not torch.equal(layers["dense"].weight, before["dense.weight"])
