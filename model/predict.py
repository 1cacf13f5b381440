r"""Labels for texts: `python -m model.predict RUN [INPUT] [--out OUT]`.

Without INPUT, each line of stdin is a text, and each line of stdout its label, a tab and the
probability (with --top-k then the next label, a tab ...). In labels, backslash, tab, newline and
carriage return stand as \\, \t, \n and \r, and whatever else could steer a terminal likewise.

With INPUT (CSV, TSV, JSONL, Parquet or fastText; plain, .gz or .zst) a table is written: the rows
and columns of the input in order, and label, probability, label_2, probability_2 ... after them.
A column of the input that has such a name is kept as input_label and so on. A null text has a
null label. Values of CSV and TSV stay as they are written, Parquet keeps its types, JSONL its
objects; from JSONL to another format values become text. A label that a spreadsheet would take for
a formula (=, +, - or @ and no number) stands behind a ' in CSV and TSV, as it is in the others.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import tyro

from model.rows import (
    RowOptions,
    detect_format,
    in_pieces,
    read_columns,
    read_objects,
    read_stdin,
)
from model.table import Rows, open_table, output_format, prediction_names
from shortline import UserError, import_tensorflow, parse_flags, printable, run_command
from tfdata.read import Format

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from model.run import Run

Label = Callable[[Rows], tuple[Rows, pa.RecordBatch]]

_PLAIN_SECONDS = 15.0  # between two lines of progress in a log


@dataclass(frozen=True, kw_only=True)
class PredictFlags:
    """What can be set."""

    run: tyro.conf.Positional[str]
    """Folder of the run."""
    input: tyro.conf.Positional[str | None] = None
    """File of texts: CSV, TSV, JSONL, Parquet or fastText (default: the lines of stdin)."""
    out: str | None = None
    """File to write: .csv, .tsv, .jsonl (these also with .gz or .zst) or .parquet (default:
    stdout, in the input's format, or as CSV for Parquet and fastText)."""
    top_k: int = 1
    """Labels to give for each text, the most probable first."""
    text: str | None = None
    """Column that holds the text (default: as in training where there is one, else guessed)."""
    format: Format = "auto"
    """Format of INPUT; auto goes by the file's name, then by its first bytes."""
    delimiter: str | None = None
    """Field separator of a CSV file (guessed from the header line)."""
    batch_size: int = 4096
    """Texts that are read, sorted by length and predicted together."""
    gpus: str = "all"
    """all (or the CPU where there is none), a number, GPUs like 0,2, or none; only the first of
    them predicts."""

    def __post_init__(self) -> None:
        for flag in ("top_k", "batch_size"):
            value = getattr(self, flag)
            if value < 1:
                raise ValueError(f"--{flag.replace('_', '-')} {value}: must be 1 or more")


def main(argv: Sequence[str] | None = None) -> int:
    description = "Label texts with a trained run."
    flags = parse_flags(PredictFlags, argv, prog="python -m model.predict", description=description)
    kind = _check_files(flags)
    import_tensorflow()
    from model.devices import choose_devices
    from model.infer import docs_per_call
    from model.run import open_run

    run = open_run(Path(flags.run))
    if flags.top_k > len(run.labels):
        raise UserError(f"--top-k {flags.top_k}: the run has {len(run.labels)} classes")
    devices = choose_devices(flags.gpus)
    if flags.gpus == "all" and not devices.has_gpu:
        print("no GPU found: predicting on the CPU", file=sys.stderr)
    label = build_label(run, devices.has_gpu, flags.top_k)
    most = docs_per_call(run, flags.batch_size)
    if kind is None:
        label_lines(label, most)
    else:
        out = None if flags.out is None else Path(flags.out)
        label_table(label, read_rows(flags, run, kind), out, kind, most)
        if out is not None:
            print(f"predictions are in {printable(str(out))}", file=sys.stderr)
    return 0


def _check_files(flags: PredictFlags) -> str | None:
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


def build_label(run: Run, has_gpu: bool, top_k: int) -> Label:
    """`label(rows)`: the rows, and the columns to add to them."""
    import tensorflow as tf

    from model.infer import build_infer

    infer = build_infer(run, has_gpu)
    labels = pa.array(run.labels, pa.string())
    names = prediction_names(top_k)

    def label(rows: Rows) -> tuple[Rows, pa.RecordBatch]:
        probabilities, ids = tf.math.top_k(tf.nn.softmax(infer(rows.texts.fill_null(""))), top_k)
        no_text = rows.texts.is_null().to_numpy(zero_copy_only=False)
        columns = []
        for rank in range(top_k):
            columns.append(labels.take(pa.array(ids.numpy()[:, rank], mask=no_text)))
            columns.append(pa.array(probabilities.numpy()[:, rank], mask=no_text))
        return rows, pa.RecordBatch.from_arrays(columns, names)

    return label


def read_rows(flags: PredictFlags, run: Run, kind: str) -> Iterator[Rows]:
    """The rows of INPUT, or of stdin, in the form that a table of format `kind` needs."""
    if flags.input is None:
        return read_stdin(flags.batch_size)
    source = Path(flags.input)
    options = RowOptions(
        format=flags.format, delimiter=flags.delimiter, text=flags.text,
        trained_text=run.settings.get("text"), taken=prediction_names(flags.top_k),
    )  # fmt: skip
    is_objects = kind == detect_format(source, flags.format) == "jsonl"
    return read_objects(source, options) if is_objects else read_columns(source, options)


def label_table(label: Label, rows: Iterator[Rows], out: Path | None, kind: str, most: int) -> None:
    """Writes the rows with their predictions, `most` of them at a time."""
    from model.infer import map_ahead

    num_rows = 0
    with open_table(out, kind) as table, _show_rate() as update:
        for piece, predictions in map_ahead(label, in_pieces(rows, most)):
            table.write(piece, predictions)
            num_rows += len(predictions)
            update(num_rows)


def label_lines(label: Label, most: int) -> None:
    """From stdin to stdout; what is waiting is answered at once, so that pipes work."""
    if sys.stdin.isatty():
        print("type texts, one a line; Ctrl-D ends", file=sys.stderr)
    for piece in in_pieces(read_stdin(most), most):
        _, predictions = label(piece)
        columns = [
            pc.cast(column, pa.string()) if pa.types.is_floating(column.type) else _escape(column)
            for column in predictions.columns
        ]
        lines = pc.binary_join_element_wise(*columns, "\t").to_pylist()
        sys.stdout.buffer.write("".join(f"{line}\n" for line in lines).encode())
        sys.stdout.buffer.flush()


def _escape(labels: pa.Array) -> pa.Array:
    encoded = labels.dictionary_encode()
    escaped = [printable(label.replace("\\", r"\\")) for label in encoded.dictionary.to_pylist()]
    return pa.array(escaped, pa.string()).take(encoded.indices)


@contextlib.contextmanager
def _show_rate() -> Iterator[Callable[[int], None]]:
    """Gives `update(num_rows)`: rows and rows a second on stderr, on a terminal redrawn."""
    from rich.console import Console

    started = told = time.monotonic()
    is_terminal = sys.stderr.isatty()
    with (
        Console(stderr=True).status("predicting")
        if is_terminal
        else contextlib.nullcontext() as status
    ):

        def update(num_rows: int) -> None:
            nonlocal told
            now = time.monotonic()
            line = f"predicting: {num_rows:,} rows, {num_rows / (now - started):,.0f}/s"
            if status is not None:
                status.update(line)
            elif now - told >= _PLAIN_SECONDS:
                told = now
                print(line, file=sys.stderr, flush=True)

        yield update


if __name__ == "__main__":
    run_command(main)
