"""Texts that belong to none of the classes: how to know them, and how well that goes.

Legend: D documents, C classes.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def energy(logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """float32[D, C] → float32[D]: the higher, the more the network has recognised.

    logsumexp(logits / T) (Liu et al. 2020), less the mean of logits / T: softmax does not hold what
    is added to all logits, so neither may this. It equals minus the mean log-probability of a
    class.
    """
    scaled = logits / temperature
    return tf.reduce_logsumexp(scaled, axis=1) - tf.reduce_mean(scaled, axis=1)


def log_odds(logits: tf.Tensor, classes: tf.Tensor | int) -> tf.Tensor:
    """log(p / (1 − p)) of a class: float32[D, C] → float32[D]; finite where p rounds to 1.

    Args:
      classes: int32[D], or one for all documents.
    """
    num_docs, num_classes = tf.unstack(tf.shape(logits))
    is_own = tf.one_hot(tf.broadcast_to(classes, [num_docs]), num_classes, True, False)
    own = tf.boolean_mask(logits, is_own)
    return own - tf.reduce_logsumexp(tf.where(is_own, logits.dtype.min, logits), axis=1)


def auroc(scores: np.ndarray, is_out: np.ndarray) -> float:
    """The share of pairs, one document in scope and one out of it, that a score puts in the right
    order, the one out of scope lower; ties count half.

    >>> auroc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([False, False, True, True]))
    0.875
    """
    distinct, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    out = np.bincount(place[is_out], minlength=len(distinct))
    inside = counts - out
    below = np.cumsum(out) - out
    num_pairs = float(out.sum()) * float(inside.sum())
    return float(inside @ (below + out / 2) / num_pairs)
