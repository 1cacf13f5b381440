"""How the peers that are tf.data pipelines read their strings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfdata.shards import ShardSet, read_batches


def build_records(shard_set: ShardSet) -> tf.data.Dataset:
    """The training part as record batches (texts string[n], labels int32[n]), read ahead.

    Python is called once for some 16,000 documents; a generator of single documents would hold
    the peers at 4,000 documents/s.
    """

    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for texts, labels in read_batches(shard_set, "train"):
            yield texts.to_numpy(zero_copy_only=False), labels

    signature = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int32)
    return tf.data.Dataset.from_generator(read, output_signature=signature).prefetch(2)
