"""Raw files of any format to record batches of two clean string columns, text and label."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortline import UserError, printable
from tfdata.columns import check_column, find_columns
from tfdata.config import IngestConfig
from tfdata.csv_table import open_csv
from tfdata.line_table import open_fasttext, open_jsonl
from tfdata.parquet_table import open_parquet, unpacked_bytes
from tfdata.raw import BATCH_ROWS, BOM, RawTable, ReadCounts, check_regular, read_head, reading
from tfdata.times import parse_times

Format = Literal["auto", "csv", "tsv", "jsonl", "parquet", "fasttext"]
_PACKED = (".gz", ".zst")
_FORMATS: dict[str, str] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl", ".parquet": "parquet", ".pq": "parquet", ".ft": "fasttext",
    ".fasttext": "fasttext", ".txt": "",
}  # fmt: skip
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
DOCUMENTS = pa.schema([("text", pa.string()), ("label", pa.string())])


def read_documents(
    path: Path, config: IngestConfig, counts: ReadCounts, places: bool = False
) -> Generator[pa.RecordBatch, None, None]:
    """Batches of up to 16,384 rows of (text: string, label: string), no nulls, valid UTF-8.

    With --time also their `time`: float64, NaN for none. With `places` also where each stands:
    `file`, a dictionary, and `row`: int64, as messages number it (of JSONL and fastText: its line).

    `path` is a file, or a folder whose data files are read in the order of their names. Rows
    without a text or a label are dropped; `counts` says how many, and what else was changed.

    Raises:
      UserError: what the file holds cannot be read as documents; it names the file and row.
    """
    seen = counts.rows_read
    for file in list_files(path, config.format):
        config = yield from read_file(file, path, config, counts, places)
    if counts.rows_read == seen:
        raise UserError(f"{path}: holds no rows of data (it is empty, or a header alone)")


def read_file(
    file: Path, path: Path, config: IngestConfig, counts: ReadCounts, places: bool = False
) -> Generator[pa.RecordBatch, None, IngestConfig]:
    """The documents of one file of `path`, as above; it returns the settings for the next file.

    These name the columns, which the first file of a folder settles for all.
    """
    head = read_head(file)
    if not head.removeprefix(BOM).strip():
        return config
    table = _open_table(file, head, config, counts)
    folders = _hive_values(file, path)
    all_names = table.names + [key for key in folders if key not in table.names]
    text, label = find_columns(all_names, config.text, config.label, source=file)
    assert label is not None
    counts.columns.add((text, label))
    wanted = [text, label]
    if config.time is not None:
        check_column(all_names, config.time, "--time", file)
        wanted.append(config.time)
    for batch, rows in table.read([n for n in dict.fromkeys(wanted) if n in table.names]):
        texts = column_as_text(batch, text, folders, file)
        labels = column_as_text(batch, label, folders, file)
        place, times = _Place(file, rows, config.strict, places), None
        if config.time is not None:
            stamps = column_as_text(batch, config.time, folders, file)
            times = _parse_column(stamps, config.time, place, counts)
        yield from _clean(texts, labels, times, place, counts)
    counts.add_open_quotes(table, file.relative_to(path.parent))  # the same wherever the data lies
    return replace(config, text=text, label=label)


def read_table_batches(
    path: Path,
    format: Format = "auto",
    delimiter: str | None = None,
    skip_bad_rows: bool = False,
    counts: ReadCounts | None = None,
) -> tuple[list[str], Iterator[pa.RecordBatch]]:
    """All columns of one file: (column names, batches), rows in order.

    Columns of CSV, TSV, JSONL and fastText files are strings, as written; Parquet keeps its types.
    When all is read, `counts` tells of open quotes.

    Raises (also while reading):
      UserError: the file is missing, empty or damaged.
    """
    head = read_head(path)
    if not head.removeprefix(BOM).strip():
        raise UserError(f"{path}: is empty")
    config = IngestConfig(format=format, delimiter=delimiter, skip_bad_rows=skip_bad_rows)
    counts = ReadCounts() if counts is None else counts
    table = _open_table(path, head, config, counts)
    if guess_format(path, head, config.format) == "parquet":
        return table.names, (_mend_strings(batch, path) for batch, _ in table.read(None))
    batches = _read_strings(table, counts, path.name)
    first = next(batches, None)  # only its reader knows every key of a JSONL file
    if first is None:
        return table.names, iter(())
    return first.schema.names, itertools.chain([first], batches)


def _read_strings(table: RawTable, counts: ReadCounts, name: str) -> Iterator[pa.RecordBatch]:
    for batch, _ in table.read(None):
        yield _decode_all(batch)
    counts.add_open_quotes(table, name)


def list_files(path: Path, format: Format = "auto") -> list[Path]:
    """The file itself, or a folder's data files at any depth, sorted by path.

    Left out are names that start with `_` or `.` (Spark's _SUCCESS) and, unless a format is
    given, names that no format goes by.

    Raises:
      UserError: the path is missing, the folder holds no data file, or one is none but a pipe.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    check_regular(path)
    if not path.is_dir():
        return [path]
    found: list[Path] = []
    for folder, inner, files in os.walk(path):
        inner[:] = [name for name in inner if name[0] not in "_."]
        found += [Path(folder, name) for name in files if name[0] not in "_."]
    if format == "auto":
        found = [file for file in found if _suffix(file) in _FORMATS]
    if not found:
        raise UserError(
            f"{path}: no data file in this folder (CSV, TSV, JSONL, Parquet, fastText); "
            "--format reads files whatever their names"
        )
    for file in found:
        check_regular(file)
    return sorted(found, key=lambda file: file.relative_to(path).parts)


def estimate_bytes(file: Path) -> int:
    """About how many bytes a file's documents take when unpacked.

    Raises:
      UserError: a Parquet file is damaged.
    """
    if _suffix(file) in (".parquet", ".pq"):
        return 2 * unpacked_bytes(file)
    return file.stat().st_size * (5 if file.suffix.lower() in _PACKED else 1)


def _suffix(path: Path) -> str:
    suffixes = [s for s in Path(path.name.lower()).suffixes if s not in _PACKED]
    return suffixes[-1] if suffixes else ""


def guess_format(path: Path, head: bytes, asked: str) -> str:
    if asked != "auto":
        return asked
    if head.startswith(b"PAR1"):
        return "parquet"
    start = head.removeprefix(BOM).lstrip()
    by_content = "jsonl" if start.startswith(b"{") else "csv"
    if start.startswith(b"__label__"):
        by_content = "fasttext"
    return format_by_name(path) or by_content


def format_by_name(path: Path) -> str | None:
    """None where the name does not tell."""
    return _FORMATS.get(_suffix(path)) or None


def _open_table(path: Path, head: bytes, config: IngestConfig, counts: ReadCounts) -> RawTable:
    kind = guess_format(path, head, config.format)
    if kind == "parquet":
        return open_parquet(path, counts)
    if kind == "jsonl":
        return open_jsonl(path, head, config.skip_bad_rows, counts)
    if kind == "fasttext":
        return open_fasttext(path, config.skip_bad_rows, counts)
    delimiter = config.delimiter or ("\t" if kind == "tsv" else None)
    return open_csv(path, head, delimiter, config.skip_bad_rows, counts)


def _hive_values(file: Path, root: Path) -> dict[str, str | None]:
    """The columns that a folder's `key=value` parts hold, as Hive and Spark write them."""
    parts = [] if file == root else file.relative_to(root).parent.parts
    pairs = [part.split("=", 1) for part in parts if "=" in part]
    return {unquote(k): None if v == _HIVE_NULL else unquote(v) for k, v in pairs}


def column_as_text(
    batch: pa.RecordBatch, name: str, folders: dict[str, str | None], file: Path
) -> pa.Array:
    """A column as binary[n]: the bytes of a text, or of a number, a date ... as it is written."""
    if name not in batch.schema.names:
        value = folders[name]
        written = None if value is None else value.encode("utf-8", "surrogateescape")
        return pa.array([written] * len(batch), pa.binary())
    column = batch.column(name)
    if pa.types.is_dictionary(column.type):
        with reading(file):
            column = column.dictionary_decode()
    if pa.types.is_nested(column.type):
        raise UserError(
            f"{file}: column `{printable(name)}` holds {printable(str(column.type), 60)}, "
            "which is no text; name other columns with --text and --label"
        )
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    with reading(file):
        if not _is_bytes(column.type):
            column = column.cast(pa.string())
        return column.cast(pa.binary())


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)
    )  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """Where the rows of a batch stand."""

    file: Path
    rows: np.ndarray
    """int64[n]"""
    strict: bool
    told: bool
    """Whether each document is to say its own."""


