"""Strings in Parquet to padded batches, ours and others': `python -m bench.input_pipeline`.

Every pipeline makes padded int32 batches with their labels of the training part of one shard set,
over whole epochs, and nothing is made of the batches. All tokenise to the same ids: before
anything is timed, one epoch of each is checked to hold every document exactly once, with its label
and its token ids. Then they are timed by turns, in the order A B C, C B A. What a pipeline's clock
includes is printed below the table. The columns are

  docs/s, p10, p90  documents a second of the median epoch, and of the slow and the fast ones
  n                 timed chunks x epochs of each
  x strings         how many times as fast as ours from strings
  % pad             of the token places, those that only pad

The peers do not shuffle, and two do not sort into length buckets: both favour them. Ours shuffles
globally, which a shuffle buffer smaller than the corpus does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.checks import check_least, check_preset
from bench.input_chart import draw_rates
from bench.record import check_out, end_benchmark
from bench.table import format_line, header, show_line
from bench.timing import Timing, describe_machine, time_in_turns
from model.flags import read_flags
from shortline import import_tensorflow, parse_flags, run_command

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from bench.feed import Corpus
    from bench.input_arms import Arm

Row = dict[str, Any]
_COLUMNS = {
    "pipeline": 24, "docs/s": 11, "p10": 11, "p90": 11, "n": 7, "x strings": 10, "% pad": 6,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class InputFlags:
    """The flags of `python -m bench.input_pipeline`."""

    docs: int = 40_000
    """Documents of the generated corpus; nine tenths of them are the training part."""
    batch_size: int = 128
    """Documents in a batch."""
    preset: str = "default"
    """Longest text and size of the vocabulary, as of train.py. Unknown words are kept and the ends
    of texts are cut whatever the preset, as not every peer can do otherwise."""
    seconds: float = 4.0
    """Timed for each pipeline, about; each turn begins with as many that are not timed."""
    turns: int = 2
    """How often each comes to be timed."""
    out: Path | None = None
    """Folder of the record to write, as bench/records/2026-01-31_what."""

    def __post_init__(self) -> None:
        check_preset(self.preset)
        check_least(self, docs=1_000, batch_size=1, turns=1)
        if self.batch_size > self.docs // 2:
            raise ValueError(
                f"--batch-size {self.batch_size}: must be at most half of the {self.docs} documents"
            )
        if self.seconds <= 0:
            raise ValueError(f"--seconds {self.seconds}: must be above 0")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        InputFlags, argv, prog="python -m bench.input_pipeline",
        description="Time the input pipeline and others' from strings to padded batches.",
    )  # fmt: skip
    check_out(flags.out, "input_pipeline")
    import_tensorflow()
    from bench.feed import open_corpus

    settings = ["--preset", flags.preset, "--unknown", "map", "--truncate", "right"]
    settings += ["--stems", "0"]  # which the others do not have
    corpus = open_corpus(read_flags(settings), flags.docs)
    result, lines = run_all(flags, corpus)
    title = f"Input pipelines, {result['num_train']:,} documents, batches of {flags.batch_size}"
    draw = partial(draw_rates, rows=result["rows"], title=title)
    end_benchmark(flags.out, result, lines, draw)


def run_all(flags: InputFlags, corpus: Corpus) -> tuple[dict[str, Any], list[str]]:
    """Checks and times every pipeline; returns the result for JSON, and the lines for people."""
    from bench.input_arms import build_arms

    machine = describe_machine("CPU")
    lines = describe(flags, corpus, machine)
    print("\n".join(lines), flush=True)
    arms, missing = build_arms(corpus, flags.batch_size)
    with contextlib.ExitStack() as stack:
        for arm in arms:
            stack.callback(arm.close)
        rows = check_arms(arms, corpus)
        time_arms(arms, rows, corpus.shard_set.num_docs("train"), flags)
    rows += [
        {"arm": name, "is_ours": name.startswith("ours"), "why": why}
        for name, why in missing.items()
    ]
    table = [header(_COLUMNS), *map(format_row, rows)]
    for number, line in enumerate(table):
        show_line(line, style="none" if number else "bold")
    notes = [f"{row['arm']}: {row['clock']}" for row in rows if "clock" in row]
    ratios = find_ratios(rows)
    notes += [describe_ratio(*names, ratio) for names, ratio in ratios.items()]
    print("\n".join(notes), flush=True)
    result = {
        "benchmark": "input_pipeline", "preset": flags.preset, "docs": flags.docs,
        "num_train": corpus.shard_set.num_docs("train"), "batch_size": flags.batch_size,
        "max_len": corpus.encoder.max_len, "seconds": flags.seconds, "turns": flags.turns,
        "machine": machine, "rows": rows,
        "ratios": [{"fast": a, "slow": b, "ratio": ratio} for (a, b), ratio in ratios.items()],
    }  # fmt: skip
    return result, [*lines, *table, *notes]


def describe(flags: InputFlags, corpus: Corpus, machine: Mapping[str, Any]) -> list[str]:
    """What the figures depend on."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"{corpus.shard_set.num_docs('train'):,} documents of at most {corpus.encoder.max_len} "
        f"tokens, {len(corpus.vocabulary):,} token ids, batches of {flags.batch_size:,}",
        f"{machine['architecture']}, {machine['num_cores']} cores, load {machine['load_average']}; "
        f"commit {machine['commit']}; {machine['date']}; {versions}",
    ]


