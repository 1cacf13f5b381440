"""One LSTM layer, several ways to compute it, one set of weights in Keras's layout.

| route | where    | op                                                              |
|-------|----------|-----------------------------------------------------------------|
| block | CPU      | tf.raw_ops.BlockLSTM, fused                                      |
| cudnn | GPU      | tf.raw_ops.CudnnRNNV3, all layers in one call (model.cudnn)      |
| keras | anywhere | keras.layers.LSTM as a loop: the reference, and what is exported |

Texts are padded on the right and the LSTM reads forward, so the state at `lengths - 1` does not
depend on the padding and no mask is needed. The backward direction reads reversed texts.
Legend: T tokens, B documents, D inputs, H hidden units.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from model.cudnn import run_cudnn, weights_of

_LEAST_ROWS = 16  # of a block


def choose_route(route: str, has_gpu: bool, precision: str) -> tuple[str, str]:
    """The route to take and, in words, why.

    Raises:
      ValueError: the route asked for cannot run here.
    """
    if route == "cudnn" and not has_gpu:
        raise ValueError(f"--route {route}: needs a GPU and none is in use; choose auto or block")
    if route == "block" and (has_gpu or precision == "mixed_bfloat16"):
        raise ValueError("--route block: a CPU kernel without bfloat16; choose auto or keras")
    if route != "auto":
        return route, "asked for by --route"
    if has_gpu:
        return "cudnn", "a GPU is in use, and the network keeps to what cuDNN can do"
    if precision == "mixed_bfloat16":
        return "keras", "no GPU is in use, and the fused CPU kernel has no bfloat16"
    return "block", "no GPU is in use, so the fused CPU kernel"


def count_blocks(route: str, num_rows: int) -> int:
    """How many parts of a replica's batch, of `num_rows` or more, run side by side: one a core.

    The fused kernel splits each of its small products over the threads it is given, which costs
    more than it saves: on two cores, a layer of 128 texts took twice the time that two of 64 side
    by side did, on one thread each (bench/LOG.md).
    """
    num_cores = num_usable_cores() // tf.distribute.get_strategy().num_replicas_in_sync
    return max(1, min(num_cores, num_rows // _LEAST_ROWS)) if route == "block" else 1


def num_usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build_lstm(hidden: int, policy: str, name: str, seed: int) -> keras.layers.LSTM:
    """The layer that holds the weights: kernel [D, 4H], recurrent_kernel [H, 4H], bias [4H]."""
    return keras.layers.LSTM(
        hidden,
        return_sequences=True,
        use_cudnn=False,
        dtype=policy,
        name=name,
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        recurrent_initializer=_Orthogonal(seed + 1),
    )


class _Orthogonal(keras.initializers.Initializer):
    """Keras's default for recurrent kernels, drawn by numpy: the same on every device, and without
    the slow start of cuSOLVER, which Keras's own takes for its QR on a GPU.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def __call__(self, shape, dtype=None):
        rows, columns = shape
        normal = np.random.default_rng(self._seed).normal(size=(columns, rows))
        q, r = np.linalg.qr(normal)
        return tf.constant((q * np.sign(np.diag(r))).T, dtype or "float32")


def run_lstm(layer: keras.layers.LSTM, x_TBD: tf.Tensor, route: str) -> tf.Tensor:
    """All outputs of a forward LSTM: float[T, B, D] → float[T, B, H] of the same type."""
    if route == "block":
        return _run_block(layer, x_TBD)
    if route == "cudnn":
        return run_stack([layer], x_TBD)
    return tf.transpose(layer(tf.transpose(x_TBD, [1, 0, 2])), [1, 0, 2])


def run_stack(layers: Sequence[keras.layers.LSTM], x_TBD: tf.Tensor) -> tf.Tensor:
    """The same for layers one on the other, with nothing between them: one call of cuDNN."""
    return run_cudnn([weights_of(layer) for layer in layers], x_TBD)


def _run_block(layer: keras.layers.LSTM, x_TBD: tf.Tensor) -> tf.Tensor:
    """BlockLSTM, the first version: the gradient of BlockLSTMV2 is wrong."""
    dtype, hidden = x_TBD.dtype, layer.units
    kernel = tf.concat([layer.cell.kernel.value, layer.cell.recurrent_kernel.value], axis=0)
    state = tf.zeros([tf.shape(x_TBD)[1], hidden], dtype)
    peephole = tf.zeros([hidden], dtype)
    return tf.raw_ops.BlockLSTM(
        seq_len_max=tf.shape(x_TBD, out_type=tf.int64)[0],
        x=x_TBD,
        cs_prev=state,
        h_prev=state,
        w=tf.cast(_swap_gates(kernel), dtype),
        wci=peephole,
        wcf=peephole,
        wco=peephole,
        b=tf.cast(_swap_gates(layer.cell.bias.value), dtype),
        forget_bias=0.0,
        cell_clip=-1.0,
        use_peephole=False,
    ).h


def _swap_gates(weights: tf.Tensor) -> tf.Tensor:
    """Gates i f c o, as Keras orders them, to i c f o, as BlockLSTM does."""
    i, f, c, o = tf.split(weights, 4, axis=-1)
    return tf.concat([i, c, f, o], axis=-1)
