"""The same ingest on many machines: the loops of `LocalPool` as tasks of Ray.

    read     one input file: cleaned, coded and hashed, in its order
    scatter  the same documents: to the shuffle buckets that their places in the whole draw
    order    one bucket: shuffled, and cut into the parts; the words of the training part counted
    write    one shard

Texts go from task to task through files in the folder that is made, which all nodes must see:
at most two copies of the data at a time. Between these steps this process sees 13 bytes of each
document, for the split, and the words of each batch. All is put together in the order in which
one process would have met it, so the shards have the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from shortline import UserError
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.pool import Pool, Source
from tfdata.progress import show_progress
from tfdata.raw import ReadCounts
from tfdata.ray_cluster import Cluster
from tfdata.ray_tasks import (
    Input,
    Piece,
    count_shard_lengths,
    order,
    read,
    read_path,
    scatter_file,
    words_path,
    write,
)
from tfdata.read import check_time_kinds, list_files, read_documents
from tfdata.shard_writer import SHARD_BYTES, SHARD_DOCS
from tfdata.shards import PARTS, ROW_GROUP_DOCS, Shard, ShardSet
from tfdata.shuffle import DOCUMENTS, count_buckets
from tfdata.split import Split
from tfdata.time_split import TimeSplit

if TYPE_CHECKING:
    from tfdata.vocab import VocabularyBuilder


class RayPool(Pool):
    """A pool that Ray's tasks fill and empty."""

    def __init__(
        self, folder: Path, sources: Sequence[Source], config: IngestConfig, address: str | None
    ):
        """Raises a UserError where Ray is not installed or no cluster is at `address`."""
        if config.split == "group":
            raise UserError(
                "--split group: compares all texts, which no task of Ray has; use --engine local"
            )
        sources = [Source(Path(os.path.abspath(s.path)), s.part) for s in sources]
        super().__init__(folder, sources, config)
        self._cluster = Cluster(address)
        self._code_of_code: list[np.ndarray] = []
        """Of each file: int32[n], the pool's codes of its own."""
        self._num_docs: list[int] = []

    def fill(self, progress: bool) -> None:
        inputs = [file for source in self._sources for file in _list_inputs(source, self._config)]
        calls = [(self._folder, index, file) for index, file in enumerate(inputs)]
        with show_progress("reading", progress) as update:
            results = self._cluster.map(read, calls)
            for index, (counts, names) in enumerate(results):
                _add(self.counts, counts)
                check_time_kinds(inputs[index].file, self._config.time, self.counts)
                self._num_docs.append(counts.rows_kept)
                self._code_of_code.append(self._codes.merge(names, self.counts))
                self._hand_to_split(index, inputs[index].source.part)
                update(self.counts.rows_kept, self.counts.bytes_read / self._disk_bytes)

    def _hand_to_split(self, index: int, part: int) -> None:
        columns = [DOCUMENTS.get_field_index(name) for name in ("code", "hash", "time")]
        options = pa.ipc.IpcReadOptions(included_fields=columns)
        with pa.ipc.open_stream(str(read_path(self._folder, index)), options=options) as reader:
            for batch in reader:
                named = ("code", "hash", "time")
                codes, hashes, times = (batch.column(name).to_numpy() for name in named)
                self.take_in(None, hashes, self._code_of_code[index][codes], part, times)

    def write_shards(
        self,
        folder: Path,
        split: Split | TimeSplit,
        id_of_code: np.ndarray,
        vocabulary: VocabularyBuilder,
        progress: bool,
    ) -> dict[str, tuple[Shard, ...]]:
        shared = self._cluster.put((split, id_of_code))
        pieces = self._order(*self._scatter(shared, progress), shared, vocabulary, progress)
        plan = {part: plan_shards(pieces[i]) for i, part in enumerate(PARTS)}
        calls = [
            (folder, self._folder, part, number, shard)
            for part, shards in plan.items()
            for number, shard in enumerate(shards)
        ]
        parts: dict[str, list[Shard]] = {part: [] for part in PARTS}
        done = 0
        with show_progress("writing", progress) as update:
            for (_, _, part, *_), shard in zip(calls, self._cluster.map(write, calls), strict=True):
                parts[part].append(shard)
                done += shard.num_docs
                update(done, done / self.counts.rows_kept)
        return {part: tuple(shards) for part, shards in parts.items()}

    def _scatter(self, shared: Any, progress: bool) -> tuple[np.ndarray, np.ndarray]:
        """Each bucket's bytes int64[B] and documents by part int64[B, 3]."""
        seed, num_buckets = self._config.split_seed, count_buckets(self._num_bytes)
        firsts = np.cumsum([0, *self._num_docs]).tolist()
        calls = [
            (self._folder, index, codes, firsts[index], num_buckets, seed, shared)
            for index, codes in enumerate(self._code_of_code)
        ]
        num_bytes, num_docs = np.zeros(num_buckets, np.int64), np.zeros((num_buckets, 3), np.int64)
        with show_progress("scattering", progress) as update:
            for index, (some_bytes, some_docs) in enumerate(self._cluster.map(scatter_file, calls)):
                num_bytes, num_docs = num_bytes + some_bytes, num_docs + some_docs
                read_path(self._folder, index).unlink()
                done = firsts[index + 1]
                update(done, done / self.counts.rows_kept)
        return num_bytes, num_docs

    def _order(
        self,
        num_bytes: np.ndarray,
        num_docs: np.ndarray,
        shared: Any,
        vocabulary: VocabularyBuilder,
        progress: bool,
    ) -> list[list[Piece]]:
        """The pieces of each part, in their order; the vocabulary is given their words."""
        before = np.cumsum(num_docs, axis=0) - num_docs
        seed, config = self._config.split_seed, vocabulary.config
        calls = [
            (self._folder, bucket, int(num_bytes[bucket]), seed, before[bucket], shared, config)
            for bucket in range(len(num_bytes))
        ]
        pieces: list[list[Piece]] = [[] for _ in PARTS]
        done = 0
        with show_progress("shuffling", progress) as update:
            for bucket, (found, lengths) in enumerate(self._cluster.map(order, calls)):
                for own, more in zip(pieces, found, strict=True):
                    own += more
                _merge_words(words_path(self._folder, bucket), vocabulary, lengths)
                done += int(num_docs[bucket].sum())
                update(done, done / self.counts.rows_kept)
        for path in self._folder.glob("scattered-*"):
            path.unlink()
        return pieces

    def count_lengths(self, shard_set: ShardSet, config: TokenizerConfig) -> np.ndarray:
        from tfdata.vocab import add_counts

        shared = self._cluster.put(shard_set)
        calls = [(shared, number, config) for number in range(len(shard_set.parts["train"]))]
        return functools.reduce(add_counts, self._cluster.map(count_shard_lengths, calls))

    def close(self) -> None:
        self._cluster.close()