def check_arms(arms: Sequence[Arm], corpus: Corpus) -> list[Row]:
    """One epoch of each, looked at; a row for each, without its times.

    Raises:
      AssertionError: one of them loses, repeats or changes a document.
    """
    from bench.census import check_census, take_census
    from bench.peers.plain_tokenizer import encode_plainly

    max_len = corpus.encoder.max_len
    wanted = take_census(encode_plainly(corpus), max_len)
    rows = []
    for arm in arms:
        census = take_census(arm.read(), max_len)
        check_census(arm.name, census, wanted.digests)
        padding = 1 - census.num_tokens / census.num_padded
        rows.append({
            "arm": arm.name, "is_ours": arm.is_ours,
            "clock": arm.clock, "num_batches": census.num_batches, "padding_fraction": padding,
        })  # fmt: skip
    return rows


def time_arms(
    arms: Sequence[Arm], rows: Sequence[Row], num_docs: int, flags: InputFlags
) -> None:  # fmt: skip
    """Times whole epochs of each by turns, and puts the rates into their rows."""

    def draw(arm: Arm, num_epochs: int) -> None:
        drawn = arm.draw(num_epochs)
        if drawn != num_epochs * num_docs:
            raise AssertionError(f"{arm.name}: {drawn:,} documents in {num_epochs} epochs")

    runs = [partial(draw, arm) for arm in arms]
    # ours makes up to three windows in advance, even while others are timed
    timings = time_in_turns(runs, flags.seconds, turns=flags.turns, lead_seconds=flags.seconds)
    for row, timing in zip(rows, timings, strict=True):
        row |= find_rates(timing, num_docs)
    for row in rows:
        row["times_strings"] = row["docs_per_s"] / rows[0]["docs_per_s"]


def find_rates(timing: Timing, num_docs: int) -> Row:
    """Documents a second of epochs; p10 is that of the slow ones.

    >>> find_rates(Timing((10.0, 20.0, 40.0), 1), 1_000)["docs_per_s"]
    50000.0
    """
    summary = timing.summary()
    rates = {
        "docs_per_s": "step_ms",
        "docs_per_s_p10": "step_ms_p90",
        "docs_per_s_p90": "step_ms_p10",
    }
    return {
        **{rate: 1000 * num_docs / summary[ms] for rate, ms in rates.items()},
        "num_chunks": summary["num_chunks"],
        "epochs_per_chunk": summary["steps_per_chunk"],
    }


def find_ratios(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """How many times as fast the first is as the second, of those that were measured."""
    from bench.input_arms import BUCKETED, CACHED, LOADED, STRINGS, VECTORIZED

    rates = {row["arm"]: row["docs_per_s"] for row in rows if "docs_per_s" in row}
    pairs = [(STRINGS, BUCKETED), (STRINGS, VECTORIZED), (STRINGS, LOADED), (CACHED, STRINGS)]
    return {(a, b): rates[a] / rates[b] for a, b in pairs if a in rates and b in rates}


def describe_ratio(fast: str, slow: str, ratio: float) -> str:
    return f"{fast}: {ratio:,.1f} times as fast as {slow}"


def format_row(row: Row) -> str:
    """A line of the table, or why there are no figures."""
    if "why" in row:
        return f"{row['arm']:<{_COLUMNS['pipeline']}} not measured: {row['why']}"
    cells = [
        row["arm"], f"{row['docs_per_s']:,.0f}", f"{row['docs_per_s_p10']:,.0f}",
        f"{row['docs_per_s_p90']:,.0f}", f"{row['num_chunks']}x{row['epochs_per_chunk']}",
        f"{row['times_strings']:.3f}", f"{100 * row['padding_fraction']:.1f}",
    ]  # fmt: skip
    return format_line(cells, _COLUMNS)


if __name__ == "__main__":
    run_command(main)
