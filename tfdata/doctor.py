"""What is wrong with the data, and what to do about it: `python -m tfdata.doctor DATA...`.

Reads the files as `tfdata.ingest` does, with the same flags, splits them as it would, and prints
findings, what matters most first. `checkup` holds the checks.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from shortline import (
    UserError,
    import_tensorflow,
    parse_flags,
    run_command,
    write_whole,
)
from tfdata.config import IngestConfig, TokenizerConfig

_SAMPLE = 40_000


@dataclass(frozen=True, kw_only=True)
class DoctorFlags:
    """The flags of `python -m tfdata.doctor`."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Files or folders of CSV, TSV, JSONL, Parquet or fastText, plain, .gz or .zst."""
    config: Path | None = None
    """YAML file of flags; flags on the command line win."""
    sample: int = _SAMPLE
    """Most documents that the light classifier looks at (order, label errors)."""
    suspects: Path | None = None
    """CSV file to write: the likely label errors, the surest first, by file and row (a CSV file's
    header is row 1; of JSONL and fastText the line)."""
    json: bool = False
    """Nothing but one line of JSON."""
    ingest: IngestConfig = field(default_factory=IngestConfig)
    tokens: TokenizerConfig = field(default_factory=TokenizerConfig)

    def __post_init__(self) -> None:
        if self.sample < 1_000:
            raise ValueError(f"--sample {self.sample}: must be 1000 or more")
        if self.suspects is not None and self.suspects.exists():
            raise ValueError(f"--suspects {self.suspects}: exists already; choose another name")


def examine(flags: DoctorFlags) -> dict[str, Any]:
    """All checks; what the line of JSON holds, with `findings` as `Finding`s.

    Raises:
      UserError: an input cannot be read.
    """
    from tfdata.checkup import classes, columns, duplicates, encoding, near, order, suspects
    from tfdata.checkup.corpus import read_corpus
    from tfdata.checkup.finding import sort_findings

    started = time.monotonic()
    tokens = flags.tokens
    corpus, counts = read_corpus(flags.inputs, flags.ingest, tokens.filters, tokens.unspaced)
    max_len = flags.tokens.max_len or classes.usual_max_len(corpus)
    cost = order.measure_cost(corpus, flags.sample) if order.may_measure(corpus) else None
    found = columns.check_open_quotes(counts.open_quotes, counts.rows_read)
    found += order.check_order(corpus, cost)
    found += duplicates.check_leaks(corpus)
    found += duplicates.check_contradictions(corpus)
    found += columns.check_label_in_text(corpus)
    suspected = suspects.find_suspects(corpus, flags.sample)
    if suspected is not None:
        found += suspects.check_labels(corpus, suspected)
        if flags.suspects is not None:
            _write_suspects(flags.suspects, corpus, suspected)
    found += near.check_near(corpus, near.find_near(corpus), flags.ingest)
    found += duplicates.check_duplicates(corpus, flags.ingest)
    found += classes.check_small_classes(corpus)
    found += classes.check_vocabulary(corpus, flags.tokens.vocab_size)
    found += classes.check_lengths(corpus, max_len)
    found += encoding.check_encoding(corpus, counts)
    found += columns.check_columns(flags.inputs, flags.ingest)
    return {
        "num_docs": len(corpus),
        "num_dropped": counts.dropped_null_text + counts.dropped_null_label,
        "num_skipped": counts.bad_rows,
        "num_classes": len(corpus.labels),
        "lengths": classes.describe_lengths(corpus, max_len),
        "accuracy": suspected.accuracy if suspected is not None else None,
        "findings": sort_findings(found),
        "seconds": round(time.monotonic() - started, 3),
    }


def _write_suspects(path: Path, corpus: Any, suspected: Any) -> None:
    """File, row, label, likelier label, margin and text of each likely label error."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    names = pa.array(corpus.labels)
    table = pa.table(
        {
            "file": corpus.files.take(suspected.rows).cast(pa.string()),
            "row": corpus.rows[suspected.rows],
            "label": names.take(pa.array(corpus.codes[suspected.rows])),
            "likelier": names.take(pa.array(suspected.codes)),
            "margin": suspected.margins,
            "text": corpus.texts.take(suspected.rows),
        }
    )
    with write_whole(path, "wb") as file:
        pa_csv.write_csv(table, file)


def describe(result: dict[str, Any]) -> str:
    """The result in words, for a terminal."""
    from tfdata.checkup.finding import render

    lengths, findings = result["lengths"], result["findings"]
    head = f"{result['num_docs']:,} documents in {result['num_classes']:,} classes"
    said = {
        "num_dropped": "rows without text or label dropped",
        "num_skipped": "rows that do not parse skipped",
    }
    left_out = [f"{result[name]:,} {what}" for name, what in said.items() if result[name]]
    if left_out:
        head += f" ({', '.join(left_out)})"
    words = (
        f"words of a text: median {lengths['words_median']:.0f}, 95 % have at most "
        f"{lengths['words_p95']:.0f}, longest {lengths['words_max']:.0f}; "
        f"--max-len {lengths['max_len']} cuts {lengths['cut_documents']:.1%} of the texts"
    )
    told = render(findings) if findings else "nothing found"
    return "\n".join([head, words, told])


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; ends stdout with one line of JSON, but on a terminal."""
    flags = parse_flags(
        DoctorFlags, argv, prog="python -m tfdata.doctor",
        description="Say what is wrong with labelled texts, what it costs, and what mends it.",
        check=lambda flags: flags.ingest.check_split(),
    )  # fmt: skip
    if not flags.inputs:
        raise UserError("no DATA: name the files or folders to look at")
    for package in ("scipy", "rapidfuzz"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package} is not installed: pip install -e '.[doctor]'")
    import_tensorflow()
    result = examine(flags)
    if not flags.json:
        print(describe(result))
    if flags.json or not sys.stdout.isatty():
        print(json.dumps(result | {"findings": [f.to_json() for f in result["findings"]]}))


if __name__ == "__main__":
    run_command(main)
