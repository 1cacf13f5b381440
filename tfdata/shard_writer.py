"""Writes what `tfdata.shards` reads: the shards of a part, and the manifest of the set."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortline import __version__, write_whole
from tfdata.shards import (
    COLUMNS,
    MANIFEST,
    PARTS,
    ROW_GROUP_DOCS,
    SCHEMA,
    VOCABULARY,
    Shard,
    ShardSet,
    compute_fingerprint,
    file_sha256,
)

SHARD_DOCS = 131_072
SHARD_BYTES = 64 << 20
"""Bytes of text, unpacked, at which a shard is full before it has SHARD_DOCS."""


class ShardWriter:
    """Writes the shards of one part, in the order of `write`: row groups of 16,384 documents."""

    def __init__(self, folder: Path, part: str):
        self._folder, self._part = folder, part
        self._done: list[Shard] = []
        self._pending: list[pa.RecordBatch] = []
        self._pending_docs = self._docs = self._bytes = 0
        self._file: pq.ParquetWriter | None = None

    def write(self, texts: pa.Array, labels: np.ndarray) -> None:
        """Appends string[n] and int32[n]."""
        batch = pa.RecordBatch.from_arrays([texts, pa.array(labels, pa.int32())], schema=COLUMNS)
        while len(batch):
            piece = batch.slice(0, ROW_GROUP_DOCS - self._pending_docs)
            batch = batch.slice(len(piece))
            self._pending.append(piece)
            self._pending_docs += len(piece)
            if self._pending_docs == ROW_GROUP_DOCS:
                self._write_group()

    def finish(self) -> tuple[Shard, ...]:
        """Completes the last shard and gives them all."""
        if self._pending:
            self._write_group()
        self._finish_shard()
        return tuple(self._done)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:  # an error came first: what the file holds is no shard
            with contextlib.suppress(OSError):
                self._file.close()

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._pending)
        self._pending, self._pending_docs = [], 0
        if self._file is None:
            self._file = pq.ParquetWriter(
                self._folder / self._name(), COLUMNS, compression="zstd", compression_level=3
            )
        self._file.write_table(table, row_group_size=ROW_GROUP_DOCS)
        self._docs += len(table)
        self._bytes += table.nbytes
        if self._docs >= SHARD_DOCS or self._bytes >= SHARD_BYTES:
            self._finish_shard()

    def _name(self) -> str:
        return f"{self._part}-{len(self._done):05d}.parquet"

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        path = self._folder / self._name()
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        self._done.append(Shard(path.name, self._docs, path.stat().st_size, file_sha256(path)))
        self._docs = self._bytes = 0


def write_manifest(
    shard_set: ShardSet, label_counts: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> None:
    """Writes vocab.txt, then manifest.json, which makes the folder a shard set.

    `label_counts` are the documents int64[n] of each part by label id; `settings` must hold
    `tokenizer`. The set's own fingerprint is not looked at but computed.
    """
    from tfdata.vocab import write_lines

    vocabulary = shard_set.folder / VOCABULARY
    write_lines(vocabulary, shard_set.words)
    sha256 = file_sha256(vocabulary)
    parts = {
        name: {
            "num_docs": shard_set.num_docs(name),
            "label_counts": label_counts[name].tolist(),
            "shards": [asdict(shard) for shard in shard_set.parts[name]],
        }
        for name in PARTS
    }
    manifest = {
        "schema": SCHEMA,
        "created_by": f"shortline {__version__}",
        "labels": shard_set.labels,
        "unseen_labels": shard_set.unseen_labels,
        "parts": parts,
        "vocabulary": {"file": VOCABULARY, "size": len(shard_set.words), "sha256": sha256},
        "length_counts": shard_set.length_counts.tolist(),
        "settings": settings,
        "counts": shard_set.counts,
        "fingerprint": compute_fingerprint(shard_set, sha256),
    }
    with write_whole(shard_set.folder / MANIFEST) as file:
        json.dump(manifest, file, indent=1)
