"""The words that decided: `python -m model.explain RUN [INPUT] [--out OUT]`.

It reads and writes as model.predict does, and adds, after label and probability, the words that
spoke most for the label: word, weight, word_2, weight_2 ... The weight of a word is what the
log-odds of the label, log(p / (1 - p)), lose when the word is taken out of the text: 0.7 halves the
odds, 2.3 leaves a tenth of them. Words without which the label would be likelier are not listed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from model.predict import ANSWER_NAMES, label_lines, label_table
from model.rows import InputFlags, check_files, read_rows
from model.table import Rows
from shortline import UserError, import_tensorflow, parse_flags, printable, run_command

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from model.attribution import Attribution
    from model.opened import Run

_MOST_WORDS = 100


@dataclass(frozen=True, kw_only=True)
class ExplainFlags(InputFlags):
    """What can be set."""

    words: int = 5
    """Words to give of each text, at most."""
    of: str | None = None
    """Label to explain, with its probability (default: of each text the most probable)."""
    batch_size: int = 256
    """Texts that are read and explained together; each costs as much as its words times
    predicting it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.words <= _MOST_WORDS:
            raise ValueError(f"--words {self.words}: must be from 1 to {_MOST_WORDS}")


def main(argv: Sequence[str] | None = None) -> int:
    description = "Tell which words of a text decided its label."
    flags = parse_flags(ExplainFlags, argv, prog="python -m model.explain", description=description)
    kind = check_files(flags)
    import_tensorflow()
    from model.devices import choose_devices
    from model.infer import docs_per_call
    from model.opened import open_to_ask

    run = open_to_ask(Path(flags.run))
    label = None
    if flags.of is not None:
        if flags.of not in run.labels:
            raise UserError(f"--of {flags.of}: the run has no such label; {run.paths.labels} lists "
                            "those that it has")  # fmt: skip
        label = run.labels.index(flags.of)
    devices = choose_devices(flags.gpus)
    if flags.gpus == "all" and not devices.has_gpu:
        print("no GPU found: explaining on the CPU", file=sys.stderr)
    explain = build_explain(run, devices.has_gpu, flags.words, label)
    most = docs_per_call(run, flags.batch_size)
    if kind is None:
        label_lines(explain, most)
        return 0
    out = None if flags.out is None else Path(flags.out)
    answers = ANSWER_NAMES.union(added_names(_MOST_WORDS))
    rows = read_rows(flags, run.settings.get("text"), kind, added_names(flags.words), answers)
    label_table(explain, rows, out, kind, most)
    if out is not None:
        print(f"explanations are in {printable(str(out))}", file=sys.stderr)
    return 0


def added_names(num_words: int) -> list[str]:
    """Names of the columns to add.

    >>> added_names(2)
    ['label', 'probability', 'word', 'weight', 'word_2', 'weight_2']
    """
    ranks = ["", *(f"_{rank}" for rank in range(2, num_words + 1))]
    words = [name + rank for rank in ranks for name in ("word", "weight")]
    return ["label", "probability", *words]


def build_explain(
    run: Run, has_gpu: bool, num_words: int, label: int | None
) -> Callable[[Rows], tuple[Rows, pa.RecordBatch]]:
    """`explain(rows)`: the rows, and the columns to add to them.

    Args:
      label: the class to explain; None: the most probable one of each text.
    """
    import tensorflow as tf

    from model.attribution import attribute
    from model.infer import build_infer
    from tfdata.spans import find_words

    infer = build_infer(run, has_gpu)
    temperature = run.calibration.temperature
    names = added_names(num_words)

    def explain(rows: Rows) -> tuple[Rows, pa.RecordBatch]:
        no_text = rows.texts.is_null().to_numpy(zero_copy_only=False)
        texts = rows.texts.fill_null("").to_pylist()
        probabilities = tf.nn.softmax(infer(rows.texts.fill_null("")) / temperature).numpy()
        classes = probabilities.argmax(axis=1) if label is None else np.full(len(texts), label)
        own = np.take_along_axis(probabilities, classes[:, np.newaxis], 1)[:, 0]
        found = attribute(
            infer, texts, [find_words(text, run.tokenizer) for text in texts], classes.tolist(),
            num_classes=len(run.labels), temperature=temperature,
        )  # fmt: skip
        columns = [pa.array(run.labels, pa.string()).take(pa.array(classes, mask=no_text))]
        columns.append(pa.array(own, mask=no_text))
        columns += _word_columns(found, num_words)
        return rows, pa.RecordBatch.from_arrays(columns, names)

    return explain


def _word_columns(found: Sequence[Attribution], num_words: int) -> list[pa.Array]:
    """word and weight by turns; null where no more words speak for the class."""
    listed = [[pair for pair in each.strongest(num_words) if pair[1] > 0] for each in found]
    columns = []
    for rank in range(num_words):
        pairs = [pairs[rank] if rank < len(pairs) else (None, None) for pairs in listed]
        columns.append(pa.array([word for word, _ in pairs], pa.string()))
        columns.append(pa.array([weight for _, weight in pairs], pa.float32()))
    return columns


if __name__ == "__main__":
    run_command(main)
