"""Rows and their predictions to a table: CSV, TSV, JSONL or Parquet, as they come.

Legend: R rows of a piece, K predictions of a row.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from shortline import UserError, printable, write_whole

_SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_PACKED = {".gz": "gzip", ".zst": "zstd"}
_FORMULA = re.compile(r"[=+\-@＝＋－＠\t\r\n]", re.ASCII)  # what OWASP lists
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Rows:
    """A piece of the input: its texts, and its rows in the form that they will be written in."""

    texts: pa.Array
    """string[R]; null: nothing to predict from."""
    columns: pa.RecordBatch | None = None
    """The columns to write before the predictions ..."""
    objects: pa.Array | None = None
    """... or string[R]: JSON objects up to where the predictions' members follow."""

    def slice(self, start: int, length: int) -> Rows:
        return Rows(
            self.texts.slice(start, length),
            self.columns and self.columns.slice(start, length),
            self.objects and self.objects.slice(start, length),
        )


def prediction_names(top_k: int) -> list[str]:
    """The names of the columns to add: label, probability, label_2, probability_2, ..."""
    ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    return [name + rank for rank in ranks for name in ("label", "probability")]


def free_names(
    names: Sequence[str], taken: Collection[str], others: Iterable[str] = ()
) -> list[str]:
    """The names, with one prefix before all that are taken, with which none is a name already.

    Of a name that stands there twice, the second has the next such prefix.

    >>> free_names(["text", "label"], ["label", "probability"])
    ['text', 'input_label']
    >>> free_names(["input_label", "label", "probability"], ["label", "probability"])
    ['input_label', 'input_2_label', 'input_2_probability']

    Args:
      others: names that must not come of it either.
    """
    known = {*names, *others}
    clashing = [name for name in known if name in taken]
    numbers = (f"input_{number}_" for number in itertools.count(2))
    free = (
        prefix
        for prefix in itertools.chain(["input_"], numbers)
        if known.isdisjoint(prefix + name for name in clashing)
    )
    prefixes: list[str] = []
    times: Counter[str] = Counter()
    freed = []
    for name in names:
        if name in taken:
            if times[name] == len(prefixes):
                prefixes.append(next(free))
            freed.append(prefixes[times[name]] + name)
            times[name] += 1
        else:
            freed.append(name)
    return freed


def output_format(out: Path) -> str:
    """csv, tsv, jsonl or parquet, by the suffix.

    Raises:
      UserError: it is another one.
    """
    suffixes = [suffix.lower() for suffix in out.suffixes]
    packed = suffixes[-1:] and suffixes[-1] in _PACKED
    inner = (suffixes[:-1] if packed else suffixes)[-1:]
    kind = _SUFFIXES.get(inner[0]) if inner else None
    if kind is None or (packed and kind == "parquet"):
        raise UserError(
            f"--out {out}: the name must end in .csv, .tsv, .jsonl (all three also with .gz or "
            ".zst) or .parquet"
        )
    return kind


class Table(Protocol):
    """What `open_table` opens."""

    def write(self, rows: Rows, predictions: pa.RecordBatch) -> None:
        """Appends R rows and their predictions."""


@contextlib.contextmanager
def open_table(out: Path | None, kind: str) -> Iterator[Table]:
    """A table that is written whole or not at all; None: to stdout, piece after piece."""
    with contextlib.ExitStack() as stack:
        if out is None:
            file: Any = _Terminal() if sys.stdout.isatty() else sys.stdout.buffer
        else:
            file = stack.enter_context(write_whole(out, "wb"))
        if kind == "parquet":
            yield stack.enter_context(contextlib.closing(_ParquetTable(file)))
            return
        codec = _PACKED.get(out.suffix.lower()) if out else None
        sink: Any = file
        if codec:
            own = os.fdopen(os.dup(file.fileno()), "wb")  # Arrow closes what it writes to
            sink = stack.enter_context(pa.CompressedOutputStream(own, codec))
        yield _JsonTable(sink) if kind == "jsonl" else _CsvTable(sink, kind)
        if out is None:
            file.flush()


class _Terminal:
    """Stdout, where nothing of the data can steer the terminal."""

    def write(self, data: bytes | pa.Buffer) -> None:
        text = bytes(data).decode("utf-8", "replace")
        sys.stdout.write(re.sub(r"[^\n\t]+", lambda match: printable(match[0]), text))

    def flush(self) -> None:
        sys.stdout.flush()


