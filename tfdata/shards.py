"""A shard set: a folder of globally shuffled Parquet shards, its vocabulary and manifest.json."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortline import UserError, __version__, write_whole

MANIFEST = "manifest.json"
PARTS = ("train", "valid", "test")
SCHEMA = 1
ROW_GROUP_DOCS = 16_384
SHARD_DOCS = 131_072
SHARD_BYTES = 64 << 20
"""Bytes of text, unpacked, at which a shard is full before it has SHARD_DOCS."""
_VOCABULARY = "vocab.txt"
_COLUMNS = pa.schema([("text", pa.string()), ("label", pa.int32())])
_AGAIN = "ingest the data again"

_verified: set[tuple[Path, str]] = set()  # shards whose checksum this process has seen to be right


@dataclass(frozen=True)
class Shard:
    """One Parquet file of columns text: string, label: int32."""

    file: str
    num_docs: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, eq=False, kw_only=True)
class ShardSet:
    """What a manifest says. Label id i is `(labels + unseen_labels)[i]`."""

    folder: Path
    labels: tuple[str, ...]
    """Classes of the training part, the biggest first."""
    unseen_labels: tuple[str, ...]
    """Labels that only a --valid or --test file has."""
    label_counts: np.ndarray
    """int64[C], training documents by class."""
    words: Sequence[str]
    """The vocabulary, most frequent first, without special entries."""
    tokenizer: Mapping[str, Any]
    """The fields of the TokenizerConfig that counted the vocabulary."""
    length_counts: np.ndarray
    """int64[n], training documents by number of tokens."""
    parts: Mapping[str, tuple[Shard, ...]]
    """Shards of train, valid and test; a part may have none."""
    counts: Mapping[str, Any]
    """What ingest read, dropped, replaced and found."""
    fingerprint: str
    """Changes with anything that training sees, and with nothing else."""

    def num_docs(self, part: str) -> int:
        return sum(shard.num_docs for shard in self.parts[part])


def is_shard_set(folder: Path) -> bool:
    """Whether a folder holds a manifest, and so is meant for `open_shards`."""
    return (folder / MANIFEST).is_file()


def open_shards(folder: Path) -> ShardSet:
    """Opens a shard set; checks all but the content of the shards, which reading them checks.

    Raises:
      UserError: the folder is no shard set, a file is missing or cut short, or the manifest is
        damaged or of another version.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder}: no shard set: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / MANIFEST}: cannot be read ({error}); {_AGAIN}") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"{folder / MANIFEST}: schema {schema}, but this version reads {SCHEMA}; {_AGAIN}"
        )
    try:
        shard_set = _from_manifest(folder, manifest)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{folder / MANIFEST}: damaged ({type(error).__name__}: {error}); {_AGAIN}"
        ) from error
    for shard in (shard for part in PARTS for shard in shard_set.parts[part]):
        _check_size(folder / shard.file, shard)
    return shard_set


def _from_manifest(folder: Path, manifest: dict[str, Any]) -> ShardSet:
    from tfdata.vocab import read_lines

    parts = {
        name: tuple(_shard(fields) for fields in manifest["parts"][name]["shards"])
        for name in PARTS
    }
    vocabulary = folder / _VOCABULARY
    words = read_lines(vocabulary)
    if _sha256(vocabulary) != manifest["vocabulary"]["sha256"]:
        raise UserError(f"{vocabulary}: differs from what ingest wrote; {_AGAIN}")
    num_labels = len(manifest["labels"])
    shard_set = ShardSet(
        folder=folder,
        labels=_strings(manifest["labels"]),
        unseen_labels=_strings(manifest["unseen_labels"]),
        label_counts=_naturals(manifest["parts"]["train"]["label_counts"][:num_labels]),
        words=words,
        tokenizer=dict(manifest["settings"]["tokenizer"]),
        length_counts=_naturals(manifest["length_counts"]),
        parts=parts,
        counts=dict(manifest["counts"]),
        fingerprint=str(manifest["fingerprint"]),
    )
    if len(shard_set.label_counts) != num_labels:
        raise ValueError("fewer label counts than labels")
    if shard_set.fingerprint != _fingerprint(shard_set, manifest["vocabulary"]["sha256"]):
        raise ValueError("its content does not fit its fingerprint")
    return shard_set


