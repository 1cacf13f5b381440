"""LSTM layers by cuDNN, one call for the whole stack, from weights in Keras's layout.

`CudnnRNNV2` knows no lengths and no mask, which right-padded texts read forward do not need. In
return it may take any of cuDNN's algorithms: it times them at the first call of each shape and
keeps the best. `CudnnRNNV3`, which keras.layers.LSTM takes, has the standard algorithm alone.
Legend: L layers, T tokens, B documents, D inputs, H hidden units.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

KERNELS: tuple[str, ...] = ("v2", "v3")
_TENSOR_CORE = 8  # float16 is fast where sizes are multiples of it
_TIMED_CALLS = 5


class LstmWeights(NamedTuple):
    """One layer, gates in the order i f c o."""

    kernel: tf.Tensor
    """float32[D, 4H]."""
    recurrent_kernel: tf.Tensor
    """float32[H, 4H]."""
    bias: tf.Tensor
    """float32[4H]."""


def weights_of(layer: keras.layers.LSTM) -> LstmWeights:
    cell = layer.cell
    return LstmWeights(cell.kernel.value, cell.recurrent_kernel.value, cell.bias.value)


def pack_weights(layers: Sequence[LstmWeights]) -> tf.Tensor:
    """The flat vector that cuDNN reads: float32[n].

    First, for each layer, the four matrices of the input, [H, D], and the four of the state,
    [H, H]; then for each layer two biases a gate, of which Keras has one (cuDNN's documentation of
    cudnnGetRNNWeightParams; Keras's `_standardize_cudnn_weights` for a single layer).
    """
    matrices, biases = [], []
    for layer in layers:
        for matrix in (layer.kernel, layer.recurrent_kernel):
            matrices.append(tf.reshape(tf.transpose(matrix), [-1]))  # gates are rows now
        biases += [tf.zeros_like(layer.bias), layer.bias]
    return tf.concat(matrices + biases, axis=0)


def run_cudnn(layers: Sequence[LstmWeights], x_TBD: tf.Tensor, kernel: str = "v2") -> tf.Tensor:
    """The last layer's outputs, float[T, B, H], all layers of one size; needs a GPU to run.

    Computes in the type of x; float16 is padded to what tensor cores take.
    """
    hidden = layers[0].recurrent_kernel.shape[0]
    dtype = x_TBD.dtype
    if dtype == tf.float16:
        layers, x_TBD = _pad_to_tensor_cores(layers, x_TBD)
    padded = layers[0].recurrent_kernel.shape[0]
    num_tokens, num_docs, _ = tf.unstack(tf.shape(x_TBD))
    state = tf.zeros([len(layers), num_docs, padded], dtype)
    params = tf.cast(pack_weights(layers), dtype)
    if kernel == "v2":
        output = tf.raw_ops.CudnnRNNV2(
            input=x_TBD, input_h=state, input_c=state, params=params, rnn_mode="lstm",
            is_training=True,
        ).output  # fmt: skip
    else:
        output = tf.raw_ops.CudnnRNNV3(
            input=x_TBD, input_h=state, input_c=state, params=params, rnn_mode="lstm",
            sequence_lengths=tf.fill([num_docs], num_tokens), time_major=True, is_training=True,
        ).output  # fmt: skip
    return output if padded == hidden else output[:, :, :hidden]


def _pad_to_tensor_cores(
    layers: Sequence[LstmWeights], x_TBD: tf.Tensor
) -> tuple[list[LstmWeights], tf.Tensor]:
    """Inputs of 0, and hidden units that stay 0, until sizes are multiples of 8."""
    hidden = layers[0].recurrent_kernel.shape[0]
    more = -hidden % _TENSOR_CORE

    def pad_gates(weights: tf.Tensor, more_rows: int) -> tf.Tensor:
        gates = tf.reshape(weights, [-1, 4, hidden])
        gates = tf.pad(gates, [[0, more_rows], [0, 0], [0, more]])
        return tf.reshape(gates, [gates.shape[0], 4 * (hidden + more)])

    padded = []
    for layer in layers:
        more_inputs = -layer.kernel.shape[0] % _TENSOR_CORE
        kernel = pad_gates(layer.kernel, more_inputs)
        recurrent_kernel = pad_gates(layer.recurrent_kernel, more)
        bias = tf.reshape(pad_gates(layer.bias, 0), [-1])
        padded.append(LstmWeights(kernel, recurrent_kernel, bias))
    return padded, tf.pad(x_TBD, [[0, 0], [0, 0], [0, -layers[0].kernel.shape[0] % _TENSOR_CORE]])


def choose_kernel(
    layers: Sequence[LstmWeights], shapes: Sequence[tuple[int, int]], dtype: tf.DType
) -> tuple[str, dict[str, float]]:
    """The faster of `KERNELS` here, by a forward and backward pass at each (B, T), and their ms.

    Needs a GPU. The first calls, in which cuDNN chooses its algorithms, are not timed.
    """
    total_ms = dict.fromkeys(KERNELS, 0.0)
    # copies: mirrored variables have no gradient outside of a replica
    layers = [LstmWeights(*map(tf.identity, layer)) for layer in layers]
    for num_docs, num_tokens in shapes:
        x_TBD = tf.random.stateless_normal(
            [num_tokens, num_docs, layers[0].kernel.shape[0]], [1, 2]
        )
        x_TBD = tf.cast(x_TBD, dtype)
        for kernel in KERNELS:
            run = _build_pass(layers, x_TBD, kernel)
            try:
                run().numpy()
            except tf.errors.InternalError:  # cuDNN 9 has lost what V2 calls
                total_ms[kernel] = math.inf
                continue
            started = time.perf_counter()
            for _ in range(_TIMED_CALLS):
                run().numpy()
            total_ms[kernel] += 1000 * (time.perf_counter() - started) / _TIMED_CALLS
    return min(total_ms, key=total_ms.__getitem__), total_ms


def _build_pass(layers: Sequence[LstmWeights], x_TBD: tf.Tensor, kernel: str):
    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch([x_TBD, layers])
            total = tf.reduce_sum(tf.cast(run_cudnn(layers, x_TBD, kernel), tf.float32))
        gradients = tape.gradient(total, [x_TBD, *(tf.nest.flatten(list(layers)))])
        return tf.add_n([tf.reduce_sum(tf.cast(g, tf.float32)) for g in gradients])

    return run
