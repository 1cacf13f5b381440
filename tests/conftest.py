"""Fixtures: four logical CPUs, a cache of its own, a small shard set."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in range(4)],
)
tf.config.list_logical_devices()  # settles it: a command under test would ask for one

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SHORTLINE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, or a skip that says so."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def small_shards(tmp_path_factory):
    """A shard set of 2,000 generated documents in 12 classes."""
    from tfdata.config import IngestConfig, TokenizerConfig
    from tfdata.ingest import ingest
    from tfdata.synthetic import write_corpus

    folder = tmp_path_factory.mktemp("small")
    write_corpus(folder / "corpus.parquet", 2_000, num_classes=12)
    config = TokenizerConfig(vocab_size=2_000)
    return ingest([folder / "corpus.parquet"], folder / "shards", IngestConfig(), config)
