"""Device residency: bitwise the batches that the host would have gathered."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from model.devices import mirror
from shortline import UserError
from tests.test_pipeline import CONFIGS, _source
from tfdata.device_feed import DeviceFeed
from tfdata.pipeline import BatchFeed
from tfdata.plan import choose_buckets


def _take(feed_class, shards, config, num_replicas=1, start=(0, 0, 0), num_epochs=2):
    """Arrays of each batch of each replica, drawn within a tf.function, as training does."""
    devices = tuple(d.name for d in tf.config.list_logical_devices("CPU")[:num_replicas])
    strategy = mirror(devices) if num_replicas > 1 else tf.distribute.get_strategy()
    weights = np.linspace(0.5, 2, len(shards.labels)).astype(np.float32)
    batches, infos = [], []
    with strategy.scope():
        feed = feed_class(
            _source(shards, config=config), choose_buckets(shards.length_counts, 60, config),
            seed=0, class_weights=weights, strategy=strategy, start=start,
        )  # fmt: skip

        @tf.function
        def draw():
            return next(feed.iterator)

        while num_epochs:
            info = feed.next_window()
            infos.append(info)
            for _ in range(info.num_batches):
                columns = map(strategy.experimental_local_results, draw())
                batches.append([[t.numpy() for t in column] for column in columns])
            num_epochs -= info.is_last
    feed.close()
    return infos, batches


@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("name", CONFIGS)
def test_batches_are_those_of_the_host(small_shards, name, num_replicas):
    config = dataclasses.replace(CONFIGS[name], num_buckets=3)
    on_device = config
    if config.residency == "host":
        on_device = dataclasses.replace(config, residency="device")
    infos, expected = _take(BatchFeed, small_shards, config, num_replicas)
    device_infos, batches = _take(DeviceFeed, small_shards, on_device, num_replicas)
    assert device_infos == infos
    for batch, other in zip(batches, expected, strict=True):
        for column, theirs in zip(batch, other, strict=True):
            for share, their_share in zip(column, theirs, strict=True):
                assert share.dtype == their_share.dtype
                np.testing.assert_array_equal(share, their_share)


def test_resumed_in_the_middle_goes_on_with_the_same_batches(small_shards):
    config = dataclasses.replace(CONFIGS["host"], residency="device")
    _, straight = _take(DeviceFeed, small_shards, config)
    _, resumed = _take(DeviceFeed, small_shards, config, start=(0, 0, 5))
    for batch, other in zip(resumed, straight[5:], strict=True):
        for column, theirs in zip(batch, other, strict=True):
            np.testing.assert_array_equal(column, theirs)


def test_an_error_of_the_source_reaches_the_loop(small_shards, monkeypatch):
    def fail(self, epoch, first_window=0):
        raise UserError("train-00001.parquet: damaged")
        yield

    monkeypatch.setattr("tfdata.window.WindowSource.read", fail)
    with pytest.raises(UserError, match="damaged"):
        _take(DeviceFeed, small_shards, CONFIGS["host"])


def test_an_idle_feed_ends_when_it_is_closed(small_shards):
    config = dataclasses.replace(CONFIGS["stream"], residency="stream")
    buckets = choose_buckets(small_shards.length_counts, 60, config)
    feed = DeviceFeed(
        _source(small_shards, config=config), buckets, seed=0, class_weights=np.ones(12)
    )
    feed.next_window()
    feed.close()
    assert not feed._thread.is_alive()
