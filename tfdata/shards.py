"""A shard set: a folder of globally shuffled Parquet shards, its vocabulary and manifest.json."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shortline import UserError
from tfdata.label_order import Drift

MANIFEST = "manifest.json"
PARTS = ("train", "valid", "test")
SCHEMA = 1
ROW_GROUP_DOCS = 16_384
VOCABULARY = "vocab.txt"
COLUMNS = pa.schema([("text", pa.string()), ("label", pa.int32())])
_AGAIN = "delete the folder and ingest the data again"

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

    def counted_with(self, name: str) -> Any:
        """A field of the TokenizerConfig that counted the vocabulary; old sets lack the newest."""
        return {"unspaced": "keep", **self.tokenizer}[name]

    def num_docs(self, part: str) -> int:
        return sum(shard.num_docs for shard in self.parts[part])

    def join_valid(self) -> ShardSet:
        """The same, but the training part has the validation documents, too, after its own.

        Counts, labels and vocabulary are as they were: a label may be one that training lacks.
        """
        parts = {**self.parts, "train": self.parts["train"] + self.parts["valid"], "valid": ()}
        return replace(self, parts=parts, fingerprint=f"{self.fingerprint}+valid")


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
    except (OSError, ValueError, RecursionError) as error:
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
    vocabulary = folder / VOCABULARY
    words = read_lines(vocabulary)
    if file_sha256(vocabulary) != manifest["vocabulary"]["sha256"]:
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
        counts=_counts(manifest["counts"]),
        fingerprint=str(manifest["fingerprint"]),
    )
    if len(shard_set.label_counts) != num_labels:
        raise ValueError("fewer label counts than labels")
    if shard_set.fingerprint != compute_fingerprint(shard_set, manifest["vocabulary"]["sha256"]):
        raise ValueError("its content does not fit its fingerprint")
    num_docs = shard_set.num_docs("train")
    if not shard_set.label_counts.sum() == shard_set.length_counts.sum() == num_docs > 0:
        raise ValueError("its counts do not add up")
    if num_labels < 2 or not shard_set.label_counts.all():
        raise ValueError("two classes or more must have documents")
    return shard_set


def _strings(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("labels must be strings")
    return tuple(values)


def _naturals(values: Any) -> np.ndarray:
    if not all(type(value) is int and value >= 0 for value in values):
        raise TypeError("counts must be whole numbers")
    return np.array(values, np.int64)


def _counts(values: Any) -> dict[str, Any]:
    """Of ingest: whole numbers, lists of names (of columns: of pairs), and a Drift, by name."""
    if not isinstance(values, dict):
        raise TypeError("counts must have names")
    for name, value in values.items():
        if name == "order":
            if not isinstance(value, dict):
                raise TypeError("order must have figures")
            figures = vars(Drift(**value)).values() if value else ()
            if not all(isinstance(figure, int | float) for figure in figures):
                raise TypeError("figures must be numbers")
        elif name == "columns" and isinstance(value, list):
            list(map(_strings, value))
        elif isinstance(value, list):
            _strings(value)
        else:
            _naturals([value])
    return values


def _shard(fields: Mapping[str, Any]) -> Shard:
    shard = Shard(**fields)
    if Path(shard.file).name != shard.file or "\\" in shard.file or shard.file in ("", ".", ".."):
        raise ValueError(f"shard file {shard.file!r} is not a plain name")
    _naturals([shard.num_docs, shard.num_bytes])
    return shard


def _without_newest(tokenizer: Mapping[str, Any]) -> Mapping[str, Any]:
    """As sets of before have it, whose runs are to find the same data."""
    kept = tokenizer.get("unspaced", "keep") == "keep"
    return {name: value for name, value in tokenizer.items() if not (kept and name == "unspaced")}


def compute_fingerprint(shard_set: ShardSet, vocabulary_sha256: str) -> str:
    """SHA-256 over all that training sees; `fingerprint` and `counts` play no part."""
    seen = {
        "labels": [shard_set.labels, shard_set.unseen_labels],
        "label_counts": shard_set.label_counts.tolist(),
        "length_counts": shard_set.length_counts.tolist(),
        "parts": {name: [asdict(s) for s in shard_set.parts[name]] for name in PARTS},
        "tokenizer": _without_newest(shard_set.tokenizer),
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
        num_labels = len(shard_set.labels) + len(shard_set.unseen_labels)
        try:
            for texts, labels in _read_shard(path, shard.num_docs, skip_docs, batch_docs):
                texts.validate(full=True)
                if texts.null_count or labels.min() < 0 or labels.max() >= num_labels:
                    raise ValueError("a document lacks a text or a label")
                yield texts, labels
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
        skip_docs = 0


def _read_shard(
    path: Path, num_docs: int, skip_docs: int, batch_docs: int
) -> Iterator[tuple[pa.Array, np.ndarray]]:
    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows != num_docs or not file.schema_arrow.equals(COLUMNS):
            raise ValueError("it does not hold the documents of its manifest")
        first = 0
        while skip_docs >= file.metadata.row_group(first).num_rows:
            skip_docs -= file.metadata.row_group(first).num_rows
            first += 1
        groups = range(first, file.num_row_groups)
        for batch in file.iter_batches(batch_docs, row_groups=groups, columns=COLUMNS.names):
            skipped = min(skip_docs, batch.num_rows)
            skip_docs -= skipped
            if skipped < batch.num_rows:
                batch = batch.slice(skipped)
                yield batch.column(0), batch.column(1).to_numpy()


def _check_size(path: Path, shard: Shard) -> None:
    try:
        status = path.stat()
        leads_out = path.resolve().parent != path.parent.resolve()
    except OSError as error:
        raise UserError(f"{path}: missing or unreadable ({error.strerror}); {_AGAIN}") from error
    if leads_out or not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is no file of this folder, but leads out of it; copy it here")
    if status.st_size != shard.num_bytes:
        raise UserError(f"{path}: has {status.st_size} bytes, not {shard.num_bytes}; {_AGAIN}")


def verify_part(shard_set: ShardSet, part: str) -> None:
    """That the shards of a part are as they were written, for who reads them only later.

    Raises:
      UserError: one is missing, cut short or altered.
    """
    for shard in shard_set.parts[part]:
        _verify(shard_set.folder / shard.file, shard)


def _verify(path: Path, shard: Shard) -> None:
    if (path, shard.sha256) not in _verified:
        _check_size(path, shard)
        if file_sha256(path) != shard.sha256:
            raise UserError(f"{path}: its content has changed since it was written; {_AGAIN}")
        _verified.add((path, shard.sha256))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
      OSError: it cannot be read, or not to the end; with the file's name.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return digest.hexdigest()
