"""What the tasks of `RayPool` do, each by a function that gives its files the same names again.

A task may run twice, where its first worker died: every file is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from shortline import UserError, write_whole
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.pool import LabelCodes, Source, code_documents, find_parts, split_batch
from tfdata.raw import ReadCounts
from tfdata.read import read_file
from tfdata.shard_writer import ShardWriter
from tfdata.shards import COLUMNS, PARTS, ROW_GROUP_DOCS, Shard, ShardSet, read_batches
from tfdata.shuffle import DOCUMENTS, row_random, scatter, shuffle_bucket
from tfdata.split import TRAIN, Split
from tfdata.time_split import TimeSplit

if TYPE_CHECKING:
    from tfdata.vocab import VocabularyBuilder

_SCATTER_BYTES = 128 << 20
_WORDS = pa.schema([("word", pa.binary()), ("count", pa.int64())])


@dataclass(frozen=True)
class Input:
    """A file of a source."""

    file: Path
    source: Source
    config: IngestConfig
    """With the columns that the source's first file settles for all its files."""


@dataclass(frozen=True)
class Piece:
    """Documents of one part that ShardWriter takes at once: a record batch of a bucket's file."""

    bucket: int
    index: int
    num_docs: int
    num_bytes: int


def read(folder: Path, index: int, file: Input) -> tuple[ReadCounts, list[str]]:
    """Task: one input file, with codes of its own: what was found, and the labels by code."""
    _prepare(folder)
    counts, codes = ReadCounts(), LabelCodes()
    batches = read_file(file.file, file.source.path, file.config, counts)
    seed = file.config.split_seed
    with _new_stream(read_path(folder, index), DOCUMENTS) as writer:
        for batch in code_documents(batches, file.source.part, seed, codes, counts):
            writer.write_batch(batch)
    return counts, codes.names


