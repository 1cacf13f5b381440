"""The training step: the same on one replica or several, dropout and all."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.devices import mirror
from model.opened import describe_words
from model.optimizer import Adam
from model.pairs import find_pairs
from model.state import State
from model.step import ChunkMetrics, build_train_chunk
from model.words import TABLES
from tfdata.config import PipelineConfig, TokenizerConfig
from tfdata.encode import Encoder
from tfdata.pipeline import BatchFeed
from tfdata.plan import choose_buckets
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource

ROOT = Path(__file__).parents[1]
NETWORKS = {
    "default": ModelConfig(embedding_dim=16, hidden=12, pieces=300, pairs=1024, pairs_dim=8),
    "two layers": ModelConfig(
        embedding_dim=10,
        hidden=7,
        num_layers=2,
        bidirectional=False,
        pooling="last",
        dropout=0.5,
        pieces=0,
        pairs=0,
        bag=False,
    ),
}


def _losses(shards, network, num_replicas, num_steps=20, num_blocks=1, lazy=()):
    chunks = _metrics(shards, network, num_replicas, num_steps, num_blocks, lazy)
    return [chunk.loss / 88 for chunk in chunks]


def _metrics(shards, network, num_replicas, num_steps=21, num_blocks=1, lazy=()):
    tokenizer = TokenizerConfig(vocab_size=1000, stems=4 if network.pieces else 0)
    vocabulary = Vocabulary.build(shards.words, tokenizer)
    config = PipelineConfig(batch_size=88, num_buckets=3)
    source = WindowSource(
        shards, "train", Encoder(tokenizer, vocabulary, 60),
        vocab_size=len(vocabulary), config=config, shuffle_seed=0,
    )  # fmt: skip
    buckets = choose_buckets(shards.length_counts, 60, config)
    devices = [d.name for d in tf.config.list_logical_devices("CPU")[:num_replicas]]
    strategy = mirror(tuple(devices)) if num_replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        classifier = Classifier(
            network, vocab_size=len(vocabulary), num_classes=12, unknown_id=1, route="block",
            parts=describe_words(vocabulary, tokenizer, network),
        )  # fmt: skip
        if network.pairs:
            keys = find_pairs(source, network.pairs - 1)
            assert len(keys) > 100
            classifier.words.list_pairs(keys)
        training = TrainConfig(label_smoothing=0.1)
        adam = Adam(classifier.weights_by_name, training, num_steps, scale_loss=False)
        adam.begin(0, lazy)
        weights = np.linspace(0.5, 2, 12).astype(np.float32)
        feed = BatchFeed(source, buckets, seed=0, class_weights=weights, strategy=strategy)
        run = build_train_chunk(
            classifier, adam, feed.iterator, seed=0, label_smoothing=0.1, num_blocks=num_blocks
        )
        chunks = [run(step, 1) for step in range(num_steps)]
    feed.close()
    return chunks


def _assert_same(ours, alone, num_docs):
    """An epoch's chunks of a step, in which each document counts once."""
    assert alone[-1].loss / alone[-1].num_docs < alone[0].loss / alone[0].num_docs
    assert [chunk.num_docs for chunk in ours] == [chunk.num_docs for chunk in alone]
    assert sum(chunk.num_docs for chunk in ours) == num_docs
    means = [[chunk.loss / chunk.num_docs for chunk in chunks] for chunks in (ours, alone)]
    np.testing.assert_allclose(*means, atol=1e-4)
    correct = [sum(chunk.num_correct for chunk in chunks) for chunks in (ours, alone)]
    assert abs(correct[0] - correct[1]) <= 2  # where two classes are as likely


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_curve_is_the_same_on_two_replicas(small_shards, name):
    alone = _metrics(small_shards, NETWORKS[name], 1)
    ours = _metrics(small_shards, NETWORKS[name], 2)
    _assert_same(ours, alone, small_shards.num_docs("train"))


@pytest.mark.parametrize("num_replicas", [3, 4])
def test_loss_curve_is_the_same_on_more_replicas(small_shards, num_replicas):
    """88 do not divide by 3; of the last batch's 40 the fourth of four replicas gets none.

    In a process of its own: TensorFlow takes groups of 2 and of 3 for the same.
    """
    script = f"""
import json
import tests.conftest
from pathlib import Path
from tests.test_step import NETWORKS, _metrics
from tfdata.shards import open_shards
shards = open_shards(Path({str(small_shards.folder)!r}))
print(json.dumps(_metrics(shards, NETWORKS["default"], {num_replicas})))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ours = [ChunkMetrics(*chunk) for chunk in json.loads(done.stdout.splitlines()[-1])]
    alone = _metrics(small_shards, NETWORKS["default"], 1)
    _assert_same(ours, alone, small_shards.num_docs("train"))


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_the_mean_loss_is_of_the_documents_whose_losses_are_summed(
    small_shards, monkeypatch, num_replicas
):
    """Not of those in a step that was skipped, whose loss says nothing."""
    plain = _metrics(small_shards, NETWORKS["default"], num_replicas, 3)
    monkeypatch.setattr(tf.math, "is_finite", lambda x: tf.zeros_like(x, tf.bool))
    skipped = _metrics(small_shards, NETWORKS["default"], num_replicas, 3)
    state = State()
    for chunk in (plain[0], skipped[1], skipped[2]):
        state.add_chunk(chunk, 1, 1.0)
    assert state.num_docs == 3 * plain[0].num_docs
    assert state.mean_loss == pytest.approx(plain[0].loss / plain[0].num_docs)
    assert plain[0].mean_loss == pytest.approx(state.mean_loss)
    assert math.isnan(skipped[1].mean_loss)
    assert skipped[1].num_bad_steps == 1


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_curve_is_the_same_in_blocks(small_shards, name):
    whole = _losses(small_shards, NETWORKS[name], 1, num_steps=8)
    blocks = _losses(small_shards, NETWORKS[name], 1, num_steps=8, num_blocks=4)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_curve_is_the_same_with_lazy_tables(small_shards, name):
    """Word dropout and padding included."""
    dense = _losses(small_shards, NETWORKS[name], 1)
    lazy = _losses(small_shards, NETWORKS[name], 1, lazy=TABLES)
    np.testing.assert_allclose(lazy, dense, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("num_docs", [3, 5])
def test_blocks_change_neither_logits_nor_gradients(name, num_docs):
    classifier = Classifier(
        NETWORKS[name], vocab_size=30, num_classes=4, unknown_id=1, route="block"
    )
    lengths = tf.constant([1, 3, 6, 6, 9][:num_docs])
    token_ids = tf.random.stateless_uniform([num_docs, 9], [1, 2], 1, 30, tf.int32)
    token_ids *= tf.cast(tf.sequence_mask(lengths, 9), tf.int32)
    seed = tf.constant([0, 7], tf.int64)
    results = []
    for num_blocks in (1, 3):
        with tf.GradientTape() as tape:
            logits = classifier.call(token_ids, lengths, seed, 0, num_blocks)
            loss = tf.reduce_sum(logits * tf.range(4, dtype=tf.float32))
        gradients = tape.gradient(loss, list(classifier.weights_by_name.values()))
        results.append([logits, *map(tf.convert_to_tensor, gradients)])
    for blocks, whole in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(blocks, whole, rtol=1e-4, atol=1e-5)
