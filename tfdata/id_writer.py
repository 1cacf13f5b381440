"""Writes a cache of token ids (`tfdata.id_cache`), whole or not at all, while they are made."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from shortline import sync_folder
from tfdata.lock import sweep_left, try_lock

FORMAT = 1
"""To be raised when the files change, or what `Encoder` makes of a text."""
FILES, ENTRY = ("ids", "lengths", "labels"), "cache.json"

Piece = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Some documents of one shard: ids[n], lengths int32[d], labels int32[d]."""


@dataclass(frozen=True)
class CachedShard:
    """Where one shard stands in the three files, and what its bytes there add up to."""

    index: int
    num_docs: int
    num_ids: int
    crc32: tuple[int, int, int]


class IdWriter:
    """Writes one cache into a temporary folder beside it, and renames that at the end.

    What the disk refuses is raised as OSError.
    """

    def __init__(self, folder: Path, key: str, shards: Sequence[tuple[int, int]], num_bytes: int):
        """Does not touch the disk yet.

        Args:
          shards: number and documents of each, in the order of the pieces to come.
          num_bytes: what will be written, about.
        """
        self._folder, self._key, self._expected = folder, key, shards
        self._num_bytes = num_bytes
        self._temporary: Path | None = None
        self._files: list[IO[bytes]] = []
        self._shards: list[CachedShard] = []
        self._begin_shard()

    def add(self, piece: Piece) -> None:
        """Writes the next documents."""
        if not self._files:
            self._open()
        for place, (file, values) in enumerate(zip(self._files, piece, strict=True)):
            content = np.ascontiguousarray(values).data.cast("B")
            file.write(content)
            self._crc32[place] = zlib.crc32(content, self._crc32[place])
        self._num_docs += len(piece[1])
        self._num_ids += len(piece[0])
        index, num_docs = self._expected[len(self._shards)]
        assert self._num_docs <= num_docs  # no piece is of two shards
        if self._num_docs == num_docs:
            crc32 = (self._crc32[0], self._crc32[1], self._crc32[2])
            self._shards.append(CachedShard(index, num_docs, self._num_ids, crc32))
            self._begin_shard()

    def _open(self) -> None:
        parent = self._folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        sweep_killed(parent)
        if self._num_bytes > shutil.disk_usage(parent).free / 2:
            raise OSError(errno.ENOSPC, "they would take more than half of the free space")
        self._temporary = make_temporary(self._folder)
        for name in FILES:
            self._files.append(open(self._temporary / name, "wb"))  # noqa: SIM115
        with contextlib.suppress(OSError):  # a file system without locks
            try_lock(self._files[0].fileno())  # tells `sweep_killed` that we live

    def _begin_shard(self) -> None:
        self._num_docs = self._num_ids = 0
        self._crc32 = [0] * len(FILES)

    def finish(self) -> None:
        """To be called after the last piece. Another writer of the same may have been faster."""
        assert self._temporary is not None
        assert len(self._shards) == len(self._expected)
        shards = [dataclasses.asdict(shard) for shard in self._shards]
        made = {"format": FORMAT, "key": self._key, "shards": shards}
        entry = open(self._temporary / ENTRY, "wb")  # noqa: SIM115
        self._files.append(entry)
        entry.write(json.dumps({"made": made, "crc32": crc_of_json(made)}).encode())
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._temporary)
        try:
            self._temporary.rename(self._folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return
        sync_folder(self._folder.parent)

    def discard(self) -> None:
        """Leaves nothing behind but what was finished."""
        for file in self._files:
            with contextlib.suppress(OSError):  # a full disk says so again when it is closed
                file.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def crc_of_json(value: object) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def make_temporary(folder: Path) -> Path:
    """Makes a folder beside `folder` that no other process uses."""
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(8)}.tmp"
    temporary.mkdir()
    return temporary


def sweep_killed(parent: Path) -> None:
    """Deletes the temporary folders of processes that were killed."""
    sweep_left(parent.glob(".ids-*.tmp"), FILES[0])
