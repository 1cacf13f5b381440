"""The shuffle through the disk keeps every document, whatever was estimated."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import tfdata.shuffle as shuffle
from tfdata.shuffle import DOCUMENTS, ShuffleBuckets


def _shuffle(folder, num_docs, num_bytes):
    folder.mkdir()
    buckets = ShuffleBuckets(folder, num_bytes, 7)
    for start in range(0, num_docs, 100):
        codes = np.arange(start, min(num_docs, start + 100), dtype=np.int32)
        columns = [
            pa.array([f"text {c} " * 20 for c in codes]), codes, codes.astype(np.uint64),
            np.zeros(len(codes), np.uint8), np.zeros(len(codes)),
        ]  # fmt: skip
        buckets.add(pa.record_batch(columns, schema=DOCUMENTS))
    order = np.concatenate([batch.column("code").to_numpy() for batch in buckets.read()])
    assert not list(folder.iterdir())
    return order


@pytest.mark.parametrize("num_bytes", [0, 10**6])
def test_buckets_that_outgrow_their_estimate_are_split(tmp_path, monkeypatch, num_bytes):
    monkeypatch.setattr(shuffle, "_BUCKET_BYTES", 20_000)
    monkeypatch.setattr(shuffle, "_LARGEST_BUCKET_BYTES", 40_000)
    order = _shuffle(tmp_path / "small", 5_000, num_bytes)
    assert sorted(order) == list(range(5_000))
    assert abs(np.corrcoef(order, np.arange(5_000))[0, 1]) < 0.05
    np.testing.assert_array_equal(order, _shuffle(tmp_path / "again", 5_000, num_bytes))
