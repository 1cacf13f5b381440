"""Parquet files: their types kept, their checksums checked, what they unpack to bounded.

A dictionary of a few bytes in the file can stand for any number of bytes unpacked: columns that
have one are read as dictionaries, measured, and decoded in pieces.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortline import UserError, printable
from tfdata.raw import (
    BATCH_ROWS,
    MAX_ROW_BYTES,
    NumberedBatch,
    RawTable,
    ReadCounts,
    open_raw,
    reading,
)

MAX_GROUP_BYTES = 16 << 30
"""What the columns that are read of a row group may take when unpacked."""
_PIECE_BYTES = 64 << 20
_LEAST_ROWS, _DELTA_ROWS = 16, 256


def open_parquet(path: Path, counts: ReadCounts) -> RawTable:
    """Opens a Parquet file; columns keep their types.

    Raises (also while reading):
      UserError: the file is damaged, or what it unpacks to is beyond the bounds.
    """
    with reading(path), _open(path) as file:
        names = file.schema_arrow.names

    def read(columns: Sequence[str] | None) -> Iterator[NumberedBatch]:
        size, done = path.stat().st_size, 0
        with reading(path), _open(path) as file:
            num_rows = file.metadata.num_rows
            for batch in _read_batches(path, file, columns):
                seen = size * done // max(1, num_rows)
                done += batch.num_rows
                counts.bytes_read += size * done // max(1, num_rows) - seen
                yield batch, np.arange(done - batch.num_rows, done) + 1
        if done != num_rows:
            raise UserError(f"{path}: damaged: it should have {num_rows} rows and has {done}")

    return RawTable(names, read)


def unpacked_bytes(path: Path) -> int:
    """What the columns of a file take without compression, by its own account.

    Raises:
      UserError: the file is damaged.
    """
    with reading(path), _open(path) as file:
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        return sum(max(0, group.total_byte_size) for group in groups)


@contextlib.contextmanager
def _open(path: Path, dictionaries: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    raw = contextlib.closing(open_raw(path))
    with raw as source, pq.ParquetFile(
        source, page_checksum_verification=True, read_dictionary=list(dictionaries)
    ) as file:  # fmt: skip
        yield file


def _read_batches(
    path: Path, file: pq.ParquetFile, columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    """The batches of a file, cut where they would take more than 64 MiB when decoded."""
    schema = file.schema_arrow
    fields = [*schema] if columns is None else [schema.field(name) for name in columns]
    names = None if columns is None else [*columns]
    # of a row group no more than this: pyarrow ends the process at damage further in
    groups = [*map(file.metadata.row_group, range(file.metadata.num_row_groups))]
    group_ends = np.cumsum([group.num_rows for group in groups])
    widest = max((group.total_byte_size / max(1, group.num_rows) for group in groups), default=0)
    batch_rows = int(min(BATCH_ROWS, max(_LEAST_ROWS, MAX_ROW_BYTES / max(1, widest))))
    texts = [field.name for field in fields if _is_text(field.type)]
    row = unpacked = 0
    for batch in _read_packed(path, names, texts, batch_rows):
        if columns is not None:
            _check_lengths(path, batch, row)
        row += batch.num_rows
        sizes = _row_bytes(batch)
        unpacked += int(sizes.sum())
        if unpacked > MAX_GROUP_BYTES * (1 + int(np.searchsorted(group_ends, row))):
            raise UserError(
                f"{path}: a row group unpacks to more than {MAX_GROUP_BYTES >> 30} GiB up to row "
                f"{row}; if that is meant, write it with smaller row groups"
            )
        for piece in _cut(batch, sizes):
            arrays = [_decode(a, f.type) for a, f in zip(piece.columns, fields, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _read_packed(
    path: Path, names: list[str] | None, texts: list[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches with `texts` as dictionaries; of what Arrow cannot read so, small ones as they are.

    That is delta encoding, where a value can be as long as all that are stored together.
    """
    row = 0
    try:
        with _open(path, texts) as file:
            for batch in file.iter_batches(batch_rows, columns=names):
                yield batch
                row += batch.num_rows
        return
    except (pa.ArrowNotImplementedError, OSError) as error:
        if "DeltaByteArray" not in str(error):
            raise
    with _open(path) as file:
        for batch in file.iter_batches(min(batch_rows, _DELTA_ROWS), columns=names):
            skipped = min(row, batch.num_rows)
            row -= skipped
            if skipped < batch.num_rows:
                yield batch.slice(skipped)


def _check_lengths(path: Path, batch: pa.RecordBatch, first: int) -> None:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        lengths = _lengths(column)
        if lengths is not None and len(lengths) and lengths.max() > MAX_ROW_BYTES:
            raise UserError(
                f"{path}: row {first + 1 + int(lengths.argmax())} has a `{printable(name, 60)}` of "
                f"more than {MAX_ROW_BYTES >> 20} MiB; is this the right column?"
            )


def _lengths(column: pa.Array) -> np.ndarray | None:
    """int64[n]: the bytes of each text; None for a column of another kind."""
    if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        lengths = pc.binary_length(column.dictionary).cast(pa.int64())
        lengths = lengths.take(column.indices)
    elif _is_text(column.type):
        kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        lengths = pc.binary_length(column.cast(kind))
    else:
        return None
    return lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


def _row_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """int64[n]: what the texts of each row take when decoded."""
    lengths = [known for column in batch.columns if (known := _lengths(column)) is not None]
    return sum(lengths, np.zeros(batch.num_rows, np.int64))


def _cut(batch: pa.RecordBatch, sizes: np.ndarray) -> Iterator[pa.RecordBatch]:
    """Slices that take some 64 MiB, or are one row."""
    piece = np.cumsum(sizes) // _PIECE_BYTES
    for start, stop in itertools.pairwise(np.flatnonzero(np.diff(piece, prepend=-1, append=-1))):
        yield batch.slice(start, stop - start)


def _decode(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    return column if column.type == kind else column.cast(kind)


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        or pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    )  # fmt: skip
