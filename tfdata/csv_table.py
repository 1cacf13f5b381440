"""CSV and TSV files, read by Arrow's streaming parser with every value kept as its bytes."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from shortline import UserError, printable
from tfdata.open_quotes import ends_at_a_quote, find_known_values, find_open_quotes
from tfdata.raw import (
    BOM,
    MAX_ROW_BYTES,
    SKIP_MENDS,
    NumberedBatch,
    RawTable,
    ReadCounts,
    Stream,
    reading,
)

_SKIP_MEND = f"mend the row{SKIP_MENDS['row']}"
_QUOTE_MEND = "probably a quote that is never closed: mend it"
_MOST_LINES_SKIPPED = 100
_MOST_QUOTES, _MOST_LOOKED_AT = 1_000, 10_000  # of a file; of a batch of two columns, by values
_MOST_DOUBTFUL = 3
"""Of two columns, fields like rows by their commas alone: if there are more, texts are so."""
_MOST_IDLE_SECONDS = 1.0
_INVALID, _REPLACED = "\ufdd0", "\ufffd"  # the first is a noncharacter: no text may hold it

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")

csv.field_size_limit(MAX_ROW_BYTES)  # of the header and the first row; else 128 KiB
codecs.register_error("shortline_invalid", lambda error: (_INVALID, error.end))


def open_csv(
    path: Path, head: bytes, delimiter: str | None, skip_bad_rows: bool, counts: ReadCounts
) -> RawTable:
    """Opens a CSV file whose first bytes are `head`; None guesses the delimiter from the header.

    Raises (also while reading):
      UserError: a header that is no text, a ragged row (unless skipped), an unclosed quote, a row
        beyond MAX_ROW_BYTES.
    """
    start = head.removeprefix(BOM).decode("utf-8", "replace")
    body = start.lstrip("\r\n")
    blank = start[: len(start) - len(body)]
    blank_lines = len(re.findall(r"\r\n|\r|\n", blank))
    delimiter = delimiter or max(
        ",;\t|", key=lambda candidate: len(_first_rows(body, candidate)[0])
    )
    first = _first_rows(body, delimiter)
    names, header_only = first[0], len(first) == 1
    if any(_CONTROL.search(name) for name in names):
        raise UserError(
            f"{path}: is no text (its first line has control characters: "
            f"{printable(','.join(names), 40)}); give a CSV, TSV, JSONL, Parquet or fastText file"
        )
    if not delimiter.isascii():
        raise UserError(f"--delimiter {delimiter}: must be an ASCII character")

    open_quotes: list[tuple[int, int]] = []

    def read(columns: Sequence[str] | None) -> Iterator[NumberedBatch]:
        wanted = range(len(names)) if columns is None else [names.index(c) for c in columns]
        if header_only:  # Arrow would take a lone header line for an incomplete row
            return
        reader = _Reader(path, len(names), delimiter, blank_lines, skip_bad_rows, counts)
        for batch, rows in reader.read(wanted):
            yield batch.rename_columns([names[i] for i in wanted]), rows
        open_quotes.extend(reader.open_quotes)

    return RawTable(names, read, open_quotes)


def _first_rows(text: str, delimiter: str) -> list[list[str]]:
    """The header and, where there is more, the next row."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    with contextlib.suppress(csv.Error):
        return list(itertools.islice((row for row in rows if row), 2)) or [[]]
    return [[], []]


class _Utf8Stream(Stream):
    """What Arrow's own thread reads, blocks ahead; UTF-8 throughout.

    In the place of every invalid sequence, as `replace` has it, stands a noncharacter (and where
    there was one in such a file, it is taken for invalid too): Arrow decodes a ragged row before
    it asks what to do with it, and where that fails asks nobody.
    """

    def __init__(self, path: Path, counts: ReadCounts):
        super().__init__(path, counts)
        self._decoder = codecs.getincrementaldecoder("utf-8")("shortline_invalid")
        self._ready = b""
        self._lock, self._ended, self._stopped = threading.Lock(), threading.Event(), False
        self.is_marked = False

    def read(self, size: int) -> bytes:
        data = b""
        try:
            with self._lock:
                data = b"" if self._stopped else self._read(size)
        finally:
            if not data:
                self._ended.set()
        return data

    def stop(self) -> None:
        """Ends the reading before the end of the file.

        A read under way would end the process by SIGABRT when the interpreter exits, and hang
        when Arrow's reader is freed, which waits for it and holds the lock of the interpreter.
        """
        self._stopped = True
        with self._lock:
            pass
        self._ended.wait(_MOST_IDLE_SECONDS)  # so far ahead, the thread may also be at rest
        time.sleep(0.02)  # from the end of `read` back into Arrow

    def _read(self, size: int) -> bytes:
        at_end = False
        while len(self._ready) < size and not at_end:
            block = super().read(size)
            at_end = not block
            before = self._decoder.getstate()[0]
            text = self._decoder.decode(block, at_end)
            after = self._decoder.getstate()[0]
            if _INVALID in text or before or after:
                as_utf8 = text.encode()
                self.is_marked |= as_utf8 + after != before + block
                block = as_utf8
            self._ready += block
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def restore(self, column: pa.Array) -> pa.Array:
        """binary[n] with a byte that is invalid, so that it is replaced and counted, for each."""
        if not self.is_marked:
            return column
        return pc.replace_substring(column, pattern=_INVALID.encode(), replacement=b"\xff")


