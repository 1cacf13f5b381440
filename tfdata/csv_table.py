"""CSV and TSV files, read by Arrow's streaming parser with every value kept as its bytes."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from shortline import UserError, printable
from tfdata.raw import BOM, MAX_ROW_BYTES, RawTable, ReadCounts, Stream, reading

_SKIP_MEND = "mend the row (train.py and tfdata.ingest skip such rows with --skip-bad-rows)"
_QUOTE_MEND = "probably a quote that is never closed: mend it"
_MOST_LINES_SKIPPED = 100


def open_csv(
    path: Path, head: bytes, delimiter: str | None, skip_bad_rows: bool, counts: ReadCounts
) -> RawTable:
    """Opens a CSV file whose first bytes are `head`; None guesses the delimiter from the header.

    Raises (also while reading):
      UserError: a ragged row (unless skipped), an unclosed quote, a row beyond MAX_ROW_BYTES.
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
    if not delimiter.isascii():
        raise UserError(f"--delimiter {delimiter}: must be an ASCII character")

    def read(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        wanted = range(len(names)) if columns is None else [names.index(c) for c in columns]
        if header_only:  # Arrow would take a lone header line for an incomplete row
            return
        reader = _Reader(path, len(names), delimiter, blank_lines, skip_bad_rows, counts)
        for batch in reader.read(wanted):
            arrays = [batch.column(str(i)) for i in wanted]
            yield pa.RecordBatch.from_arrays(arrays, [names[i] for i in wanted])

    return RawTable(names, read, first_row=2)


def _first_rows(text: str, delimiter: str) -> list[list[str]]:
    """The header and, where there is more, the next row."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    with contextlib.suppress(csv.Error):
        return list(itertools.islice((row for row in rows if row), 2)) or [[]]
    return [[], []]


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
        self._rows = 1  # the header

    def read(self, wanted: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """Batches of binary columns named "0", "1", ...: those wanted, and the last."""
        last = None
        with reading(self._path), contextlib.closing(Stream(self._path, self._counts)) as stream:
            try:
                for batch in self._open(stream, {*wanted, self._num_columns - 1}):
                    self._rows += batch.num_rows
                    if batch.num_rows:
                        last = batch.column(str(self._num_columns - 1))[-1].as_py()
                    yield batch
            except pa.ArrowInvalid as error:
                raise self._explained(error) from error
            # Arrow closes an open quote silently at the end of the file
            if last and set(last) & set(b"\r\n") and not stream.tail.rstrip(b"\r\n").endswith(b'"'):
                raise UserError(
                    f"{self._path}: row {self._rows} runs to the end of the file; {_QUOTE_MEND}"
                )

    def _open(self, stream: Stream, columns: set[int]) -> pa_csv.CSVStreamingReader:
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
                include_columns=[str(i) for i in sorted(columns)], strings_can_be_null=False,
            ),
        )  # fmt: skip

    def _handle_bad_row(self, row: pa_csv.InvalidRow) -> str:
        if self._skip and row.text.count("\n") <= _MOST_LINES_SKIPPED:
            self._counts.bad_rows += 1
            self._counts.rows_read += 1
            self._rows += 1
            return "skip"
        self._fault = row
        return "error"

    def _explained(self, error: pa.ArrowInvalid) -> UserError:
        if self._fault is not None:
            lines = self._fault.text.count("\n") + 1
            where = f"{self._path}: row {self._fault.number or '?'} (the header is row 1)"
            if lines > _MOST_LINES_SKIPPED:
                return UserError(f"{where} runs over {lines} lines; {_QUOTE_MEND}")
            return UserError(
                f"{where} has {self._fault.actual_columns} columns, not the "
                f"{self._fault.expected_columns} of the header: "
                f"{printable(self._fault.text, 60)}; {_SKIP_MEND}"
            )
        if "straddl" in str(error):
            return UserError(
                f"{self._path}: a row after row {self._rows} is longer than "
                f"{MAX_ROW_BYTES >> 20} MiB; {_QUOTE_MEND}"
            )
        return UserError(f"{self._path}: cannot be read as CSV: {printable(str(error), 200)}")
