r"""Labels for texts: `python -m model.predict RUN [INPUT] [--out OUT]`.

Without INPUT, each line of stdin is a text, and each line of stdout its label, a tab and the
probability (with --top-k then the next label, a tab ...). In labels, backslash, tab, newline and
carriage return stand as \\, \t, \n and \r, and whatever else could steer a terminal likewise.

With INPUT (CSV, TSV, JSONL, Parquet or fastText; plain, .gz or .zst) a table is written: the rows
and columns of the input in order, and label, probability, label_2, probability_2 ... after them.
A column of the input that has the name of an added one is kept as input_label and so on, or
input_2_label and so on where that is there; of an input that has `label` and `probability`, and so
was predicted before, all those that an answer may have. A null text has a null label.
Values of CSV and TSV stay as they are written, Parquet keeps its types, JSONL its objects; from
JSONL to another format values become text. A label that a spreadsheet would take for a formula (=,
+, - or @ and no number) stands behind a ' in CSV and TSV, as it is in the others.

Probabilities are scaled as the validation part asks for (the run's calibration.json). With
--abstain THRESHOLD, a row whose first label is less probable than that has no label: empty in CSV
and in lines, null in JSONL and Parquet, the further ones of --top-k likewise; its probabilities
stay. With --scope, the last column is `scope`, the share of validation documents that looked no
more familiar to the network.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.confidence import check_threshold
from model.rows import InputFlags, check_files, in_pieces, read_rows, read_stdin
from model.table import Rows, open_table, prediction_names
from shortline import UserError, import_tensorflow, parse_flags, printable, run_command

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from model.opened import Run

Label = Callable[[Rows], tuple[Rows, pa.RecordBatch]]

_MOST_RANKS = 1000  # of --top-k, that the input may be left with
_PLAIN_SECONDS = 15.0  # between two lines of progress in a log


@dataclass(frozen=True, kw_only=True)
class PredictFlags(InputFlags):
    """What can be set."""

    top_k: int = 1
    """Labels to give for each text, the most probable first."""
    abstain: float | None = None
    """Give no label where the first one's probability is below this; the run's report and
    model.evaluate tell what is right above it."""
    scope: bool = False
    """Add a column with the share of validation documents that looked no more familiar: where it
    is next to 0, the text may be of no class at all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 1:
            raise ValueError(f"--top-k {self.top_k}: must be 1 or more")
        check_threshold(self.abstain)


def main(argv: Sequence[str] | None = None) -> int:
    description = "Label texts with a trained run."
    flags = parse_flags(PredictFlags, argv, prog="python -m model.predict", description=description)
    kind = check_files(flags)
    import_tensorflow()
    from model.devices import choose_devices
    from model.infer import docs_per_call
    from model.opened import open_to_ask

    run = open_to_ask(Path(flags.run))
    if flags.top_k > len(run.labels):
        raise UserError(f"--top-k {flags.top_k}: the run has {len(run.labels)} classes")
    if flags.scope and not run.calibration.energies:
        raise UserError(
            f"--scope: {printable(flags.run)} has nothing to compare with, as it was trained "
            "without a validation part, or a very small one; leave the flag out"
        )
    devices = choose_devices(flags.gpus)
    if flags.gpus == "all" and not devices.has_gpu:
        print("no GPU found: predicting on the CPU", file=sys.stderr)
    label = build_label(run, devices.has_gpu, flags.top_k, flags.abstain, flags.scope)
    most = docs_per_call(run, flags.batch_size)
    if kind is None:
        label_lines(label, most)
        return 0
    out = None if flags.out is None else Path(flags.out)
    added = added_names(flags.top_k, flags.scope)
    rows = read_rows(flags, run.settings.get("text"), kind, added, ANSWER_NAMES.union(added))
    num_rows, num_withheld = label_table(label, rows, out, kind, most)
    if out is not None:
        print(f"predictions are in {printable(str(out))}", file=sys.stderr)
    if flags.abstain is not None:
        print(f"no label for {num_withheld:,} of {num_rows:,} rows (--abstain)", file=sys.stderr)
    return 0


def build_label(
    run: Run, has_gpu: bool, top_k: int, abstain: float | None = None, scope: bool = False
) -> Label:
    """`label(rows)`: the rows, and the columns to add to them."""
    import tensorflow as tf

    from model.infer import build_infer
    from model.scope import energy

    infer = build_infer(run, has_gpu)
    labels = pa.array(run.labels, pa.string())
    names = added_names(top_k, scope)
    temperature = run.calibration.temperature

    def label(rows: Rows) -> tuple[Rows, pa.RecordBatch]:
        logits = infer(rows.texts.fill_null(""))
        top, ids = (part.numpy() for part in tf.math.top_k(logits / temperature, top_k))
        sums = tf.reduce_logsumexp(logits / temperature, axis=1, keepdims=True)
        probabilities = np.exp(top - sums.numpy())
        no_text = rows.texts.is_null().to_numpy(zero_copy_only=False)
        withheld = no_text
        if abstain is not None:
            withheld = no_text | (probabilities[:, 0] < abstain)
        columns = []
        for rank in range(top_k):
            columns.append(labels.take(pa.array(ids[:, rank], mask=withheld)))
            columns.append(pa.array(probabilities[:, rank], mask=no_text))
        if scope:
            shares = run.calibration.scope(energy(logits, temperature).numpy())
            columns.append(pa.array(shares, mask=no_text))
        return rows, pa.RecordBatch.from_arrays(columns, names)

    return label


ANSWER_NAMES = frozenset([*prediction_names(_MOST_RANKS), "scope"])
"""Of this and of any earlier time: columns of a table that was itself predicted may be of that."""


def added_names(top_k: int, scope: bool) -> list[str]:
    """Names of the columns to add."""
    return [*prediction_names(top_k), *(["scope"] if scope else [])]


def label_table(
    label: Label, rows: Iterator[Rows], out: Path | None, kind: str, most: int
) -> tuple[int, int]:
    """Writes the rows with their predictions, `most` of them at a time.

    Returns:
      how many rows there were, and how many of them have a text but no label.
    """
    from model.infer import map_ahead

    num_rows, num_withheld = 0, 0
    with open_table(out, kind) as table, _show_rate() as update:
        for piece, predictions in map_ahead(label, in_pieces(rows, most)):
            table.write(piece, predictions)
            num_rows += len(predictions)
            num_withheld += predictions.column("label").null_count - piece.texts.null_count
            update(num_rows)
    return num_rows, num_withheld


def label_lines(label: Label, most: int) -> None:
    """From stdin to stdout; what is waiting is answered at once, so that pipes work."""
    if sys.stdin.isatty():
        print("type texts, one a line; Ctrl-D ends", file=sys.stderr)
    for piece in in_pieces(read_stdin(most), most):
        _, predictions = label(piece)
        columns = [
            (_escape(column) if pa.types.is_string(column.type) else column.cast(pa.string()))
            for column in predictions.columns
        ]
        columns = [column.fill_null("") for column in columns]
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
        Console(stderr=True).status("answering")
        if is_terminal
        else contextlib.nullcontext() as status
    ):

        def update(num_rows: int) -> None:
            nonlocal told
            now = time.monotonic()
            line = f"answering: {num_rows:,} rows, {num_rows / (now - started):,.0f}/s"
            if status is not None:
                status.update(line)
            elif now - told >= _PLAIN_SECONDS:
                told = now
                print(line, file=sys.stderr, flush=True)

        yield update


if __name__ == "__main__":
    run_command(main)
