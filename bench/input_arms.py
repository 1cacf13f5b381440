"""Input pipelines to compare: each turns the training part of a corpus into padded batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import tensorflow as tf

from bench.census import RawBatch
from bench.feed import Corpus, Feed, build_source

STRINGS, CACHED, ON_DEVICE = "ours, strings", "ours, cached ids", "ours, ids on the GPU"
BUCKETED, VECTORIZED, LOADED = "text by text, bucketed", "TextVectorization", "torch DataLoader"
_OURS = {
    STRINGS: ("stream", False, "Parquet to batches: read, tokenise, shuffle, bucket, gather"),
    "ours, streamed ids": ("stream", True, "ids on disk to batches: shuffle, bucket, gather"),
    CACHED: ("host", True, "ids in memory to batches: shuffle, bucket, gather"),
    ON_DEVICE: ("device", True, "ids in GPU memory to batches: shuffle and bucket, gather there"),
}
"""By name: residency, whether ids are cached, and what the clock includes."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One input pipeline over a corpus."""

    name: str
    clock: str
    """What a timed epoch includes."""
    draw: Callable[[int], int]
    """Takes all batches of so many epochs and makes nothing of them; returns the documents."""
    read: Callable[[], Iterable[RawBatch]]
    """The batches of one epoch, to look at."""
    is_ours: bool = False
    close: Callable[[], None] = lambda: None


def build_arms(corpus: Corpus, batch_size: int) -> tuple[list[Arm], dict[str, str]]:
    """Ours in each residency first, then the peers; and why a peer is not among them."""
    from bench.peers.input_bucketing import build_bucketing
    from bench.peers.input_vectorization import build_vectorization

    missing = {}
    names = list(_OURS)
    if not tf.config.list_logical_devices("GPU"):
        names.remove(ON_DEVICE)
        missing[ON_DEVICE] = "no GPU is in use"
    arms = [build_own(corpus, name, batch_size) for name in names]
    arms += [build_bucketing(corpus, batch_size), build_vectorization(corpus, batch_size)]
    if find_spec("torch") is None:
        return arms, missing | {LOADED: "torch is not installed"}
    from bench.peers.input_torch import build_torch

    return [*arms, build_torch(corpus, batch_size)], missing


def build_own(corpus: Corpus, name: str, batch_size: int) -> Arm:
    """The very feed that train.py trains from."""
    residency, id_cache, clock = _OURS[name]
    feed = Feed(corpus, build_source(corpus, residency, id_cache=id_cache), batch_size)
    return Arm(
        name=name,
        clock=clock,
        draw=lambda num_epochs: feed.draw_epochs(num_epochs).num_docs,
        read=partial(_read_feed, feed),
        is_ours=True,
        close=feed.close,
    )


def _read_feed(feed: Feed) -> Iterator[RawBatch]:
    for batch in feed.read_epoch():
        real = batch.docs.numpy() >= 0
        yield batch.token_ids.numpy()[real], batch.labels.numpy()[real]


def build_dataset_arm(name: str, clock: str, dataset: tf.data.Dataset) -> Arm:
    """A peer whose `dataset` gives (token_ids int32[B, T], labels int32[B]), once over."""

    @tf.function
    def count():
        # in the graph, as ours is drawn: a Python loop would cost the peer some 0.1 ms a batch
        return dataset.reduce(
            tf.zeros([], tf.int64), lambda total, batch: total + tf.size(batch[1], tf.int64)
        )

    def draw(num_epochs: int) -> int:
        return sum(int(count()) for _ in range(num_epochs))

    return Arm(name=name, clock=clock, draw=draw, read=dataset.as_numpy_iterator)
