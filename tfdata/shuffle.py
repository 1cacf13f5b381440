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
_MOST_BUCKETS = 512  # each is an open file
_FLUSH_BYTES = 32 << 20
_BATCH_DOCS = 16_384
DOCUMENTS = pa.schema(
    [("text", pa.string()), ("code", pa.int32()), ("hash", pa.uint64()), ("source", pa.uint8())]
)


class ShuffleBuckets:
    """Takes every document once, then gives them all in an order drawn from `seed`."""

    def __init__(self, folder: Path, num_bytes: int, seed: int):
        """`num_bytes` is an estimate of the size of all documents, for the number of buckets."""
        self._seed = seed
        # one stream of doubles: the draw of a row does not depend on how rows come in batches
        self._random = np.random.default_rng([seed, 1])
        num_buckets = min(_MOST_BUCKETS, 1 + num_bytes // _BUCKET_BYTES)
        self._paths = [folder / f"{i:03d}.arrow" for i in range(num_buckets)]
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writers = [
            pa.ipc.new_stream(str(path), DOCUMENTS, options=options) for path in self._paths
        ]
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
            with pa.ipc.open_stream(str(path)) as reader:
                table = reader.read_all().combine_chunks()
            path.unlink()
            order = np.random.default_rng([self._seed, 2, index]).permutation(len(table))
            for start in range(0, len(table), _BATCH_DOCS):
                yield from table.take(order[start : start + _BATCH_DOCS]).to_batches()

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
                writer.write_table(table.slice(bounds[index], bounds[index + 1] - bounds[index]))
