"""What the readers of raw files share: the opened table, the unpacked stream, counts, errors."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from shortline import UserError, printable

MAX_ROW_BYTES = 16 << 20
"""No row of a raw file may be longer."""
BOM = b"\xef\xbb\xbf"
BATCH_ROWS = 16_384
"""Most rows of a batch."""
SKIP_MENDS = {
    unit: f" (train.py, tfdata.ingest, tfdata.doctor and model.evaluate skip such {unit}s with "
    "--skip-bad-rows)"
    for unit in ("row", "line")
}
"""What some commands do with what does not parse."""
_HEAD_BYTES = 1 << 20
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN = {
    b"\xff\xfe": "is UTF-16; convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "is UTF-16; convert it to UTF-8 first (iconv -f UTF-16 -t UTF-8)",
    b"PK\x03\x04": "is a zip or Excel file; unpack it or save it as CSV first",
    b"BZh": "is compressed with bzip2; unpack it, or compress it with gzip or zstd",
    b"\xfd7zXZ": "is compressed with xz; unpack it, or compress it with gzip or zstd",
    b"ARROW1": "is an Arrow IPC (Feather) file; write it as Parquet first",
}


@dataclass(kw_only=True)
class ReadCounts:
    """What became of the rows: `rows_read` = `rows_kept` + `dropped_*` + `bad_rows`."""

    rows_read: int = 0
    rows_kept: int = 0
    dropped_null_text: int = 0
    dropped_null_label: int = 0
    bad_rows: int = 0
    invalid_utf8: int = 0
    """Kept documents in which invalid UTF-8 became U+FFFD."""
    empty_text: int = 0
    """Kept documents whose text has no character."""
    open_quotes: list[str] = field(default_factory=list)
    """CSV fields that seem to have swallowed rows: file, row and lines of each."""
    columns: set[tuple[str, str]] = field(default_factory=set)
    """The (text, label) columns that were read."""
    time_kinds: set[str] = field(default_factory=set)
    """Of the times read: numbers or dates."""
    bytes_read: int = 0
    """Bytes read so far of the files as they lie on the disk: for progress."""

    def add_open_quotes(self, table: RawTable, name: str | Path) -> None:
        """Those of a file that has been read to its end."""
        self.open_quotes += [
            f"{name}: row {row:,} runs over {lines:,} lines" for row, lines in table.open_quotes
        ]


NumberedBatch = tuple[pa.RecordBatch, np.ndarray]


@dataclass(frozen=True)
class RawTable:
    """An opened file: its column names, and `read(columns)` for batches of those (None: all).

    Values of CSV, JSONL and fastText files come as binary columns, the very bytes of the file;
    Parquet keeps its types. With each batch come the numbers int64[n] that a user gives its rows:
    a header is row 1, and what is skipped counts too; of JSONL and fastText they are lines.
    Reading a CSV file to its end fills `open_quotes`: row and lines of fields that hold rows.
    """

    names: list[str]
    read: Callable[[Sequence[str] | None], Iterator[NumberedBatch]] = field(repr=False)
    open_quotes: list[tuple[int, int]] = field(default_factory=list)


def open_raw(path: Path) -> pa.OSFile:
    """The file, whatever bytes its name is made of."""
    return pa.OSFile(os.fsencode(path))  # type: ignore[arg-type]


class Stream:
    """A file, unpacked where it is packed, that counts its bytes and remembers its end."""

    closed = False

    def __init__(self, path: Path, counts: ReadCounts):
        self._raw = open_raw(path)
        magic = self._raw.read(4)
        self._raw.seek(0)
        codec = next((c for start, c in _COMPRESSED.items() if magic.startswith(start)), None)
        self._stream = pa.CompressedInputStream(self._raw, codec) if codec else self._raw
        self._counts, self._seen = counts, 0
        self.tail = b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        seen = self._raw.tell()
        self._counts.bytes_read += seen - self._seen
        self._seen = seen
        self.tail = (self.tail + data[-16:])[-16:]
        return data

    def close(self) -> None:
        self.closed = True
        self._stream.close()
        self._raw.close()


def check_regular(path: Path) -> None:
    """Raises a UserError for a pipe or a device, which gives its content only once, if it ends."""
    with reading(path):
        mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(
            f"{path}: is a pipe or a device, which cannot be read twice; save it as a file first"
        )


def read_head(path: Path) -> bytes:
    """The first MiB of a file, unpacked; empty for an empty file.

    Raises:
      UserError: the file is missing, or of a kind that no reader here takes.
    """
    check_regular(path)
    with reading(path), contextlib.closing(Stream(path, ReadCounts())) as stream:
        head = stream.read(_HEAD_BYTES)
    for magic, complaint in _FOREIGN.items():
        if head.startswith(magic):
            raise UserError(f"{path}: {complaint}")
    return head


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what Arrow and the system say about a damaged file into a UserError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = printable(" ".join(str(error).split()), 200)
        raise UserError(f"{path}: truncated, damaged or unreadable: {said}") from error
