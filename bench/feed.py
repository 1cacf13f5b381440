"""The input pipeline over a generated corpus: its encoding, its feed, and training fed by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bench.timing import Timing, time_in_turns
from model.build import open_data
from model.flags import Flags, settle
from model.losses import class_weights
from tfdata.device_feed import DeviceFeed, build_feed
from tfdata.encode import Encoder
from tfdata.pipeline import Batch, WindowInfo
from tfdata.plan import Buckets, choose_buckets
from tfdata.shards import ShardSet
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource

_MIX = 16  # batches


class Epoch(NamedTuple):
    """Sums of an epoch's windows, as of `WindowInfo`."""

    num_batches: int
    num_docs: int
    num_tokens: int
    num_padded: int


@dataclass(frozen=True)
class Corpus:
    """A shard set, and what encodes it."""

    flags: Flags
    shard_set: ShardSet
    vocabulary: Vocabulary
    encoder: Encoder


def open_corpus(flags: Flags, num_docs: int) -> Corpus:
    """A generated corpus, from the cache where train.py, too, keeps its own."""
    shard_set = open_data(dataclasses.replace(flags, data=(), docs=num_docs))
    flags = settle(flags, shard_set)
    vocabulary = Vocabulary.build(shard_set.words, flags.tokenizer)
    assert flags.tokenizer.max_len is not None
    encoder = Encoder(flags.tokenizer, vocabulary, flags.tokenizer.max_len)
    return Corpus(flags, shard_set, vocabulary, encoder)


def build_source(corpus: Corpus, residency: str, *, id_cache: bool = False) -> WindowSource:
    """The windows of the training part; without `id_cache` their strings are tokenised here."""
    config = dataclasses.replace(
        corpus.flags.pipeline, residency=residency, id_cache=id_cache
    )  # fmt: skip
    return WindowSource(
        corpus.shard_set, "train", corpus.encoder, vocab_size=len(corpus.vocabulary),
        config=config, shuffle_seed=corpus.flags.train.seed,
    )  # fmt: skip


def time_encode(corpus: Corpus, seconds: float) -> Timing:
    """Strings in shards to one window of ids, by epoch: what `host` does once and `stream` ever."""

    def encode(num_epochs: int) -> None:
        for _ in range(num_epochs):
            for _window in build_source(corpus, "host").read(0):
                pass

    return time_in_turns([encode], seconds)[0]


class Feed:
    """A BatchFeed of a corpus, and how far its windows have been used."""

    def __init__(self, corpus: Corpus, source: WindowSource, batch_size: int):
        flags, shard_set = corpus.flags, corpus.shard_set
        strategy = tf.distribute.get_strategy()
        assert flags.tokenizer.max_len is not None
        config = dataclasses.replace(flags.pipeline, batch_size=batch_size, batch_tokens=None)
        self.buckets: Buckets = choose_buckets(
            shard_set.length_counts, flags.tokenizer.max_len, config
        )
        scheme, normalize = flags.train.class_weights, flags.train.normalize_weights
        weights = class_weights(shard_set.label_counts, scheme, normalize)
        self._feed = build_feed(
            source, self.buckets, seed=flags.train.seed, class_weights=weights, strategy=strategy,
            start=(1, 0, 0),  # the first epoch has smaller windows
        )  # fmt: skip
        self.iterator = self._feed.iterator
        self._left = 0
        is_gathered_here = isinstance(self._feed, DeviceFeed)

        @tf.function(input_signature=[tf.TensorSpec([], tf.int32)])
        def draw(num_batches):
            total = tf.zeros([], tf.int64)
            for _ in tf.range(num_batches):
                batch = next(self.iterator)
                if is_gathered_here:  # what is not used of it would not be made
                    ids = strategy.experimental_local_results(batch.token_ids)
                    total += tf.add_n([tf.reduce_sum(tf.cast(share, tf.int64)) for share in ids])
                else:  # as the peers' are counted
                    rows = strategy.experimental_local_results(batch.labels)
                    total += tf.add_n([tf.size(share, tf.int64) for share in rows])
            return total

        self._draw = draw
        self.close = self._feed.close

    def run_windows(self, run: Callable[[int], object], num_steps: int) -> None:
        """`run` over the next batches, piece by piece: it waits for a window as train.py does."""
        while num_steps:
            if not self._left:
                self._left = self._feed.next_window().num_batches
            here = min(num_steps, self._left)
            run(here)
            self._left -= here
            num_steps -= here

    def draw_epochs(self, num_epochs: int) -> Epoch:
        """Takes the batches of whole epochs, from the start of one, and makes nothing of them."""
        assert not self._left
        infos: list[WindowInfo] = []
        while sum(info.is_last for info in infos) < num_epochs:
            infos.append(self._feed.next_window())
            self._draw(tf.constant(infos[-1].num_batches)).numpy()
        return Epoch(*(sum(getattr(info, name) for info in infos) for name in Epoch._fields))

    def read_epoch(self) -> Iterator[Batch]:
        """The batches of one epoch, from its start."""
        assert not self._left
        is_last = False
        while not is_last:
            window = self._feed.next_window()
            is_last = window.is_last
            for _ in range(window.num_batches):
                yield next(self.iterator)

    def read_mix(self) -> list[Batch]:
        """Some batches of one epoch that hold its mix of widths, wide and narrow by turns."""
        batches = list(self.read_epoch())
        strategy = tf.distribute.get_strategy()
        batches = [
            Batch(*(strategy.experimental_local_results(column)[0] for column in batch))
            for batch in batches
        ]
        batches.sort(key=lambda batch: batch.token_ids.shape[1])
        pairs = max(1, min(_MIX, len(batches)) // 2)
        chosen = np.linspace(0, len(batches) - 1, 2 * pairs).round().astype(int)
        return [
            batches[i] for pair in zip(chosen[:pairs], chosen[::-1], strict=False) for i in pair
        ]
