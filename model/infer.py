"""Texts to logits, some thousand texts a call: what predict and evaluate share.

Legend: D texts of a call, N tokens of them all, B texts of a batch, T tokens, C classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import tensorflow as tf

from model.lstm import choose_route, count_blocks
from model.opened import Run
from tfdata.encode import pad, texts_to_tensor

_BATCH_DOCS = 1024
_BATCH_TOKENS = 1 << 18  # of long texts, fewer make a batch
_MOST_LOGITS = 1 << 24  # 64 MiB
_NUM_THREADS = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


def build_infer(run: Run, has_gpu: bool) -> Callable[[pa.Array], tf.Tensor]:
    """`infer(texts)`: string[D] without nulls → logits float32[D, C], in float32 throughout.

    Texts are sorted by length, so that a batch holds texts of nearly one length and little
    padding. Several threads may call it at once.
    """
    encode = run.build_encoder()
    route, _ = choose_route("auto", has_gpu, "float32")
    classifier = run.build_classifier(route)
    num_blocks = max(1, count_blocks(route, _BATCH_DOCS) // _NUM_THREADS)
    no_logits = tf.TensorSpec([None, classifier.num_classes], tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def infer(texts):
        ids, lengths = encode(texts)
        num_docs = tf.size(lengths)
        longest_first = tf.argsort(lengths, direction="DESCENDING", stable=True)
        starts = tf.gather(tf.cumsum(lengths, exclusive=True), longest_first)
        lengths = tf.gather(lengths, longest_first)
        batches = tf.TensorArray(
            tf.float32, 0, dynamic_size=True, element_shape=no_logits.shape, infer_shape=False
        )
        first = 0
        while first < num_docs:
            size = tf.clip_by_value(_BATCH_TOKENS // lengths[first], 1, _BATCH_DOCS)
            lengths_B = lengths[first : first + size]
            token_ids = pad(_slices(ids, starts[first : first + size], lengths_B), lengths_B)
            logits = classifier.call(token_ids, lengths_B, num_blocks=num_blocks)
            batches = batches.write(batches.size(), logits)
            first += size
        return tf.gather(batches.concat(), tf.math.invert_permutation(longest_first))

    def infer_texts(texts: pa.Array) -> tf.Tensor:
        if not len(texts):
            return tf.zeros([0, classifier.num_classes])
        return infer(texts_to_tensor(texts))

    return infer_texts


def _slices(ids: tf.Tensor, starts: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """The tokens ids[starts[i] : starts[i] + lengths[i]] of all i, one after the other."""
    position = tf.range(tf.reduce_sum(lengths))
    shift = starts - tf.cumsum(lengths, exclusive=True)
    return tf.gather(ids, position + tf.repeat(shift, lengths))


def docs_per_call(run: Run, most: int) -> int:
    """How many texts to give `infer` at once: `most`, or fewer where the classes are many."""
    return max(1, min(most, _MOST_LOGITS // len(run.labels)))


def map_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`work(item)` for each item, in order; threads are at work on the next ones meanwhile."""
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        under_way: deque[Future[Result]] = deque()
        for item in items:
            under_way.append(pool.submit(work, item))
            if len(under_way) > _NUM_THREADS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
