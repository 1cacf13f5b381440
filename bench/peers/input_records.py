"""What the peers' pipelines have in common: how they read, and how they cut a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def encode_in_python(
    texts: Sequence[str], id_of_word: dict[str, int], unknown_id: int, filters: str, max_len: int
) -> np.ndarray:
    """The word tokenizer in plain Python: token_ids int32[B, T], T the longest of these texts.

    >>> encode_in_python(["Hello, you", ""], {"hello": 2}, 1, ",", 9).tolist()
    [[2, 1], [1, 0]]
    """
    to_spaces = str.maketrans(dict.fromkeys(filters, " "))
    rows = [
        [id_of_word.get(word, unknown_id) for word in text.lower().translate(to_spaces).split()]
        for text in texts
    ]
    rows = [row[:max_len] or [unknown_id] for row in rows]
    token_ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for into, row in zip(token_ids, rows, strict=True):
        into[: len(row)] = row
    return token_ids