def _list_inputs(source: Source, config: IngestConfig) -> Iterator[Input]:
    counts, config = ReadCounts(), source.settings(config)
    with contextlib.closing(read_documents(source.path, config, counts)) as batches:
        next(batches, None)
    ((text, label),) = counts.columns
    config = dataclasses.replace(config, text=text, label=label)
    for file in list_files(source.path, config.format):
        yield Input(file, source, config)


def _add(counts: ReadCounts, more: ReadCounts) -> None:
    for field in dataclasses.fields(ReadCounts):
        one, other = getattr(counts, field.name), getattr(more, field.name)
        setattr(counts, field.name, one | other if isinstance(one, set) else one + other)


def _merge_words(path: Path, vocabulary: VocabularyBuilder, lengths: np.ndarray) -> None:
    with pa.ipc.open_stream(str(path)) as reader:
        for batch in reader:
            words, counts = batch.column("word").to_pylist(), batch.column("count").to_numpy()
            vocabulary.merge(words, counts, lengths)
            lengths = np.zeros(1, np.int64)  # once
    path.unlink()


def plan_shards(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """The pieces of each shard, as ShardWriter would end shards and row groups."""
    shards: list[list[Piece]] = []
    group_docs = docs = num_bytes = 0
    is_full = True
    for piece in pieces:
        if is_full:
            shards.append([])
            docs, num_bytes = 0, 0
        shards[-1].append(piece)
        docs, num_bytes = docs + piece.num_docs, num_bytes + piece.num_bytes
        group_docs = (group_docs + piece.num_docs) % ROW_GROUP_DOCS
        is_full = group_docs == 0 and (docs >= SHARD_DOCS or num_bytes >= SHARD_BYTES)
    return shards