def scatter_file(
    folder: Path,
    index: int,
    code_of_code: np.ndarray,
    first_row: int,
    num_buckets: int,
    seed: int,
    shared: tuple[Split | TimeSplit, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Task: what `read` wrote, sorted by bucket: bytes int64[B] and documents int64[B, 3] of each.

    It writes files of one record batch a bucket.
    """
    _prepare(folder)
    split, _ = shared
    random = row_random([seed], first_row)
    num_bytes, num_docs = np.zeros(num_buckets, np.int64), np.zeros((num_buckets, 3), np.int64)
    for number, table in enumerate(_read_tables(read_path(folder, index), code_of_code)):
        parts = find_parts(table, split)
        table = table.append_column("part", pa.array(parts))
        table, bounds, some_bytes = scatter(table, random, num_buckets)
        num_bytes += some_bytes
        part_of_row = table.column("part").to_numpy()
        bucket_of_row = np.repeat(np.arange(num_buckets), np.diff(bounds))
        cells = np.bincount(bucket_of_row * 3 + part_of_row, minlength=3 * num_buckets)
        num_docs += cells.reshape(num_buckets, 3)
        table = table.select(DOCUMENTS.names).combine_chunks()
        with _new_file(folder / f"scattered-{index:06d}-{number:04d}.arrow", DOCUMENTS) as writer:
            for start, stop in itertools.pairwise(bounds):
                writer.write_batch(_as_batch(table.slice(start, stop - start)))
    return num_bytes, num_docs


def order(
    folder: Path,
    bucket: int,
    num_bytes: int,
    seed: int,
    before: np.ndarray,
    shared: tuple[Split | TimeSplit, np.ndarray],
    config: TokenizerConfig,
) -> tuple[list[list[Piece]], np.ndarray]:
    """Task: one bucket's documents as pieces of each part, and training's counts of lengths.

    It writes a file of each part, and one of the words of each batch.

    Args:
      before: int64[3], documents of each part in the buckets before.
    """
    _prepare(folder)
    from tfdata.vocab import add_counts

    split, id_of_code = shared
    count = _vocabulary(config).count
    pieces: list[list[Piece]] = [[] for _ in PARTS]
    lengths = np.zeros(1, np.int64)
    filled = before % ROW_GROUP_DOCS
    with tempfile.TemporaryDirectory(dir=folder) as own, contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(_new_file(_ordered_path(folder, bucket, part), COLUMNS))
            for part in PARTS
        ]
        words = stack.enter_context(_new_stream(words_path(folder, bucket), _WORDS))
        batches = _read_scattered(folder, bucket)
        for batch in shuffle_bucket(batches, num_bytes, Path(own, "smaller"), [seed], bucket):
            for part, texts, ids in split_batch(batch, split, id_of_code):
                documents = pa.RecordBatch.from_arrays([texts, pa.array(ids)], schema=COLUMNS)
                while len(documents):
                    piece = documents.slice(0, ROW_GROUP_DOCS - filled[part])
                    documents = documents.slice(len(piece))
                    filled[part] = (filled[part] + len(piece)) % ROW_GROUP_DOCS
                    files[part].write_batch(piece)
                    index = len(pieces[part])
                    pieces[part].append(Piece(bucket, index, len(piece), piece.nbytes))
                if part == TRAIN:
                    found, counts, some_lengths = count(texts)
                    lengths = add_counts(lengths, some_lengths)
                    words.write_batch(
                        pa.RecordBatch.from_arrays(
                            [pa.array(found, pa.binary()), pa.array(counts)], schema=_WORDS
                        )
                    )
    return pieces, lengths


def write(folder: Path, work: Path, part: str, number: int, pieces: Sequence[Piece]) -> Shard:
    """Task: shard `number` of a part into `folder`."""
    _prepare(work)
    with tempfile.TemporaryDirectory(dir=work) as own:
        with ShardWriter(Path(own), part) as writer:
            for bucket in dict.fromkeys(piece.bucket for piece in pieces):
                indices = [piece.index for piece in pieces if piece.bucket == bucket]
                with pa.ipc.open_file(str(_ordered_path(work, bucket, part))) as reader:
                    for index in indices:
                        texts, labels = reader.get_batch(index).columns
                        writer.write(texts, labels.to_numpy())
            (shard,) = writer.finish()
        name = f"{part}-{number:05d}.parquet"
        os.replace(Path(own, shard.file), folder / name)
    return dataclasses.replace(shard, file=name)


def count_shard_lengths(shard_set: ShardSet, number: int, config: TokenizerConfig) -> np.ndarray:
    """Task: int64[n], documents of one training shard by number of tokens."""
    _prepare(shard_set.folder)
    from tfdata.vocab import count_lengths

    texts = (texts for texts, _ in read_batches(shard_set, "train", shard_order=[number]))
    return count_lengths(texts, config, shard_set.words)


def _prepare(folder: Path) -> None:
    """In a worker, before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # it would take all memory of a GPU, for nothing
    if not folder.is_dir():
        raise UserError(
            f"--out: {folder.parent} is not to be seen from {socket.gethostname()}; with --engine "
            "ray, inputs and --out must be on a file system that all nodes share"
        )


@functools.lru_cache
def _vocabulary(config: TokenizerConfig) -> VocabularyBuilder:
    """Traced once a worker."""
    from tfdata.vocab import VocabularyBuilder

    return VocabularyBuilder(config)


def read_path(folder: Path, index: int) -> Path:
    return folder / f"read-{index:06d}.arrow"


def _ordered_path(folder: Path, bucket: int, part: str) -> Path:
    return folder / f"ordered-{bucket:03d}-{part}.arrow"


def words_path(folder: Path, bucket: int) -> Path:
    return folder / f"words-{bucket:03d}.arrow"


@contextlib.contextmanager
def _new_stream(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchWriter]:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with write_whole(path, "wb") as file, pa.ipc.new_stream(file, schema, options=options) as out:
        yield out


@contextlib.contextmanager
def _new_file(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchWriter]:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with write_whole(path, "wb") as file, pa.ipc.new_file(file, schema, options=options) as out:
        yield out


def _read_tables(path: Path, code_of_code: np.ndarray) -> Iterator[pa.Table]:
    """What `read` wrote, some 128 MiB at a time, under the pool's codes."""
    pending: list[pa.RecordBatch] = []
    with pa.ipc.open_stream(str(path)) as reader:
        for batch in reader:
            codes = code_of_code[batch.column("code").to_numpy()]
            pending.append(batch.set_column(1, DOCUMENTS.field("code"), pa.array(codes)))
            if sum(batch.nbytes for batch in pending) >= _SCATTER_BYTES:
                yield pa.Table.from_batches(pending).combine_chunks()
                pending = []
    if pending:
        yield pa.Table.from_batches(pending).combine_chunks()


def _read_scattered(folder: Path, bucket: int) -> Iterator[pa.RecordBatch]:
    for path in sorted(folder.glob("scattered-*.arrow")):
        with pa.ipc.open_file(str(path)) as reader:
            yield reader.get_batch(bucket)


def _as_batch(table: pa.Table) -> pa.RecordBatch:
    """A table of one chunk or none."""
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
