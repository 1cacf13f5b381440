"""`keras.layers.TextVectorization` on whole batches, padded to the longest text of each."""

from __future__ import annotations

import keras
import tensorflow as tf

from bench.feed import Corpus
from bench.input_arms import VECTORIZED, Arm, build_dataset_arm
from bench.peers.input_records import build_records

_AUTO = tf.data.AUTOTUNE


def build_vectorization(corpus: Corpus, batch_size: int) -> Arm:
    """No length buckets: it pads more, and has less to do.

    It drops punctuation where ours makes spaces of it, which is the same on the generated corpus.
    """
    max_len = corpus.encoder.max_len
    words, _ = corpus.vocabulary.words()
    layer = keras.layers.TextVectorization(vocabulary=list(words))

    def encode(texts, labels):
        return tf.cast(layer(texts)[:, :max_len], tf.int32), labels

    dataset = (
        build_records(corpus.shard_set)
        .rebatch(batch_size)
        .map(encode, num_parallel_calls=_AUTO)
        .prefetch(_AUTO)
    )
    return build_dataset_arm(
        VECTORIZED,
        "Parquet to batches: read, tokenise each batch, pad; no buckets, no shuffle",
        dataset,
    )
