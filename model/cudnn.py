"""LSTM layers by cuDNN, one call for the whole stack, from weights in Keras's layout.

`CudnnRNNV3` is the op that runs under cuDNN 9: those without lengths call what it no longer has. It
is given time-major inputs and lengths that are all that of the batch, so that cuDNN neither packs
nor unpacks them: right-padded texts read forward need no mask.
Legend: L layers, T tokens, B documents, D inputs, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

_TENSOR_CORE = 8  # float16 is fast where sizes are multiples of it


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


def run_cudnn(layers: Sequence[LstmWeights], x_TBD: tf.Tensor) -> tf.Tensor:
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
    with tf.device("CPU:0"):  # the op reads them on the host
        lengths = tf.fill([num_docs], num_tokens)
    output = tf.raw_ops.CudnnRNNV3(
        input=x_TBD, input_h=state, input_c=state, params=params, rnn_mode="lstm",
        sequence_lengths=lengths, time_major=True, is_training=True,
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
