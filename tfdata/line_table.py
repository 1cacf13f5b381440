"""Files of one document a line: JSONL and fastText."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shortline import UserError, printable
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

_BLOCK_BYTES = 4 << 20
_SKIP_MEND = f"mend the line{SKIP_MENDS['line']}"
_FASTTEXT = re.compile(rb"__label__(\S+)(?:[ \t]+(?!__label__)(.*))?", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
# numbers stay as they are written: 1.0 and 1e5 are not to become 1 and 100000.0
_DECODE = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode

_MOST_KEYS = 4096

Row = dict[str, Any]


def open_jsonl(path: Path, head: bytes, skip_bad_rows: bool, counts: ReadCounts) -> RawTable:
    """Opens a file of one JSON object a line; `names` are the keys of its first 4 MiB.

    Scalars become the text they are written as, null stays null, `read(None)` gives every key of
    the file, with lists and objects as JSON.

    Raises (also while reading):
      UserError: a line is no JSON object (unless skipped), or the file is one JSON array, or all
        columns are asked for and its keys are too many to be columns.
    """
    if head.removeprefix(BOM).lstrip().startswith(b"["):
        raise UserError(
            f"{path}: is a JSON array; write one object a line instead (jq -c '.[]' < in > out)"
        )

    def keys(blocks: int | None) -> list[str]:
        parsed = parse_lines(path, read_json_object, True, ReadCounts())
        filled = itertools.islice(
            filter(None, (rows for rows, _ in parsed)), blocks
        )  # a first line can be many blocks
        rows = itertools.chain.from_iterable(filled)
        return list(dict.fromkeys(itertools.chain.from_iterable(rows)))

    def read(columns: Sequence[str] | None) -> Iterator[NumberedBatch]:
        names = keys(None) if columns is None else list(columns)
        if columns is None and len(names) > _MOST_KEYS:
            raise UserError(
                f"{path}: has {len(names):,} different keys, too many for columns; write JSONL"
            )
        shown = [_SURROGATE.sub("\ufffd", name) for name in names]
        parse = read_json_object if columns is None else partial(read_json_object, flat=names)
        for rows, numbers in parse_lines(path, parse, skip_bad_rows, counts):
            arrays = [binary_array([row.get(name) for row in rows]) for name in names]
            yield pa.RecordBatch.from_arrays(arrays, shown), numbers

    return RawTable([name for name in keys(1) if not _SURROGATE.search(name)], read)


def open_fasttext(path: Path, skip_bad_rows: bool, counts: ReadCounts) -> RawTable:
    """Opens a file of `__label__x the text` lines as the columns text and label.

    Raises (while reading):
      UserError: a line without a label, or with several (unless skipped).
    """

    def read(columns: Sequence[str] | None) -> Iterator[NumberedBatch]:
        names = ["text", "label"] if columns is None else list(columns)
        for rows, numbers in parse_lines(path, _fasttext_row, skip_bad_rows, counts):
            arrays = [pa.array([row[name] for row in rows], pa.binary()) for name in names]
            yield pa.RecordBatch.from_arrays(arrays, names), numbers

    return RawTable(["text", "label"], read)


def parse_lines(
    path: Path, parse: Callable[[bytes], Row], skip_bad_rows: bool, counts: ReadCounts
) -> Iterator[tuple[list[Row], np.ndarray]]:
    """The rows of a block's lines at a time, and their lines int64[n]; blank lines are no rows."""
    number = 0
    with reading(path), contextlib.closing(Stream(path, counts)) as stream:
        for lines in _read_lines(stream):
            if lines is None:
                raise UserError(
                    f"{path}: line {number + 1} is longer than {MAX_ROW_BYTES >> 20} MiB: is this "
                    "file of another format? --format names one"
                )
            rows, numbers = [], []
            for line in lines:
                number += 1
                if not line or line.isspace():
                    continue
                try:
                    rows.append(parse(line))
                    numbers.append(number)
                except ValueError as error:
                    if not skip_bad_rows:
                        said = f"{error}: {printable(line.decode('utf-8', 'replace'), 60)}"
                        raise UserError(f"{path}: line {number}: {said}; {_SKIP_MEND}") from error
                    counts.bad_rows += 1
                    counts.rows_read += 1
            yield rows, np.array(numbers, np.int64)


def _read_lines(stream: Stream) -> Iterator[list[bytes] | None]:
    """The lines of a block at a time; None where a line is too long."""
    rest, first = b"", True
    while block := stream.read(_BLOCK_BYTES):
        lines = (rest + (block.removeprefix(BOM) if first else block)).split(b"\n")
        rest, first = lines.pop(), False
        yield lines if len(rest) <= MAX_ROW_BYTES else None
    yield [rest]


def read_json_object(line: bytes, flat: Sequence[str] = ()) -> Row:
    try:
        row = _DECODE(line.decode())
    except UnicodeDecodeError:
        row = _DECODE(line.decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None
    if not isinstance(row, dict):
        raise ValueError("is not a JSON object")
    for name in flat:
        if isinstance(row.get(name), (dict, list)):
            raise ValueError(f"`{printable(name)}` is a list or an object, not a text")
    return row


def _fasttext_row(line: bytes) -> Row:
    match = _FASTTEXT.fullmatch(line.rstrip(b"\r"))
    if match is None:
        raise ValueError("must be `__label__NAME text`, with one label")
    return {"label": match[1], "text": match[2] or b""}


def binary_array(values: list[Any]) -> pa.Array:
    """JSON values as binary[n]; a lone surrogate as bytes that are no valid UTF-8."""
    try:
        return pa.array(values, pa.string()).cast(pa.binary())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return pa.array([_encoded(value) for value in values], pa.binary())


def _encoded(value: Any) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)  # true, false, a list or an object
    # an escaped byte becomes that byte again; any other surrogate a byte that is never valid
    return _LONE_SURROGATE.sub("\udcff", value).encode("utf-8", "surrogateescape")