def _strings(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("labels must be strings")
    return tuple(values)


def _naturals(values: Any) -> np.ndarray:
    if not all(type(value) is int and value >= 0 for value in values):
        raise TypeError("counts must be whole numbers")
    return np.array(values, np.int64)


def _shard(fields: Mapping[str, Any]) -> Shard:
    shard = Shard(**fields)
    if Path(shard.file).name != shard.file or "\\" in shard.file or shard.file in (".", ".."):
        raise ValueError(f"shard file {shard.file!r} is not a plain name")
    _naturals([shard.num_docs, shard.num_bytes])
    return shard


def _fingerprint(shard_set: ShardSet, vocabulary_sha256: str) -> str:
    seen = {
        "labels": [shard_set.labels, shard_set.unseen_labels],
        "label_counts": shard_set.label_counts.tolist(),
        "length_counts": shard_set.length_counts.tolist(),
        "parts": {name: [asdict(s) for s in shard_set.parts[name]] for name in PARTS},
        "tokenizer": shard_set.tokenizer,
        "vocabulary": vocabulary_sha256,
    }
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def read_batches(
    shard_set: ShardSet,
    part: str,
    *,
    shard_order: Sequence[int] | None = None,
    skip_docs: int = 0,
    batch_docs: int = ROW_GROUP_DOCS,
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Texts string[n] and label ids int32[n], n up to `batch_docs`, shard by shard in that order.

    `skip_docs` documents are left out at the start without being decoded, but for the row group
    in which they end. The checksum of a shard is verified when this process first reads it.

    Raises:
      UserError: a shard is missing, cut short or altered.
    """
    shards = shard_set.parts[part]
    for index in range(len(shards)) if shard_order is None else shard_order:
        shard = shards[index]
        if skip_docs >= shard.num_docs:
            skip_docs -= shard.num_docs
            continue
        path = shard_set.folder / shard.file
        _verify(path, shard)
        try:
            yield from _read_shard(path, skip_docs, batch_docs)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
        skip_docs = 0


def _read_shard(
    path: Path, skip_docs: int, batch_docs: int
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    with pq.ParquetFile(path) as file:
        first = 0
        while skip_docs >= file.metadata.row_group(first).num_rows:
            skip_docs -= file.metadata.row_group(first).num_rows
            first += 1
        groups = range(first, file.num_row_groups)
        for batch in file.iter_batches(batch_docs, row_groups=groups, columns=_COLUMNS.names):
            skipped = min(skip_docs, batch.num_rows)
            skip_docs -= skipped
            if skipped < batch.num_rows:
                batch = batch.slice(skipped)
                yield batch.column(0), batch.column(1).to_numpy()


def _check_size(path: Path, shard: Shard) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: missing or unreadable ({error.strerror}); {_AGAIN}") from error
    if size != shard.num_bytes:
        raise UserError(f"{path}: has {size} bytes, not {shard.num_bytes}; {_AGAIN}")


def _verify(path: Path, shard: Shard) -> None:
    if (path, shard.sha256) not in _verified:
        _check_size(path, shard)
        if _sha256(path) != shard.sha256:
            raise UserError(f"{path}: its content has changed since it was written; {_AGAIN}")
        _verified.add((path, shard.sha256))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
        batch = pa.RecordBatch.from_arrays([texts, pa.array(labels, pa.int32())], schema=_COLUMNS)
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
                self._folder / self._name(), _COLUMNS, compression="zstd", compression_level=3
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
        self._done.append(Shard(path.name, self._docs, path.stat().st_size, _sha256(path)))
        self._docs = self._bytes = 0


def write_manifest(
    shard_set: ShardSet, label_counts: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> None:
    """Writes vocab.txt, then manifest.json, which makes the folder a shard set.

    `label_counts` are the documents int64[n] of each part by label id; `settings` must hold
    `tokenizer`. The set's own fingerprint is not looked at but computed.
    """
    from tfdata.vocab import write_lines

    vocabulary = shard_set.folder / _VOCABULARY
    write_lines(vocabulary, shard_set.words)
    sha256 = _sha256(vocabulary)
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
        "vocabulary": {"file": _VOCABULARY, "size": len(shard_set.words), "sha256": sha256},
        "length_counts": shard_set.length_counts.tolist(),
        "settings": settings,
        "counts": shard_set.counts,
        "fingerprint": _fingerprint(shard_set, sha256),
    }
    with write_whole(shard_set.folder / MANIFEST) as file:
        json.dump(manifest, file, indent=1)
