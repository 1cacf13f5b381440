"""The first pass of ingest: every document read, cleaned, hashed, and scattered to the disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shortline import UserError, printable
from tfdata.config import IngestConfig
from tfdata.progress import show_progress
from tfdata.raw import ReadCounts
from tfdata.read import estimate_bytes, list_files, read_documents
from tfdata.shards import is_shard_set
from tfdata.shuffle import DOCUMENTS, ShuffleBuckets
from tfdata.split import TEST, TRAIN, VALID, SplitBuilder, hash_texts

_MOST_LABELS = 100_000


@dataclass(frozen=True)
class Source:
    """A file or folder, and the part that its documents belong to (TRAIN: they are to be split)."""

    path: Path
    part: int


def find_sources(inputs: Sequence[Path], config: IngestConfig) -> list[Source]:
    """The inputs, and the files that --valid and --test name.

    Raises:
      UserError: one is missing, is given twice, or is a shard set already.
    """
    sources = [Source(Path(path), TRAIN) for path in inputs]
    for flag, part in (("valid", VALID), ("test", TEST)):
        if config.share(flag) is None:
            path = Path(getattr(config, flag))
            if not path.exists():
                raise UserError(f"--{flag} {path}: neither a share like 0.1 nor a file")
            sources.append(Source(path, part))
    seen: set[Path] = set()
    for source in sources:
        if is_shard_set(source.path):
            raise UserError(f"{source.path}: is a shard set already; train.py --data takes it")
        for file in list_files(source.path, config.format):
            if file.resolve() in seen:
                raise UserError(f"{file}: is given twice; give every file once")
            seen.add(file.resolve())
    return sources


class Pool:
    """All documents of all sources: in shuffle buckets, and as hashes in the split's builder."""

    def __init__(self, folder: Path, sources: Sequence[Source], config: IngestConfig):
        self._sources, self._config = sources, config
        files = [f for source in sources for f in list_files(source.path, config.format)]
        self._disk_bytes = sum(file.stat().st_size for file in files)
        num_bytes = sum(estimate_bytes(file) for file in files)
        self.buckets = ShuffleBuckets(folder, num_bytes, config.split_seed)
        self.builder = SplitBuilder(
            folder, valid=config.share("valid") or 0.0, test=config.share("test") or 0.0
        )
        self.counts = ReadCounts()
        self._code_of: dict[str, int] = {}

    @property
    def labels(self) -> list[str]:
        """Label names by code; codes go by first sight."""
        return list(self._code_of)

    def fill(self, progress: bool) -> None:
        """Reads everything.

        Raises:
          UserError: something cannot be read, or the labels are so many that they are none.
        """
        with show_progress("reading", progress) as update:
            for source in self._sources:
                for batch in read_documents(source.path, self._config, self.counts):
                    self._add(batch, source.part)
                    update(self.counts.rows_kept, self.counts.bytes_read / self._disk_bytes)

    def _add(self, batch: pa.RecordBatch, part: int) -> None:
        texts, codes = batch.column("text"), self._codes(batch.column("label"))
        hashes = hash_texts(texts, self._config.split_seed)
        self.builder.add(hashes, codes, part)
        parts = np.full(len(batch), part, np.uint8)
        columns = [texts, pa.array(codes), pa.array(hashes), pa.array(parts)]
        self.buckets.add(pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS))

    def _codes(self, labels: pa.Array) -> np.ndarray:
        encoded = labels.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = [self._code_of.setdefault(name, len(self._code_of)) for name in names]
        if len(self._code_of) > _MOST_LABELS:
            raise UserError(self.too_many_labels())
        return np.array(codes, np.int32)[encoded.indices.to_numpy()]

    def settings(self) -> dict[str, Any]:
        """What made the data, for the manifest; file names without their folders."""
        ingest = dataclasses.asdict(self._config)
        for flag in ("valid", "test"):
            if self._config.share(flag) is None:
                ingest[flag] = Path(ingest[flag]).name
        return {"ingest": ingest, "sources": [source.path.name for source in self._sources]}

    def close(self) -> None:
        """Closes the files of the first pass."""
        self.buckets.close()

    def too_many_labels(self) -> str:
        names = ", ".join(f"`{printable(label)}`" for _, label in sorted(self.counts.columns))
        some = ", ".join(printable(label, 30) for label in self.labels[:3])
        return (
            f"column {names} has {len(self._code_of):,} distinct values in "
            f"{self.counts.rows_kept:,} documents ({some}, ...): it looks like texts or ids, not "
            "labels; name the label column with --label"
        )
