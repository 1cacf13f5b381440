"""The pipeline of the tutorials: text by text, then `bucket_by_sequence_length`."""

from __future__ import annotations

import re

import tensorflow as tf

from bench.feed import Corpus
from bench.input_arms import BUCKETED, Arm, build_dataset_arm
from bench.peers.input_records import build_records
from tfdata.plan import choose_buckets

_AUTO = tf.data.AUTOTUNE


def build_bucketing(corpus: Corpus, batch_size: int) -> Arm:
    """Tokenises each text by itself on all cores; its length buckets are ours.

    An empty text would need a token of its own; the generated corpus has none.
    """
    tokenizer = corpus.flags.tokenizer
    max_len, unknown_id = corpus.encoder.max_len, corpus.vocabulary.unknown_id
    words, ids = corpus.vocabulary.words()
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(words), tf.constant(ids)), unknown_id
    )
    separators = "[" + re.sub(r"([\\\]^-])", r"\\\1", tokenizer.filters) + "]"

    def encode(text, label):
        text = tf.strings.regex_replace(tf.strings.lower(text, "utf-8"), separators, " ")
        return table.lookup(tf.strings.split(text))[:max_len], label

    widths = choose_buckets(corpus.shard_set.length_counts, max_len, corpus.flags.pipeline).widths
    dataset = (
        build_records(corpus.shard_set)
        .flat_map(lambda texts, labels: tf.data.Dataset.from_tensor_slices((texts, labels)))
        .map(encode, num_parallel_calls=_AUTO)
        .bucket_by_sequence_length(
            lambda token_ids, _: tf.size(token_ids),
            bucket_boundaries=[width + 1 for width in widths[:-1]],
            bucket_batch_sizes=[batch_size] * len(widths),
        )
        .prefetch(_AUTO)
    )
    return build_dataset_arm(
        BUCKETED,
        "Parquet to batches: read, tokenise each text, bucket_by_sequence_length; no shuffle",
        dataset,
    )
