"""Made-up batches in memory: to warm up by, and to time.

Legend: B documents of a replica's batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from model.classifier import Classifier
from model.words import key_pairs


def make_batch(
    batch_type: Callable[..., Any], num_docs: int, num_tokens: int, *, vocab_size: int,
    num_classes: int,
) -> Any:  # fmt: skip
    """A batch int32[B, T] of full-length texts whose words follow Zipf's law.

    Words matter on a CPU, where an embedding's work goes with the distinct ones.

    Args:
      batch_type: tfdata.pipeline.Batch, so that the elements are of the type of BatchFeed's.
    """
    random = np.random.default_rng([num_docs, num_tokens])
    ranks = np.exp(random.random((num_docs, num_tokens)) * np.log(vocab_size - 1))
    return batch_type(
        token_ids=tf.constant(ranks.astype(np.int32)),
        lengths=tf.fill([num_docs], num_tokens),
        labels=tf.constant(random.integers(0, num_classes, num_docs), tf.int32),
        weights=tf.ones([num_docs]),
        docs=tf.range(num_docs, dtype=tf.int64),
        scale=tf.ones([]),
    )


def list_pairs(classifier: Classifier, batches: Sequence[Any]) -> None:
    """Gives pairs of made-up batches vectors of their own, as far as there is room."""
    most = (classifier.config.pairs or 1) - 1
    if most:
        ids = [batch.token_ids.numpy().astype(np.int64) for batch in batches]
        keys = np.concatenate([key_pairs(some[:, :-1], some[:, 1:]).ravel() for some in ids])
        classifier.words.list_pairs(np.unique(keys)[:most])


def repeat_batches(batches: Sequence[Any], copies: int = 1) -> Iterator:
    """An endless iterator over batches in memory, of the same element type as BatchFeed's.

    Call it under the strategy scope. A replica takes the next batch, so that with several of them
    B is documents of a replica.

    Args:
      copies: of each batch, one after the other; as many as replicas gives all of them the same.
    """
    # The shape of an element is what its parts' have in common: the empty part, of which nothing is
    # taken, keeps the graph from knowing B and T, which it does not know in training either.
    empty = make_batch(type(batches[0]), 0, 0, vocab_size=3, num_classes=2)
    dataset = tf.data.Dataset.from_tensors(empty).take(0)
    for batch in batches:
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(batch).repeat(copies))
    strategy = tf.distribute.get_strategy()
    return iter(strategy.distribute_datasets_from_function(lambda _: dataset.repeat()))
