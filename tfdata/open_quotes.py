"""Fields of a CSV file that hold rows: what an unclosed quote swallows, up to the next quote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from shortline import printable

OPEN_QUOTES_MEND = (
    'close the quote in that row; one that belongs to a text is written "", and the text in quotes'
)
_MOST_NAMED = 3
_LEAST_ROWS = 10
_LEAST_SHARE = 0.9


def find_open_quotes(fields: pa.Array, delimiter: str, num_columns: int) -> np.ndarray:
    """int64[n]: which of the fields binary[B] hold ten lines or more, nearly all like rows.

    Such a line has as many delimiters as a row, and one of them before neither a space nor the
    line's end, as commas of prose and of JSON stand.
    """
    _, offsets, data = fields.buffers()
    if data is None or num_columns < 2:
        return np.zeros(0, np.int64)
    bounds = np.frombuffer(offsets, np.int32)[fields.offset :][: len(fields) + 1]
    characters = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    breaks = np.flatnonzero(characters == ord("\n"))
    if len(breaks) <= _LEAST_ROWS:
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(characters[:-1] == ord(delimiter))
    tight = ends[characters[ends + 1] > ord(" ")]
    num_ends, num_tight = (np.diff(np.searchsorted(some, breaks)) for some in (ends, tight))
    field = np.searchsorted(bounds - bounds[0], breaks, side="right") - 1
    is_line = np.diff(field) == 0
    is_row = is_line & (num_ends == num_columns - 1) & (num_tight > 0)
    num_lines, num_rows = (
        np.bincount(field[1:][some], minlength=len(fields)) for some in (is_line, is_row)
    )
    return np.flatnonzero((num_rows >= _LEAST_ROWS) & (num_rows >= _LEAST_SHARE * num_lines))


def find_known_values(
    found: np.ndarray, column: pa.Array, delimiter: str, batch: pa.RecordBatch | None
) -> list[int]:
    """Of the fields found in a file of two columns, those of whose lines half or more have a first
    or a last value that other rows of `batch` have in that column, as labels come again.

    One comma a line, as in `12:00:00,123 started`, is no sign of a row by itself.
    """
    if batch is None or not len(found):
        return []
    values = [{value.as_py() for value in part.unique()} for part in batch.columns]
    separator, kept = delimiter.encode(), []
    for i in found:
        lines = column[int(i)].as_py().split(b"\n")[1:-1]
        pairs = [line.rstrip(b"\r").split(separator) for line in lines]
        for place, known in enumerate(values):
            if sum(pair[-place] in known for pair in pairs if len(pair) == 2) * 2 >= len(lines):
                kept.append(int(i))
                break
    return kept


def ends_at_a_quote(field: bytes, delimiter: str) -> bool:
    """Whether the field ends as where a row's own quote closed it: what follows that quote is taken
    for text, the second one of that row, too.

    >>> ends_at_a_quote(b'word,c1\\nmore,c2\\nword"', ","), ends_at_a_quote(b"a,1\\nb,2", ",")
    (True, False)
    """
    last = field.rpartition(b"\n")[2]
    return not last or b'"' in last or last.endswith(delimiter.encode())


def describe_open_quotes(places: Sequence[str]) -> str:
    """What was found, of `file: row, lines` of each."""
    named = "; ".join(printable(place, 120) for place in places[:_MOST_NAMED])
    more = "; ..." if len(places) > _MOST_NAMED else ""
    return (
        f"CSV fields that hold lines which look like rows, and are lost: {len(places):,}; probably "
        f"a quote is never closed (the header is row 1): {named}{more}"
    )


def warn_of_open_quotes(places: Sequence[str]) -> str:
    """The same, with what to do."""
    return f"{describe_open_quotes(places)}; {OPEN_QUOTES_MEND}"