class _Reader:
    """One pass over one file."""

    def __init__(
        self,
        path: Path,
        num_columns: int,
        delimiter: str,
        blank_lines: int,
        skip_bad_rows: bool,
        counts: ReadCounts,
    ):
        self._path, self._counts = path, counts
        self._num_columns, self._delimiter = num_columns, delimiter
        self._blank_lines, self._skip = blank_lines, skip_bad_rows
        self._fault: pa_csv.InvalidRow | None = None
        self._row = 1  # the last one that was given; the header is the first
        self._skipped: list[int] = []
        self._open_quotes: list[tuple[int, int]] = []
        self._doubtful: list[tuple[int, int]] = []

    def read(self, wanted: Sequence[int]) -> Iterator[NumberedBatch]:
        """Batches of the binary columns wanted; all are looked at for open quotes."""
        last = None
        opened = contextlib.closing(_Utf8Stream(self._path, self._counts))
        with reading(self._path), opened as stream:
            try:
                reader = self._open(stream)
                for batch in reader:
                    rows = self._number(batch.num_rows)
                    if batch.num_rows:
                        last = batch.column(self._num_columns - 1)[-1].as_py()
                    for column in batch.columns:
                        self._find_open_quotes(column, rows, batch)
                    columns = [stream.restore(batch.column(i)) for i in wanted]
                    yield pa.RecordBatch.from_arrays(columns, list(map(str, wanted))), rows
            except BaseException as error:
                stream.stop()
                if isinstance(error, pa.ArrowInvalid):
                    raise self._explained(error) from error
                raise
            # Arrow closes an open quote silently at the end of the file
            if last and set(last) & set(b"\r\n") and not stream.tail.rstrip(b"\r\n").endswith(b'"'):
                raise UserError(
                    f"{self._path}: row {self._row} runs to the end of the file; {_QUOTE_MEND}"
                )

    def _open(self, stream: Stream) -> pa_csv.CSVStreamingReader:
        # own names: a file may use one twice, and Arrow's would be read from the file again
        names = [str(i) for i in range(self._num_columns)]
        return pa_csv.open_csv(
            stream,  # type: ignore[arg-type]
            read_options=pa_csv.ReadOptions(
                block_size=MAX_ROW_BYTES, column_names=names, skip_rows=self._blank_lines,
                skip_rows_after_names=1, use_threads=False,  # only so do bad rows have a number
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True,
                invalid_row_handler=self._handle_bad_row,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.binary() for name in names}, check_utf8=False,
                strings_can_be_null=False,
            ),
        )  # fmt: skip

    def _find_open_quotes(
        self, column: pa.Array, rows: Sequence[int] | np.ndarray,
        batch: pa.RecordBatch | None = None,
    ) -> None:  # fmt: skip
        found = find_open_quotes(column, self._delimiter, self._num_columns)
        known = set(found.tolist())
        if self._num_columns == 2:
            known = {*find_known_values(found[:_MOST_LOOKED_AT], column, self._delimiter, batch)}
        for i in found.tolist():
            places, most = self._open_quotes, _MOST_QUOTES
            if i not in known:
                places, most = self._doubtful, _MOST_DOUBTFUL + 1
            if len(places) == most:
                continue
            field = column[i].as_py()
            if i in known or ends_at_a_quote(field, self._delimiter):
                places.append((int(rows[i]), field.count(b"\n") + 1))

    @property
    def open_quotes(self) -> list[tuple[int, int]]:
        """Row and lines of the fields that hold rows, of what has been read."""
        few = len(self._doubtful) <= _MOST_DOUBTFUL
        return sorted(self._open_quotes + (self._doubtful if few else []))

    def _number(self, num_rows: int) -> np.ndarray:
        """The numbers int64[n] of the next rows that are not skipped."""
        if not num_rows:
            return np.zeros(0, np.int64)
        skipped = np.array(self._skipped, np.int64)  # also of later batches: Arrow is blocks ahead
        rows = self._row + 1 + np.arange(num_rows + len(skipped))
        rows = np.setdiff1d(rows, skipped, assume_unique=True)[:num_rows]
        self._row = int(rows[-1])
        del self._skipped[: np.searchsorted(skipped, self._row)]
        return rows

    def _number_of(self, row: pa_csv.InvalidRow) -> int:
        return (row.number or 0) - self._blank_lines

    def _handle_bad_row(self, row: pa_csv.InvalidRow) -> str:
        if self._skip and row.text.count("\n") <= _MOST_LINES_SKIPPED:
            self._counts.bad_rows += 1
            self._counts.rows_read += 1
            self._skipped.append(self._number_of(row))
            if "\n" in row.text:
                self._find_open_quotes(pa.array([row.text.encode()]), self._skipped[-1:])
            return "skip"
        self._fault = row
        return "error"

    def _explained(self, error: pa.ArrowInvalid) -> UserError:
        if self._fault is not None:
            lines = self._fault.text.count("\n") + 1
            where = f"{self._path}: row {self._number_of(self._fault)} (the header is row 1)"
            if lines > _MOST_LINES_SKIPPED:
                return UserError(f"{where} runs over {lines} lines; {_QUOTE_MEND}")
            swallowed = f", over {lines} lines: is a quote never closed?" if lines > 2 else ""
            return UserError(
                f"{where} has {self._fault.actual_columns} columns, not the "
                f"{self._fault.expected_columns} of the header{swallowed}: "
                f"{printable(self._fault.text.replace(_INVALID, _REPLACED), 60)}; {_SKIP_MEND}"
            )
        if "straddl" in str(error):
            return UserError(
                f"{self._path}: a row after row {self._row} is longer than "
                f"{MAX_ROW_BYTES >> 20} MiB; {_QUOTE_MEND}"
            )
        return UserError(f"{self._path}: cannot be read as CSV: {printable(str(error), 200)}")
