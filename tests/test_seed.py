"""`--preset seed` against the Keras model that it restates: same weights, same batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.devices import mirror
from model.flags import PRESETS, read_flags
from model.losses import class_weights
from model.optimizer import Adam
from model.step import build_train_chunk
from tfdata.config import PipelineConfig, TokenizerConfig
from tfdata.encode import Encoder
from tfdata.pipeline import BatchFeed
from tfdata.plan import choose_buckets
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource


class DenseAdam(keras.optimizers.Adam):
    """Keras 3's, but for its sum of squares: of an embedding row that occurs n times in a batch it
    adds up the squares of n gradients, where Adam squares their sum. Keras 2, which the seed's
    script ran on, sums first.
    """

    def apply(self, grads, trainable_variables=None):
        return super().apply([tf.convert_to_tensor(g) for g in grads], trainable_variables)


def _keras_model(version, vocab_size: int, num_classes: int):
    """The seed's, without its dropout, whose random numbers are Keras's own."""
    model = version.Sequential(
        [
            version.layers.InputLayer([None], dtype="int32"),
            version.layers.Embedding(vocab_size, 50, mask_zero=True),
            version.layers.LSTM(40, return_sequences=True),
            version.layers.LSTM(40),
            version.layers.Dense(num_classes, activation="softmax"),
        ]
    )
    adam = DenseAdam() if version is keras else version.optimizers.Adam()
    model.compile(adam, "sparse_categorical_crossentropy")
    return model


def test_preset_is_the_seeds_network():
    flags = read_flags(["--preset", "seed"])
    classifier = Classifier(
        flags.model, vocab_size=20_000, num_classes=60, unknown_id=0, route="block"
    )
    oracle = _keras_model(keras, 20_000, 60)
    shapes = [tuple(w.shape) for w in oracle.get_weights()]
    assert [tuple(w.shape) for w in classifier.weights_by_name.values()] == shapes
    assert flags.model.dropout == 0.5
    assert flags.train.class_weights == "seed"


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("version", [keras, tf_keras])
def test_first_ten_losses_equal_those_of_keras(small_shards, version, num_replicas):
    settings = PRESETS["seed"]
    fields = ModelConfig.__dataclass_fields__
    network = ModelConfig(**{**{k: v for k, v in settings.items() if k in fields}, "dropout": 0.0})
    fields = TrainConfig.__dataclass_fields__
    training = TrainConfig(**{k: v for k, v in settings.items() if k in fields})
    fields = TokenizerConfig.__dataclass_fields__
    tokens = TokenizerConfig(**{k: v for k, v in settings.items() if k in fields})
    vocabulary = Vocabulary.build(small_shards.words, tokens)
    weights = class_weights(small_shards.label_counts, "seed", normalize=False)
    config = PipelineConfig(batch_size=128)
    buckets = choose_buckets(small_shards.length_counts, 40, config)
    source = WindowSource(
        small_shards, "train", Encoder(tokens, vocabulary, 40),
        vocab_size=len(vocabulary), config=config, shuffle_seed=0,
    )  # fmt: skip
    devices = [d.name for d in tf.config.list_logical_devices("CPU")[:num_replicas]]
    strategy = mirror(tuple(devices)) if num_replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        classifier = Classifier(
            network, vocab_size=len(vocabulary), num_classes=12,
            unknown_id=vocabulary.unknown_id, route="block",
        )  # fmt: skip
        adam = Adam(classifier.weights_by_name, training, 10, scale_loss=False)
        feed = BatchFeed(source, buckets, seed=0, class_weights=weights, strategy=strategy)
        run = build_train_chunk(classifier, adam, feed.iterator, seed=0)
    oracle = _keras_model(version, len(vocabulary), 12)
    oracle.set_weights([w.numpy() for w in classifier.weights_by_name.values()])
    again = BatchFeed(source, buckets, seed=0, class_weights=weights)
    for step in range(10):
        batch = next(again.iterator)
        # a word of id 0 is not masked by ours, and Keras's mask_zero must see none
        real = batch.docs.numpy() >= 0
        assert (batch.token_ids.numpy()[real, 0] != 0).all()
        sums = run(step, 1)
        weighted = (batch.weights * batch.scale).numpy()
        expected = oracle.train_on_batch(batch.token_ids.numpy(), batch.labels.numpy(), weighted)
        oracle.reset_metrics()
        assert sums.loss / sums.num_docs == pytest.approx(float(expected), abs=1e-4)
    feed.close()
    again.close()
    for ours, theirs in zip(classifier.weights_by_name.values(), oracle.get_weights(), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-4)
