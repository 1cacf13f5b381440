"""What the training minimises. Legend: B documents, C classes."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def class_weights(counts: np.ndarray, scheme: str, normalize: bool) -> np.ndarray:
    """float32[C], the weight in the loss of a document of each class.

    Args:
      counts: int64[C], training documents of each class.
      scheme: none; seed: max(1, ln(0.5 · total / count)); balanced: total / (C · count);
        effective: (1 - b) / (1 - b^count), b = 0.999 (Cui et al. 2019, arXiv:1901.05555).
      normalize: scales the weights to a mean of 1 over the training documents, so that the loss
        and the learning rate keep their meaning.

    >>> class_weights(np.array([90, 10]), "balanced", True).round(2).tolist()
    [0.56, 5.0]
    """
    counts = np.maximum(counts, 1).astype(np.float64)
    total = counts.sum()
    if scheme == "seed":
        weights = np.maximum(1.0, np.log(0.5 * total / counts))
    elif scheme == "balanced":
        weights = total / (len(counts) * counts)
    elif scheme == "effective":
        weights = (1 - 0.999) / (1 - 0.999**counts)
    else:
        weights = np.ones_like(counts)
    if normalize:
        weights *= total / (weights @ counts)
    return weights.astype(np.float32)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """float32[B, C], int32[B] → float32[B]; labels of C or more (unknown here) cost 0.

    Args:
      smoothing: share of the target that is spread evenly over all classes.
    """
    num_classes = logits.shape[1]
    labels = tf.cast(labels, tf.int64)  # a GPU compares no int32
    known = labels < num_classes
    safe = tf.where(known, labels, 0)
    if smoothing:
        target = tf.one_hot(safe, num_classes) * (1 - smoothing) + smoothing / num_classes
        losses = tf.nn.softmax_cross_entropy_with_logits(target, logits)
    else:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(safe, logits)
    return tf.where(known, losses, 0.0)
