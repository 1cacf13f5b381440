"""A global shuffle through the disk: documents scatter to random buckets, each bucket is permuted.

What this yields is a uniformly random order of all documents, at two passes over the data and the
memory of one bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

_BUCKET_BYTES = 48 << 20
_LARGEST_BUCKET_BYTES = 4 * _BUCKET_BYTES
_MOST_BUCKETS = 512  # each is an open file
_FLUSH_BYTES = 32 << 20
_BATCH_DOCS = 16_384
DOCUMENTS = pa.schema(
    [("text", pa.string()), ("code", pa.int32()), ("hash", pa.uint64()), ("source", pa.uint8())]
)


class ShuffleBuckets:
    """Takes every document once, then gives them all in an order drawn from `seed`."""

    def __init__(self, folder: Path, num_bytes: int, *seed: int):
        """`num_bytes` is an estimate of the size of all documents, for the number of buckets."""
        self._folder, self._seed = folder, seed
        # one stream of doubles: the draw of a row does not depend on how rows come in batches
        self._random = np.random.default_rng([*seed, 1])
        num_buckets = min(_MOST_BUCKETS, 1 + num_bytes // _BUCKET_BYTES)
        self._paths = [folder / f"{i:03d}.arrow" for i in range(num_buckets)]
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writers = [
            pa.ipc.new_stream(str(path), DOCUMENTS, options=options) for path in self._paths
        ]
        self._bytes = [0] * num_buckets
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
            if self._bytes[index] > _LARGEST_BUCKET_BYTES:  # the estimate was too small
                yield from self._split(index)
                continue
            with pa.ipc.open_stream(str(path)) as reader:
                table = reader.read_all().combine_chunks()
            path.unlink()
            order = np.random.default_rng([*self._seed, 2, index]).permutation(len(table))
            for start in range(0, len(table), _BATCH_DOCS):
                yield from table.take(order[start : start + _BATCH_DOCS]).to_batches()

    def _split(self, index: int) -> Iterator[pa.RecordBatch]:
        """One bucket's documents, shuffled through smaller buckets of their own."""
        folder = self._folder / f"{index:03d}"
        folder.mkdir()
        smaller = ShuffleBuckets(folder, self._bytes[index], *self._seed, 3, index)
        with pa.ipc.open_stream(str(self._paths[index])) as reader:
            for batch in reader:
                smaller.add(batch)
        self._paths[index].unlink()
        yield from smaller.read()
        folder.rmdir()

    def close(self) -> None:
        """Closes the bucket files."""
        for writer in self._writers:
            writer.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._pending, DOCUMENTS).combine_chunks()
        self._pending, self._pending_bytes = [], 0
        bucket = (self._random.random(len(table)) * len(self._paths)).astype(np.int64)
        table = table.take(np.argsort(bucket, kind="stable"))
        bounds = np.cumsum([0, *np.bincount(bucket, minlength=len(self._paths))])
        for index, writer in enumerate(self._writers):
            if bounds[index] < bounds[index + 1]:
                share = table.slice(bounds[index], bounds[index + 1] - bounds[index])
                self._bytes[index] += share.nbytes
                writer.write_table(share)
