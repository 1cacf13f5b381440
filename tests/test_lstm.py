"""Every LSTM route against keras.layers.LSTM: values and gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.classifier import Classifier
from model.config import ModelConfig
from model.lstm import build_lstm, choose_route, run_lstm


@pytest.mark.parametrize(("num_docs", "num_tokens"), [(1, 1), (3, 5), (16, 40)])
def test_block_equals_keras_in_values_and_gradients(num_docs, num_tokens):
    layer = build_lstm(6, "float32", "lstm", seed=1)
    layer.build((None, None, 4))
    layer.cell.bias.assign(np.random.default_rng(0).normal(size=24))
    x = tf.constant(np.random.default_rng(1).normal(size=(num_tokens, num_docs, 4)), tf.float32)
    mix = tf.constant(np.random.default_rng(2).normal(size=(num_tokens, num_docs, 6)), tf.float32)
    results = {}
    for route in ("keras", "block"):
        variables = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = run_lstm(layer, x, route)
            loss = tf.reduce_sum(outputs * mix)
        results[route] = [outputs, *tape.gradient(loss, [x, *variables])]
    for ours, theirs in zip(results["block"], results["keras"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)


def _classifier(route, **settings):
    config = ModelConfig(embedding_dim=8, hidden=6, dropout=0.0, word_dropout=0.0, **settings)
    return Classifier(config, vocab_size=30, num_classes=4, unknown_id=1, route=route, seed=3)


NETWORKS = [
    {"num_layers": 2, "bidirectional": False, "pooling": "last"},
    {"num_layers": 1, "bidirectional": True, "pooling": "last"},
    {"num_layers": 2, "bidirectional": True, "pooling": "max"},
    {"num_layers": 1, "bidirectional": True, "pooling": "max_mean"},
]


@pytest.mark.parametrize("settings", NETWORKS)
def test_more_padding_and_other_company_leave_the_logits_unchanged(settings):
    classifier = _classifier("block", **settings)
    rng = np.random.default_rng(0)
    lengths = np.array([1, 4, 7, 3], np.int32)
    ids = rng.integers(2, 30, (4, 7)).astype(np.int32)
    ids[np.arange(7) >= lengths[:, None]] = 0
    logits = classifier.call(tf.constant(ids), tf.constant(lengths))
    wide = np.pad(ids, [(0, 0), (0, 5)], constant_values=9)  # whatever stands in the padding
    padded = classifier.call(tf.constant(wide), tf.constant(lengths))
    np.testing.assert_allclose(padded, logits, atol=1e-6)
    for row, length in enumerate(lengths):
        alone = classifier.call(tf.constant(ids[row : row + 1, :length]), lengths[row : row + 1])
        np.testing.assert_allclose(alone[0], logits[row], atol=1e-6)


@pytest.mark.parametrize("settings", NETWORKS)
def test_routes_share_weights_by_name_and_agree(settings):
    block, reference = _classifier("block", **settings), _classifier("keras", **settings)
    assert block.weights_by_name.keys() == reference.weights_by_name.keys()
    for name, weight in block.weights_by_name.items():
        np.testing.assert_array_equal(weight, reference.weights_by_name[name])  # same seed
    ids = tf.constant(np.random.default_rng(0).integers(1, 30, (5, 9)), tf.int32)
    lengths = tf.constant([9, 1, 3, 8, 5])
    np.testing.assert_allclose(
        block.call(ids, lengths), reference.call(ids, lengths), rtol=1e-5, atol=1e-6
    )


def test_bidirectional_equals_the_keras_wrapper_with_a_mask():
    classifier = _classifier("block", num_layers=1, bidirectional=True, pooling="last", bag=False)
    forward, backward = classifier.lstms[0]
    ids = np.random.default_rng(0).integers(2, 30, (6, 9)).astype(np.int32)
    lengths = np.array([9, 1, 3, 8, 5, 2], np.int32)
    mask = np.arange(9) < lengths[:, None]
    x = tf.gather(classifier.words.tables["embedding"].value, ids)
    wrapper = keras.layers.Bidirectional(
        keras.layers.LSTM(6, use_cudnn=False),
        backward_layer=keras.layers.LSTM(6, go_backwards=True, use_cudnn=False),
    )
    wrapper.build(x.shape)
    wrapper.forward_layer.set_weights(forward.get_weights())
    wrapper.backward_layer.set_weights(backward.get_weights())
    expected = wrapper(x, mask=mask) @ classifier.dense.kernel + classifier.dense.bias
    logits = classifier.call(tf.constant(ids * mask), tf.constant(lengths))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("route", "precision"),  # BlockLSTM has no bfloat16 kernel, and choose_route refuses it
    [("block", "mixed_float16"), ("keras", "mixed_float16"), ("keras", "mixed_bfloat16")],
)
def test_mixed_precision_is_near_float32(route, precision):
    config = ModelConfig(embedding_dim=8, hidden=6, dropout=0.0, word_dropout=0.0)
    kwargs = {"vocab_size": 30, "num_classes": 4, "unknown_id": 1, "seed": 3}
    mixed = Classifier(config, route=route, precision=precision, **kwargs)
    full = Classifier(config, route=route, **kwargs)
    ids = tf.constant(np.random.default_rng(0).integers(1, 30, (5, 9)), tf.int32)
    lengths = tf.constant([9, 1, 3, 8, 5])
    logits = mixed.call(ids, lengths)
    assert logits.dtype == tf.float32
    np.testing.assert_allclose(logits, full.call(ids, lengths), atol=0.02)
    assert all(weight.dtype == tf.float32 for weight in mixed.weights_by_name.values())


@pytest.mark.parametrize(
    ("asked", "has_gpu", "dtype", "expected"),
    [
        ("auto", True, "float32", "cudnn"),
        ("auto", False, "float32", "block"),
        ("auto", False, "mixed_bfloat16", "keras"),
        ("keras", True, "float32", "keras"),
    ],
)
def test_route_goes_by_device_and_precision(asked, has_gpu, dtype, expected):
    route, why = choose_route(asked, has_gpu, dtype)
    assert route == expected
    assert why


@pytest.mark.parametrize(("route", "dtype"), [("cudnn", "float32"), ("block", "mixed_bfloat16")])
def test_a_route_that_cannot_run_names_its_flag(route, dtype):
    with pytest.raises(ValueError, match="--route"):
        choose_route(route, False, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", NETWORKS)
def test_cudnn_equals_keras_on_a_gpu(settings, no_tensor_float):
    with tf.device("GPU"):
        cudnn, reference = _classifier("cudnn", **settings), _classifier("keras", **settings)
        ids = tf.constant(np.random.default_rng(0).integers(1, 30, (5, 9)), tf.int32)
        lengths = tf.constant([9, 1, 3, 8, 5])
        np.testing.assert_allclose(
            cudnn.call(ids, lengths), reference.call(ids, lengths), rtol=1e-4, atol=1e-5
        )
