"""Token ids on disk, so that the texts of a part are tokenised once, whichever run wants them.

A cache is a folder of three flat files, one shard after the other, and `cache.json`:
  ids      uint16[N] or int32[N]   the tokens of all documents
  lengths  int32[D]                tokens of each document, 1 or more
  labels   int32[D]
The shards stand in the order in which they were encoded, and cache.json tells which.
A cache is only ever a copy: where it is damaged, or cannot be written, the texts are encoded again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf

from shortline import __version__, printable
from tfdata.encode import Encoder
from tfdata.id_writer import (
    ENTRY,
    FILES,
    FORMAT,
    CachedShard,
    IdWriter,
    Piece,
    crc_of_json,
    make_temporary,
    sweep_killed,
)
from tfdata.ingest import cache_folder
from tfdata.shards import ShardSet

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class CachedIds:
    """An opened cache: memory-mapped, every byte of it verified."""

    ids: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    shards: tuple[CachedShard, ...]

    def read(self, order: Sequence[int] | None, skip_docs: int = 0) -> Iterator[Piece]:
        """The pieces that encoding the shards in this order gives (None: as they are numbered).

        They are views of the files; all of the part in its own order is a single one if it can be.
        """
        stored = [shard.index for shard in self.shards]
        order = range(len(stored)) if order is None else order
        if skip_docs == 0 and stored == list(order):
            yield self.ids, self.lengths, self.labels
            return
        ends_of_docs = np.cumsum([shard.num_docs for shard in self.shards])
        ends_of_ids = np.cumsum([shard.num_ids for shard in self.shards])
        for place in map(stored.index, order):
            shard, token = self.shards[place], int(ends_of_ids[place])
            doc = int(ends_of_docs[place])
            if skip_docs < shard.num_docs:
                lengths = self.lengths[doc - shard.num_docs : doc]
                labels = self.labels[doc - shard.num_docs : doc]
                first = token - shard.num_ids + int(lengths[:skip_docs].sum())
                yield self.ids[first:token], lengths[skip_docs:], labels[skip_docs:]
            skip_docs = max(0, skip_docs - shard.num_docs)


class IdCache:
    """The place of a part's ids under one encoder, which may hold them, or be made to.

    Raises nothing when the disk fails: it says so once, and the ids are encoded as without it.
    """

    def __init__(
        self, shard_set: ShardSet, part: str, encoder: Encoder, id_type: type, num_bytes: int
    ):
        """`num_bytes`: what the ids will take, about; they are not to fill up the disk."""
        made = [
            FORMAT, __version__, tf.__version__, version("tensorflow-text"),
            shard_set.fingerprint, part,
            fingerprint_encoder(encoder), np.dtype(id_type).name,
        ]  # fmt: skip
        self._key = hashlib.sha256(json.dumps(made).encode()).hexdigest()
        self._id_type = id_type
        self.shard_docs = [shard.num_docs for shard in shard_set.parts[part]]
        self._num_bytes = num_bytes
        self._is_writable = True
        self.folder = cache_folder() / f"ids-{self._key[:32]}"

    def open(self) -> CachedIds | None:
        """The ids, or None where there are none. A damaged cache is deleted, with a note."""
        sweep_killed(self.folder.parent)
        try:
            return self._open_verified() if self.folder.exists() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            self._note(f"not used: {error}; encoding the texts again")
        with contextlib.suppress(OSError):  # moved away first: nobody may see one half deleted
            temporary = make_temporary(self.folder)
            self.folder.rename(temporary)
            shutil.rmtree(temporary)
        return None

    def keep(self, pieces: Iterable[Piece], order: Sequence[int] | None) -> Iterator[Piece]:
        """Passes on the pieces of all shards in this order; after the last they are on disk."""
        if not self._is_writable:
            yield from pieces
            return
        order = range(len(self.shard_docs)) if order is None else order
        shards = [(index, self.shard_docs[index]) for index in order]
        writer = IdWriter(self.folder, self._key, shards, self._num_bytes)
        try:
            for piece in pieces:
                self._attempt(writer, lambda piece=piece: writer.add(piece))
                yield piece
            self._attempt(writer, writer.finish)
        finally:
            writer.discard()

    def _attempt(self, writer: IdWriter, write: Callable[[], None]) -> None:
        """Writes; where the disk fails, notes why, and never writes again."""
        if not self._is_writable:
            return
        try:
            write()
        except OSError as error:
            self._is_writable = False
            writer.discard()
            self._note(f"not written: {error.strerror or error}; going on without")

    def _open_verified(self) -> CachedIds:
        entry = json.loads((self.folder / ENTRY).read_bytes())
        made = entry["made"]
        if made["format"] != FORMAT:
            raise ValueError(f"format {made['format']}, but this version reads {FORMAT}")
        if made["key"] != self._key or entry["crc32"] != crc_of_json(made):
            raise ValueError(f"{ENTRY} is damaged")
        shards = tuple(
            CachedShard(s["index"], s["num_docs"], s["num_ids"], tuple(s["crc32"]))
            for s in made["shards"]
        )
        if sorted((s.index, s.num_docs) for s in shards) != list(enumerate(self.shard_docs)):
            raise ValueError(f"{ENTRY} is of other shards")
        types = (self._id_type, np.int32, np.int32)
        _verify_files(self.folder, shards, [np.dtype(t).itemsize for t in types])
        ids, lengths, labels = (
            np.memmap(self.folder / name, t, "r") for name, t in zip(FILES, types, strict=True)
        )
        return CachedIds(ids, lengths, labels, shards)

    def _note(self, problem: str) -> None:
        print(f"note: token ids in {printable(str(self.folder))} {printable(problem)}")


def fingerprint_encoder(encoder: Encoder) -> str:
    """SHA-256 over all that decides which ids a text gets."""
    settings = dataclasses.asdict(encoder._config) | {"max_len": encoder.max_len}
    digest = hashlib.sha256(json.dumps([settings, encoder._unknown_id]).encode())
    if encoder._config.tokenizer == "wordpiece":
        digest.update(np.asarray(encoder._pieces._model).tobytes())
    else:
        words, ids = (column.numpy() for column in encoder._table.export())
        order = np.argsort(ids, kind="stable")  # a table lists its words in no fixed order
        lengths = np.array([len(word) for word in words[order]], np.int64)
        for part in (ids[order].tobytes(), lengths.tobytes(), b"".join(words[order])):
            digest.update(part)
    return digest.hexdigest()


def _verify_files(folder: Path, shards: Sequence[CachedShard], item_bytes: Sequence[int]) -> None:
    """Raises ValueError where a file is not what was written; 50 MB take 20 ms on one core."""
    parts = []
    for place, name in enumerate(FILES):
        sizes = [(s.num_docs if place else s.num_ids) * item_bytes[place] for s in shards]
        if (folder / name).stat().st_size != sum(sizes):
            raise ValueError(f"the file {name} is cut short, or too long")
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        parts += [
            (name, *part, s.crc32[place]) for *part, s in zip(starts, sizes, shards, strict=True)
        ]

    def is_right(part: tuple[str, int, int, int]) -> bool:
        name, start, size, expected = part
        return _crc_of_file(folder / name, start, size) == expected

    with ThreadPoolExecutor(os.cpu_count() or 1, "verify") as pool:
        for (name, *_), right in zip(parts, pool.map(is_right, parts), strict=True):
            if not right:
                raise ValueError(f"the content of the file {name} has changed")


def _crc_of_file(path: Path, start: int, size: int) -> int:
    """CRC-32 of a range of bytes; read, not mapped, so that the process does not grow by it."""
    crc = 0
    with open(path, "rb") as file:
        file.seek(start)
        while size and (block := file.read(min(size, _BLOCK_BYTES))):
            crc = zlib.crc32(block, crc)
            size -= len(block)
    return crc
