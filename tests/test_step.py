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


def _losses(shards, network, num_replicas, num_steps=20):
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
        weights = np.linspace(0.5, 2, 12).astype(np.float32)
        feed = BatchFeed(source, buckets, seed=0, class_weights=weights, strategy=strategy)
        run = build_train_chunk(classifier, adam, feed.iterator, seed=0, label_smoothing=0.1)
        losses = [run(step, 1).loss / 90 for step in range(num_steps)]
    feed.close()
    return losses


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_curve_is_the_same_on_two_replicas(small_shards, name):
    alone = _losses(small_shards, NETWORKS[name], 1)
    assert alone[-1] < alone[0]
    np.testing.assert_allclose(_losses(small_shards, NETWORKS[name], 2), alone, atol=1e-4)
