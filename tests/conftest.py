"""Fixtures: four logical CPUs, a cache of its own, a small shard set."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

import hypothesis
import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration() for _ in range(4)],
)
tf.config.list_logical_devices()  # settles it: a command under test would ask for one

hypothesis.settings.register_profile("shared", deadline=None)  # machines may be busy
hypothesis.settings.load_profile("shared")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SHORTLINE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


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


@pytest.fixture(scope="session")
def tested_shards(tmp_path_factory):
    """A shard set of 2,400 generated documents in 12 classes, a fifth to validate, one to test."""
    from tfdata.config import IngestConfig, TokenizerConfig
    from tfdata.ingest import ingest
    from tfdata.synthetic import write_corpus

    folder = tmp_path_factory.mktemp("tested")
    write_corpus(folder / "corpus.parquet", 2_400, num_classes=12)
    return ingest(
        [folder / "corpus.parquet"], folder / "shards", IngestConfig(valid="0.2", test="0.2"),
        TokenizerConfig(vocab_size=2_000),
    )  # fmt: skip


@pytest.fixture(scope="session")
def straight(small_shards, tmp_path_factory):
    """The folder of a small run on `small_shards` that nothing stopped; not to be changed."""
    import train
    from tests.runs import SMALL

    out = tmp_path_factory.mktemp("runs") / "straight"
    assert train.main(["--data", str(small_shards.folder), "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture
def no_tensor_float():
    """On a GPU, float32 products of all 24 bits: by default they have 11."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files of this process and of those that it starts; empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture(scope="module")
def browser():
    """Chromium, or a skip that says so."""
    from tests.chromium import start_browser

    browser = start_browser()
    yield browser
    browser.quit()


@pytest.fixture
def review(tmp_path, browser):
    """A review of 12 clusters in a page of the browser."""
    from tests.review_browser import Review
    from tests.review_folder import write_folder

    review = Review(write_folder(tmp_path / "tickets"), browser)
    yield review
    assert review.log() == []
    review.close()