def _parse_column(column: pa.Array, name: str, place: _Place, counts: ReadCounts) -> np.ndarray:
    """Times binary[n] → float64[n]."""
    try:
        times, kind = parse_times(decode_texts(column)[0])
    except ValueError as error:
        row, text = error.args
        raise UserError(
            f"{place.file}: row {place.rows[row]}: --time {printable(name, 60)} holds "
            f"`{printable(text, 40)}`: write all times as numbers, or all as dates like 2024-12-31 "
            "or 2024-12-31T23:59:59Z"
        ) from None
    counts.time_kinds |= {kind} - {""}
    check_time_kinds(place.file, name, counts)
    return times


def read_times(batch: pa.RecordBatch) -> np.ndarray:
    """Of what `read_documents` gives: float64[n], NaN where there is no time."""
    if "time" not in batch.schema.names:
        return np.full(len(batch), np.nan)
    return batch.column("time").to_numpy()


def check_time_kinds(file: Path, name: str | None, counts: ReadCounts) -> None:
    """Raises a UserError where the times read so far are of two kinds."""
    if len(counts.time_kinds) > 1:
        raise UserError(
            f"{file}: --time {printable(name or '', 60)} holds numbers in some rows and dates in "
            "others; write all alike"
        )


def _clean(
    texts: pa.Array, labels: pa.Array, times: np.ndarray | None, place: _Place, counts: ReadCounts
) -> Iterator[pa.RecordBatch]:
    """Drops rows without text or label and mends UTF-8; binary[n] twice → batches of DOCUMENTS."""
    labels, bad_labels = decode_texts(labels)
    has_text = texts.is_valid().to_numpy(zero_copy_only=False)
    filled = pc.not_equal(pc.utf8_trim_whitespace(labels), "").fill_null(False)
    has_label = filled.to_numpy(zero_copy_only=False)
    kept = np.flatnonzero(has_text & has_label)
    if len(kept) < len(texts):
        texts, labels, bad_labels = texts.take(kept), labels.take(kept), bad_labels[kept]
    texts, bad_texts = decode_texts(texts)
    bad = np.flatnonzero(bad_texts | bad_labels)
    if len(bad) and place.strict:
        raise UserError(
            f"{place.file}: row {place.rows[kept[bad[0]]]} is not valid UTF-8; convert the "
            "file to UTF-8 (iconv -t UTF-8), or leave out --strict to replace what is not"
        )
    counts.rows_read += len(has_text)
    counts.rows_kept += len(kept)
    counts.dropped_null_text += int((~has_text).sum())
    counts.dropped_null_label += int((has_text & ~has_label).sum())
    counts.invalid_utf8 += len(bad)
    counts.empty_text += pc.sum(pc.equal(pc.binary_length(texts), 0)).as_py() or 0
    batch = pa.RecordBatch.from_arrays([texts, labels], schema=DOCUMENTS)
    if times is not None:
        batch = batch.append_column("time", pa.array(times[kept]))
    if place.told:
        file = pa.DictionaryArray.from_arrays(
            np.zeros(len(kept), np.int32), [printable(str(place.file))]
        )
        batch = batch.append_column("file", file).append_column("row", pa.array(place.rows[kept]))
    for start in range(0, len(batch), BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def _decode_all(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [decode_texts(column)[0] for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _mend_strings(batch: pa.RecordBatch, file: Path) -> pa.RecordBatch:
    """The batch with U+FFFD for what is no UTF-8, which Parquet lets pass as strings."""
    columns = []
    for column in batch.columns:
        with contextlib.suppress(pa.ArrowInvalid):
            column.validate(full=True)
            columns.append(column)
            continue
        with reading(file):
            if not _is_bytes(column.type):
                column.validate(full=True)
            columns.append(decode_texts(column.cast(pa.binary()))[0].cast(column.type))
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def decode_texts(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """binary[n] → (string[n] with U+FFFD for what is no UTF-8, bool[n] where that was)."""
    bad = np.zeros(len(values), bool)
    try:
        return values.cast(pa.string()), bad
    except pa.ArrowInvalid:
        texts = values.to_pylist()
    for i, value in enumerate(texts):
        if value is not None:
            texts[i] = value.decode("utf-8", "replace")
            bad[i] = "\ufffd" in texts[i] and not _is_utf8(value)
    return pa.array(texts, pa.string()), bad


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
