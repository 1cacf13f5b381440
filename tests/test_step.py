"""The training step: the same on one replica or several, dropout and all."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.devices import mirror
from model.optimizer import Adam
from model.step import build_train_chunk
from tfdata.config import PipelineConfig, TokenizerConfig
from tfdata.encode import Encoder
from tfdata.pipeline import BatchFeed
from tfdata.plan import choose_buckets
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource

NETWORKS = {
    "default": ModelConfig(embedding_dim=16, hidden=12),
    "two layers": ModelConfig(
        embedding_dim=10, hidden=7, num_layers=2, bidirectional=False, pooling="last", dropout=0.5
    ),
}


def _losses(shards, network, num_replicas, num_steps=20, num_blocks=1, lazy=False):
    vocabulary = Vocabulary.build(shards.words, TokenizerConfig())
    config = PipelineConfig(batch_size=90, num_buckets=3)
    source = WindowSource(
        shards, "train", Encoder(TokenizerConfig(), vocabulary, 60),
        vocab_size=len(vocabulary), config=config, shuffle_seed=0,
    )  # fmt: skip
    buckets = choose_buckets(shards.length_counts, 60, config)
    devices = [d.name for d in tf.config.list_logical_devices("CPU")[:num_replicas]]
    strategy = mirror(tuple(devices)) if num_replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        classifier = Classifier(
            network, vocab_size=len(vocabulary), num_classes=12, unknown_id=1, route="block"
        )
        training = TrainConfig(label_smoothing=0.1)
        adam = Adam(classifier.weights_by_name, training, num_steps, scale_loss=False)
        adam.begin(0, lazy)
        weights = np.linspace(0.5, 2, 12).astype(np.float32)
        feed = BatchFeed(source, buckets, seed=0, class_weights=weights, strategy=strategy)
        run = build_train_chunk(
            classifier, adam, feed.iterator, seed=0, label_smoothing=0.1, num_blocks=num_blocks
        )
        losses = [run(step, 1).loss / 90 for step in range(num_steps)]
    feed.close()
    return losses


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_curve_is_the_same_on_two_replicas(small_shards, name):
    alone = _losses(small_shards, NETWORKS[name], 1)
    assert alone[-1] < alone[0]
    np.testing.assert_allclose(_losses(small_shards, NETWORKS[name], 2), alone, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_curve_is_the_same_in_blocks(small_shards, name):
    whole = _losses(small_shards, NETWORKS[name], 1, num_steps=8)
    blocks = _losses(small_shards, NETWORKS[name], 1, num_steps=8, num_blocks=4)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_curve_is_the_same_with_a_lazy_embedding(small_shards, name):
    """Word dropout and padding included."""
    dense = _losses(small_shards, NETWORKS[name], 1)
    lazy = _losses(small_shards, NETWORKS[name], 1, lazy=True)
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