class _CsvTable:
    def __init__(self, sink: Any, kind: str):
        self._sink, self._delimiter = sink, "\t" if kind == "tsv" else ","
        self._has_header = False

    def write(self, rows: Rows, predictions: pa.RecordBatch) -> None:
        assert rows.columns is not None
        columns = [_as_text(column) for column in rows.columns.columns]
        added = [_defuse(c) if pa.types.is_string(c.type) else c for c in predictions.columns]
        predictions = pa.RecordBatch.from_arrays(added, predictions.schema.names)
        batch = _side_by_side(rows.columns.schema.names, columns, predictions)
        options = pa_csv.WriteOptions(
            include_header=not self._has_header, delimiter=self._delimiter
        )
        buffer = pa.BufferOutputStream()
        pa_csv.write_csv(batch, buffer, options)
        self._has_header = True
        self._sink.write(buffer.getvalue())
        self._sink.flush()


class _JsonTable:
    def __init__(self, sink: Any):
        self._sink = sink

    def write(self, rows: Rows, predictions: pa.RecordBatch) -> None:
        objects = rows.objects if rows.objects is not None else _as_objects(rows.columns)
        members = []
        for name, column in zip(predictions.schema.names, predictions.columns, strict=True):
            if pa.types.is_string(column.type):
                encoded = column.dictionary_encode()
                values = pa.array(map(to_json, encoded.dictionary.to_pylist()), pa.string())
                column = values.take(encoded.indices)
            values = pc.fill_null(column.cast(pa.string()), "null")
            members.append(pc.binary_join_element_wise(json.dumps(name), values, ": "))
        lines = pc.binary_join_element_wise(*members, ", ")
        lines = pc.binary_join_element_wise(objects, lines, "").to_pylist()
        self._sink.write("".join(f"{line}}}\n" for line in lines).encode())
        self._sink.flush()


class _ParquetTable:
    def __init__(self, file: IO[bytes]):
        self._file = file
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: Rows, predictions: pa.RecordBatch) -> None:
        assert rows.columns is not None
        batch = _side_by_side(rows.columns.schema.names, rows.columns.columns, predictions)
        writer = self._writer or pq.ParquetWriter(self._file, batch.schema, compression="zstd")
        self._writer = writer
        writer.write_batch(batch)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _side_by_side(
    names: Sequence[str], columns: Sequence[pa.Array], predictions: pa.RecordBatch
) -> pa.RecordBatch:
    names = [*names, *predictions.schema.names]
    return pa.RecordBatch.from_arrays([*columns, *predictions.columns], names)


def _defuse(labels: pa.Array) -> pa.Array:
    """Labels that a spreadsheet would take for a formula, and run, behind an apostrophe."""
    encoded = labels.dictionary_encode()
    safe = [
        "'" + label if _FORMULA.match(label) and not _NUMBER.fullmatch(label) else label
        for label in encoded.dictionary.to_pylist()
    ]
    return pa.array(safe, pa.string()).take(encoded.indices)


def _as_text(column: pa.Array) -> pa.Array:
    """Any Arrow column as what the CSV writer knows: numbers, or string[R]; lists as JSON."""
    if pa.types.is_integer(column.type) or pa.types.is_float64(column.type):
        return column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column.cast(pa.string())
    values = (None if value is None else _plain(value) for value in column.to_pylist())
    texts = (v if v is None or isinstance(v, str) else to_json(v) for v in values)
    return pa.array(texts, pa.string())


def _as_objects(columns: pa.RecordBatch | None) -> pa.Array:
    """Each row as a JSON object, left open for more members: string[R]."""
    assert columns is not None
    names = [to_json(name) for name in columns.schema.names]
    values = [[to_json(v) for v in column.to_pylist()] for column in columns.columns]
    rows = zip(*values, strict=True)
    return pa.array(
        [open_object(", ".join(map(": ".join, zip(names, row, strict=True)))) for row in rows],
        pa.string(),
    )


def open_object(members: str) -> str:
    """The members of a JSON object, ready for more of them.

    >>> open_object('"a": 1'), open_object("")
    ('{"a": 1, ', '{')
    """
    return "{" + members + ", " if members.strip() else "{"


def to_json(value: Any) -> str:
    """A value of an Arrow column, or of another JSON text, as JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_plain, allow_nan=False)
    except ValueError:  # JSON has neither NaN nor infinity
        return "null" if isinstance(value, float) else json.dumps(str(value))


def _plain(value: Any) -> Any:
    """What JSON can hold of a value that it has no type for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, (list, dict)) else str(value)
