"""A global shuffle through the disk: documents scatter to random buckets, each bucket is permuted.

What this yields is a uniformly random order of all documents, at two passes over the data and the
memory of one bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BUCKET_BYTES = 48 << 20
_LARGEST_BUCKET_BYTES = 4 * _BUCKET_BYTES
_MOST_BUCKETS = 512  # each is an open file
_FLUSH_BYTES = 32 << 20
_BATCH_DOCS = 16_384
DOCUMENTS = pa.schema(
    [
        ("text", pa.string()), ("code", pa.int32()), ("hash", pa.uint64()), ("source", pa.uint8()),
        ("time", pa.float64()),
    ]
)  # fmt: skip
_FIXED_BYTES = 25  # of a document beside its text: an offset, code, hash, source and time


def count_buckets(num_bytes: int) -> int:
    """Buckets for documents of so many bytes."""
    return min(_MOST_BUCKETS, 1 + num_bytes // _BUCKET_BYTES)


def row_random(seed: Sequence[int], first_row: int = 0) -> np.random.Generator:
    """What the buckets of rows are drawn from, from `first_row` of all rows on.

    One stream of doubles: the draw of a row does not depend on how rows come in batches.
    """
    bits = np.random.PCG64([*seed, 1])
    return np.random.Generator(bits.advance(first_row))


def scatter(
    table: pa.Table, random: np.random.Generator, num_buckets: int
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The next documents of a stream, by bucket: (table, bounds int64[B + 1], bytes int64[B])."""
    bucket = (random.random(len(table)) * num_buckets).astype(np.int64)
    table = table.take(np.argsort(bucket, kind="stable"))
    bounds = np.cumsum([0, *np.bincount(bucket, minlength=num_buckets)])
    lengths = pc.binary_length(table.column("text")).to_numpy()
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[bounds]
    return table, bounds, np.diff(ends) + _FIXED_BYTES * np.diff(bounds)


def shuffle_bucket(
    batches: Iterable[pa.RecordBatch], num_bytes: int, folder: Path, seed: Sequence[int], index: int
) -> Iterator[pa.RecordBatch]:
    """The documents of bucket `index`, shuffled, in batches of up to 16,384.

    Where they are more than memory is meant for, smaller buckets in the new folder `folder` serve.
    """
    if num_bytes > _LARGEST_BUCKET_BYTES:
        folder.mkdir()
        smaller = ShuffleBuckets(folder, num_bytes, *seed, 3, index)
        for batch in batches:
            smaller.add(batch)
        yield from smaller.read()
        folder.rmdir()
        return
    table = pa.Table.from_batches(batches, DOCUMENTS).combine_chunks()
    order = np.random.default_rng([*seed, 2, index]).permutation(len(table))
    for start in range(0, len(table), _BATCH_DOCS):
        yield from table.take(order[start : start + _BATCH_DOCS]).to_batches()


class ShuffleBuckets:
    """Takes every document once, then gives them all in an order drawn from `seed`."""

    def __init__(self, folder: Path, num_bytes: int, *seed: int):
        """`num_bytes` is an estimate of the size of all documents, for the number of buckets."""
        self._folder, self._seed = folder, seed
        self._random = row_random(seed)
        num_buckets = count_buckets(num_bytes)
        self._paths = [folder / f"{i:03d}.arrow" for i in range(num_buckets)]
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writers = [
            pa.ipc.new_stream(str(path), DOCUMENTS, options=options) for path in self._paths
        ]
        self._bytes = np.zeros(num_buckets, np.int64)
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Takes in a batch of DOCUMENTS."""
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        if self._pending_bytes >= _FLUSH_BYTES:
            self._flush()

    def read(self) -> Iterator[pa.RecordBatch]:
        """All documents in shuffled order, in batches of up to 16,384; can be called once."""
        self._flush()
        self.close()
        for index, path in enumerate(self._paths):
            num_bytes, folder = int(self._bytes[index]), path.with_suffix("")
            yield from shuffle_bucket(_read_once(path), num_bytes, folder, self._seed, index)

    def close(self) -> None:
        """Closes the bucket files."""
        for writer in self._writers:
            writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._pending, DOCUMENTS).combine_chunks()
        self._pending, self._pending_bytes = [], 0
        table, bounds, num_bytes = scatter(table, self._random, len(self._paths))
        self._bytes += num_bytes
        for index, writer in enumerate(self._writers):
            if bounds[index] < bounds[index + 1]:
                writer.write_table(table.slice(bounds[index], bounds[index + 1] - bounds[index]))


def _read_once(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(str(path)) as reader:
        yield from reader
    path.unlink()
