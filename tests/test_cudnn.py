"""cuDNN's weights and op, as far as they can be checked without a GPU; equality on one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow.rnn import _standardize_cudnn_weights

from model.classifier import Classifier
from model.config import ModelConfig
from model.cudnn import pack_weights, run_cudnn, weights_of
from model.lstm import build_lstm


def _layers(sizes, hidden):
    layers = []
    for number, size in enumerate(sizes):
        layer = build_lstm(hidden, "float32", f"lstm_{number}", seed=number)
        layer.build((None, None, size))
        layer.cell.bias.assign(np.random.default_rng(number).normal(size=4 * hidden))
        layers.append(layer)
    return layers


def _emulate(params, x_TBD, hidden, num_layers):
    """What cuDNN documents that it computes from its flat weights, written down anew."""
    sizes = [x_TBD.shape[2], *[hidden] * (num_layers - 1)]
    matrices, place = [], 0
    for size in sizes:
        of_layer = []
        for columns in [size] * 4 + [hidden] * 4:
            of_layer.append(tf.reshape(params[place : place + hidden * columns], [hidden, columns]))
            place += hidden * columns
        matrices.append(of_layer)
    for of_layer in matrices:
        w, r = of_layer[:4], of_layer[4:]
        b = tf.reshape(params[place : place + 8 * hidden], [8, hidden])
        place += 8 * hidden
        h = c = tf.zeros([x_TBD.shape[1], hidden])
        outputs = []
        for x in tf.unstack(x_TBD):
            gates = [
                tf.matmul(x, w[g], transpose_b=True) + b[g]
                + tf.matmul(h, r[g], transpose_b=True) + b[4 + g]
                for g in range(4)
            ]  # fmt: skip
            i, f, o = (tf.sigmoid(gates[g]) for g in (0, 1, 3))
            c = f * c + i * tf.tanh(gates[2])
            h = o * tf.tanh(c)
            outputs.append(h)
        x_TBD = tf.stack(outputs)
    assert place == params.shape[0]
    return x_TBD


def test_packing_of_one_layer_is_keras_own():
    [layer] = _layers([5], 3)
    weights = weights_of(layer)
    bias = tf.concat([tf.zeros_like(weights.bias), weights.bias], axis=0)
    expected = _standardize_cudnn_weights(
        [*tf.split(weights.kernel, 4, 1), *tf.split(weights.recurrent_kernel, 4, 1)],
        tf.split(bias, 8), shape=[-1], transpose_weights=True,
    )  # fmt: skip
    np.testing.assert_array_equal(pack_weights([weights]), expected)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_packed_weights_mean_the_same_in_values_and_gradients(num_layers):
    hidden, size = 3, 5
    layers = _layers([size, *[hidden] * (num_layers - 1)], hidden)
    x = tf.constant(np.random.default_rng(7).normal(size=(4, 2, size)), tf.float32)
    mix = tf.constant(np.random.default_rng(8).normal(size=(4, 2, hidden)), tf.float32)
    variables = [v.value for layer in layers for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        packed = pack_weights([weights_of(layer) for layer in layers])
        ours = _emulate(packed, x, hidden, num_layers)
        loss = tf.reduce_sum(ours * mix)
    gradients = tape.gradient(loss, variables)
    with tf.GradientTape() as tape:
        theirs = tf.transpose(x, [1, 0, 2])
        for layer in layers:
            theirs = layer(theirs)
        theirs = tf.transpose(theirs, [1, 0, 2])
        loss = tf.reduce_sum(theirs * mix)
    expected = tape.gradient(loss, variables)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for gradient, other in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16])
def test_op_takes_our_shapes_and_types_and_has_a_gradient(dtype):
    """Shape functions run when a graph is built, GPU or not."""
    layers = [weights_of(layer) for layer in _layers([50, 42], 42)]
    with tf.Graph().as_default() as graph:
        constants = [
            type(w)(*(tf.constant(np.zeros(v.shape, np.float32)) for v in w)) for w in layers
        ]
        x = tf.compat.v1.placeholder(dtype, [None, None, 50])
        output = run_cudnn(constants, x)
        gradients = tf.gradients(output, [x, *constants[0], *constants[1]])
    assert output.dtype == dtype
    assert output.shape[-1] == 42
    [op] = [op for op in graph.get_operations() if op.type == "CudnnRNNV3"]
    inputs, state, _, params = op.inputs[:4]
    padded = (56, 48) if dtype == tf.float16 else (50, 42)
    assert (inputs.shape[-1], state.shape[0]) == (padded[0], 2)
    num_params = 4 * padded[1] * (padded[0] + 3 * padded[1] + 4)
    assert params.shape[0] == num_params
    for gradient, source in zip(gradients, [x, *constants[0], *constants[1]], strict=True):
        assert gradient.shape[1:].is_compatible_with(source.shape[1:])
        assert gradient.dtype == source.dtype


def test_padding_to_tensor_cores_changes_nothing():
    from model.cudnn import _pad_to_tensor_cores

    layers = [weights_of(layer) for layer in _layers([5, 3], 3)]
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 2, 5)), tf.float32)
    plain = _emulate(pack_weights(layers), x, 3, 2)
    padded, wide = _pad_to_tensor_cores(layers, x)
    assert wide.shape[2] == padded[0].recurrent_kernel.shape[0] == 8
    outputs = _emulate(pack_weights(padded), wide, 8, 2)
    np.testing.assert_allclose(outputs[:, :, :3], plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(outputs[:, :, 3:], 0)


def _count_calls(network, dropout_seed):
    classifier = Classifier(network, vocab_size=9, num_classes=4, unknown_id=1, route="cudnn")

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
    )
    def run(token_ids, lengths):
        return classifier.call(token_ids, lengths, dropout_seed)

    operations = run.get_concrete_function().graph.get_operations()
    return sum(op.type == "CudnnRNNV3" for op in operations)


def test_one_call_runs_all_layers_unless_dropout_is_between():
    seed = tf.constant([0, 0], tf.int64)
    two = {"num_layers": 2, "hidden": 8, "embedding_dim": 8}
    forward = ModelConfig(bidirectional=False, pooling="last", dropout=0.5, **two)
    assert _count_calls(forward, None) == 1
    assert _count_calls(forward, seed) == 2
    assert _count_calls(ModelConfig(bidirectional=False, dropout=0.0, **two), seed) == 1
    assert _count_calls(ModelConfig(bidirectional=True, **two), None) == 4


def _keras_outputs(layers, x_TBD):
    outputs = tf.transpose(x_TBD, [1, 0, 2])
    for layer in layers:
        outputs = layer(outputs)
    return tf.transpose(outputs, [1, 0, 2])


@pytest.mark.gpu
@pytest.mark.parametrize("num_docs", [1, 127, 1024])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float16])
def test_cudnn_equals_keras_in_values_and_gradients(dtype, num_docs, no_tensor_float):
    """Short and long; float16 has 11 bits, and errors add up over the tokens."""
    tolerance = 2e-4 if dtype == tf.float32 else 2e-2
    with tf.device("GPU"):
        layers = _layers([50, 40], 40)
        weights = [weights_of(layer) for layer in layers]
        variables = [v.value for layer in layers for v in layer.trainable_variables]
        for num_tokens in (1, 2, 7, 16, 27, 40):
            rng = np.random.default_rng(num_tokens)
            x = tf.constant(rng.normal(size=(num_tokens, num_docs, 50)), tf.float32)
            mix = tf.constant(rng.normal(size=(num_tokens, num_docs, 40)) / num_docs, tf.float32)
            results = []
            for run in (
                lambda x: tf.cast(run_cudnn(weights, tf.cast(x, dtype)), tf.float32),
                lambda x: _keras_outputs(layers, x),
            ):
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    outputs = run(x)
                    loss = tf.reduce_sum(outputs * mix)
                results.append([outputs, *tape.gradient(loss, [x, *variables])])
            for ours, theirs in zip(*results, strict=True):
                scale = max(1.0, float(tf.reduce_max(tf.abs(theirs))))
                np.testing.assert_allclose(ours / scale, theirs / scale, atol=tolerance)


def test_keras_has_not_moved_its_gates():
    """Keras orders gates i f c o, and so does cuDNN: a bias of one gate must act like that gate."""
    layer = keras.layers.LSTM(1, use_cudnn=False, unit_forget_bias=False)
    layer.build((None, None, 1))
    layer.set_weights([np.zeros((1, 4)), np.zeros((1, 4)), np.array([9.0, -9.0, 9.0, 9.0])])
    np.testing.assert_allclose(layer(np.zeros((1, 3, 1))), [[np.tanh(1.0)]], atol=1e-3)
