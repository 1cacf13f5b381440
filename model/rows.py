"""What is to be predicted, piece by piece: rows of a file, or lines of stdin."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import tyro

from model.table import Rows, free_names, open_object, output_format, to_json
from shortline import UserError, printable
from tfdata.columns import find_columns
from tfdata.line_table import binary_array, open_jsonl, parse_lines, read_json_object
from tfdata.open_quotes import warn_of_open_quotes
from tfdata.raw import BOM, MAX_ROW_BYTES, SKIP_MENDS, ReadCounts, read_head
from tfdata.read import (
    Format,
    column_as_text,
    decode_texts,
    format_by_name,
    guess_format,
    read_table_batches,
)

_STDIN = 0
_BLOCK_BYTES = 1 << 20
_MOST_TOLD = 6  # columns that are renamed


@dataclass(frozen=True, kw_only=True)
class InputFlags:
    """What the commands that read and write rows have in common."""

    run: tyro.conf.Positional[str]
    """Folder of the run."""
    input: tyro.conf.Positional[str | None] = None
    """File of texts: CSV, TSV, JSONL, Parquet or fastText (default: the lines of stdin)."""
    out: str | None = None
    """File to write: .csv, .tsv, .jsonl (these also with .gz or .zst) or .parquet (default:
    stdout, in the input's format, or as CSV for Parquet and fastText)."""
    text: str | None = None
    """Column that holds the text (default: as in training where there is one, else guessed)."""
    format: Format = "auto"
    """Format of INPUT; auto goes by the file's name, then by its first bytes."""
    delimiter: str | None = None
    """Field separator of a CSV file (guessed from the header line)."""
    batch_size: int = 4096
    """Texts that are read and answered together."""
    gpus: str = "all"
    """all (or the CPU where there is none), a number, GPUs like 0,2, or none; only the first of
    them is used."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}: must be 1 or more")


def check_files(flags: InputFlags) -> str | None:
    """What is quick to see of INPUT and OUT; gives the format to write, None for lines."""
    out = None if flags.out is None else Path(flags.out)
    kind = None if out is None else output_format(out)
    if out is not None and not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it first")
    if out is not None and out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file")
    if flags.input is None or flags.input == "-":
        if flags.input == "-" or flags.format != "auto" or flags.text is not None:
            raise UserError("stdin holds a text a line; to read columns, name a file as INPUT")
        return kind
    source = Path(flags.input)
    found = detect_format(source, flags.format)
    if out is not None and out.exists() and out.samefile(source):
        raise UserError(f"--out {out}: is the input; name another file")
    return kind or (found if found in ("csv", "tsv", "jsonl") else "csv")


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """How the rows of a file are to be read."""

    format: Format = "auto"
    delimiter: str | None = None
    text: str | None = None
    """Column of the texts, as the user names it."""
    trained_text: str | None = None
    """Column of the texts in training: taken where it is there."""
    added: Collection[str] = ()
    """Names of the columns to add: the input's columns of such names are renamed ..."""
    answers: Collection[str] = ()
    """... and of these too, all that an earlier answer may have, where the input holds one."""

    def taken(self, names: Collection[str]) -> Collection[str]:
        """What to rename of an input with columns of these names."""
        is_answer = {"label", "probability"} <= {*names}
        return {*self.added, *(self.answers if is_answer else ())}


def detect_format(path: Path, asked: Format) -> str:
    """csv, tsv, jsonl, parquet or fasttext.

    Raises:
      UserError: the file is missing, a folder, or of a kind that no reader takes.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give one file")
    return guess_format(path, read_head(path), asked)


def read_rows(
    flags: InputFlags, trained_text: str | None, kind: str, added: Collection[str],
    answers: Collection[str],
) -> Iterator[Rows]:  # fmt: skip
    """The rows of INPUT, or of stdin, in the form that a table of format `kind` needs.

    Args:
      trained_text: column of the texts in training.
      added: names of the columns to add.
      answers: names that those of an earlier answer may have.
    """
    if flags.input is None:
        return read_stdin(flags.batch_size)
    source = Path(flags.input)
    options = RowOptions(
        format=flags.format, delimiter=flags.delimiter, text=flags.text,
        trained_text=trained_text, added=added, answers=answers,
    )  # fmt: skip
    found = detect_format(source, flags.format)
    is_objects, counts = kind == found == "jsonl", ReadCounts()
    rows = read_objects(source, options) if is_objects else read_columns(source, options, counts)
    is_guess = flags.format == "auto" and format_by_name(source) is None
    may_be_lines = is_guess and found == "csv" and flags.text is None
    return _explained(rows, counts, source if may_be_lines else None)


def _explained(rows: Iterator[Rows], counts: ReadCounts, lines: Path | None) -> Iterator[Rows]:
    """The rows, and a warning of what was lost; of errors, without flags of other commands, and
    with what to do with plain lines.

    Args:
      lines: a file that may hold such.
    """
    try:
        yield from rows
        tell_open_quotes(counts)
    except UserError as error:
        said = str(error)
        for mend in SKIP_MENDS.values():
            said = said.removesuffix(mend)
        if lines is not None:
            said += (
                "; INPUT may be CSV, TSV, JSONL, Parquet or fastText; if each line of this file is "
                f"a text, give it on stdin: < {lines}"
            )
        raise UserError(said) from error


def tell_open_quotes(counts: ReadCounts) -> None:
    """A warning, if there is reason for one."""
    if counts.open_quotes:
        print(f"warning: {warn_of_open_quotes(counts.open_quotes)}", file=sys.stderr)


def read_columns(path: Path, options: RowOptions, counts: ReadCounts) -> Iterator[Rows]:
    """The rows of a file as columns; at least one piece, if an empty one.

    Raises:
      UserError: the file is damaged, or its text column is not plain.
    """
    names, batches = read_table_batches(path, options.format, options.delimiter, counts=counts)
    text = _find_text(names, options, path)
    written = free_names(names, options.taken(names))
    _tell_renamed(path, _renamed(names, written))
    num_pieces = 0
    for num_pieces, batch in enumerate(batches, 1):  # noqa: B007
        texts = decode_texts(column_as_text(batch, text, {}, path))[0]
        yield Rows(texts, columns=pa.RecordBatch.from_arrays(batch.columns, written))
    if not num_pieces:
        nothing = pa.array([], pa.string())
        columns = pa.RecordBatch.from_arrays([nothing] * len(written), written)
        yield Rows(nothing, columns=columns)


def read_objects(path: Path, options: RowOptions) -> Iterator[Rows]:
    """The rows of a JSONL file as the objects they are: numbers, lists and order are kept.

    Raises:
      UserError: a line is no JSON object, or the text column is not plain.
    """
    names = open_jsonl(path, read_head(path), False, ReadCounts()).names
    text = _find_text(names, options, path)
    taken = options.taken(names)
    told: set[tuple[str, str]] = set()

    def parse(line: bytes) -> dict[str, str | None]:
        row = read_json_object(line, flat=[text])
        shown = line.decode("utf-8", "replace").strip()
        if any(name in taken for name in row):
            row_again = json.loads(shown)
            keys = free_names(list(row_again), taken, names)
            new = [pair for pair in _renamed(list(row_again), keys) if pair not in told]
            _tell_renamed(path, new)
            told.update(new)
            pairs = zip(keys, row_again.values(), strict=True)
            members = ", ".join(f"{to_json(key)}: {to_json(value)}" for key, value in pairs)
        else:
            members = shown[1:-1]
        return {"text": row.get(text), "object": open_object(members)}

    for rows, _ in parse_lines(path, parse, False, ReadCounts()):
        texts, objects = (
            decode_texts(binary_array([row[key] for row in rows]))[0] for key in ("text", "object")
        )
        yield Rows(texts, objects=objects)


def read_stdin(most: int) -> Iterator[Rows]:
    """Each line of stdin as a row with the column text, as soon as no more lines are waiting.

    Args:
      most: rows of a piece.

    Raises:
      UserError: a line is longer than MAX_ROW_BYTES.
    """
    lines: list[bytes] = []
    rest, start = b"", BOM
    while block := os.read(_STDIN, _BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        lines += whole
        if len(rest) > MAX_ROW_BYTES:
            raise UserError(f"stdin: a line is longer than {MAX_ROW_BYTES >> 20} MiB")
        if len(lines) >= most or (lines and not select.select([_STDIN], [], [], 0)[0]):
            yield _from_lines(lines, start)
            lines, start = [], b""
    if rest:
        lines.append(rest)
    if lines:
        yield _from_lines(lines, start)


def _from_lines(lines: list[bytes], start: bytes) -> Rows:
    lines[0] = lines[0].removeprefix(start)
    texts = decode_texts(pa.array([line.removesuffix(b"\r") for line in lines], pa.binary()))[0]
    return Rows(texts, columns=pa.RecordBatch.from_arrays([texts], ["text"]))


def in_pieces(rows: Iterator[Rows], most: int) -> Iterator[Rows]:
    """The same rows in pieces of at most `most`."""
    for piece in rows:
        for start in range(0, max(1, len(piece.texts)), most):
            yield piece.slice(start, most)


def _find_text(names: Sequence[str], options: RowOptions, path: Path) -> str:
    text = options.text
    if text is None and options.trained_text in names:
        text = options.trained_text
    return find_columns(names, text, None, source=path, need_label=False)[0]


def _renamed(names: Sequence[str], written: Sequence[str]) -> list[tuple[str, str]]:
    return [pair for pair in zip(names, written, strict=True) if pair[0] != pair[1]]


def _tell_renamed(path: Path, pairs: Sequence[tuple[str, str]]) -> None:
    if not pairs:
        return
    shown = ", ".join(f"`{name}` to `{new}`" for name, new in pairs[:_MOST_TOLD])
    more = f", and {len(pairs) - _MOST_TOLD} more likewise" if len(pairs) > _MOST_TOLD else ""
    line = f"{path}: columns renamed, as added ones may have such names: {shown}{more}"
    print(printable(line), file=sys.stderr)
