"""Step time, input pipeline and both together: `python -m bench.step_time`.

Prints the hardware's ceiling, then a row for each thing measured, then which of the two limits,
and ends with one line of JSON that holds everything. The rows are

  step ROUTE        training steps on one made-up batch in memory, full-length texts
  input encode      shards of strings to token ids; its "batch" is the training part, once over
  input host        plan and gather from ids in memory;   input stream: encoded anew every epoch
  mix ROUTE         training steps on batches of the corpus that are kept in memory
  end-to-end ROUTE  training steps fed by the input pipeline (host)

n is timed chunks x steps of each; a sample is the mean over a chunk, which ends with one fetch
from the device. Legend: B documents, T tokens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.table import format_line, format_row, header, show_rows
from bench.timing import describe_machine, time_in_turns
from model.flags import PRESETS, read_flags
from shortline import UserError, parse_flags, run_command, write_whole

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from bench.ceiling import Ceiling
    from bench.feed import Corpus
    from bench.steps import Network
    from bench.timing import Timing

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class StepTimeFlags:
    """The flags of `python -m bench.step_time`."""

    preset: str = "default"
    """Network and training to time, as of train.py."""
    batch_sizes: tuple[int, ...] = (128, 512, 1024)
    """Documents in a batch, over all replicas."""
    lengths: tuple[int, ...] = (10, 40)
    """Tokens of every text of the made-up batches."""
    routes: tuple[Literal["block", "keras", "cudnn"], ...] = ()
    """LSTM kernels (default: all that run on this machine)."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Of the embedding's outputs and the LSTM."""
    gpus: str = "all"
    """all (or the CPU where there is none), a number, GPUs like 0,2, or none."""
    seconds: float = 1.5
    """Timed for each row, about; warm-up comes on top."""
    docs: int = 20_000
    """Documents of the generated corpus."""
    out: Path | None = None
    """Folder of the record to write, as bench/records/2026-01-31_what."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"--preset {self.preset}: must be one of {', '.join(PRESETS)}")
        for flag in ("batch_sizes", "lengths"):
            values = getattr(self, flag)
            if not values or min(values) < 1:
                shown = " ".join(map(str, values))
                raise ValueError(f"--{flag.replace('_', '-')} {shown}: must be 1 or more each")
        if self.seconds <= 0:
            raise ValueError(f"--seconds {self.seconds}: must be above 0")
        least = max(1_000, 2 * max(self.batch_sizes))
        if self.docs < least:
            raise ValueError(
                f"--docs {self.docs}: must be {least} or more with these --batch-sizes"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        StepTimeFlags, argv, prog="python -m bench.step_time",
        description="Time training steps, the input pipeline, and both together.",
    )  # fmt: skip
    if flags.out is not None and (flags.out / "step_time.json").exists():
        raise UserError(f"--out {flags.out}: holds a record; choose another folder")
    from bench.steps import find_routes
    from model.devices import choose_devices

    devices = choose_devices(flags.gpus)
    routes = find_routes(flags.routes, devices.has_gpu, flags.precision)
    num_replicas = devices.strategy.num_replicas_in_sync
    for batch_size in flags.batch_sizes:
        if batch_size % num_replicas:
            raise UserError(f"--batch-sizes {batch_size}: must be a multiple of {num_replicas}")
    with devices.strategy.scope():
        result, lines = run_all(flags, routes, devices.description, devices.has_gpu)
    if flags.out is not None:
        write_record(flags.out, result, lines)
    print(json.dumps(result))


def run_all(
    flags: StepTimeFlags, routes: Sequence[str], device: str, has_gpu: bool
) -> tuple[dict[str, Any], list[str]]:
    """Measures everything; returns the result for JSON, and what was printed for people."""
    from bench.ceiling import measure_ceiling
    from bench.feed import open_corpus

    machine = describe_machine(device)
    corpus = open_corpus(read_flags(["--preset", flags.preset]), flags.docs)
    dtype = flags.precision.removeprefix("mixed_")
    ceiling = measure_ceiling(dtype, has_gpu)
    lines = describe(flags, machine, ceiling)
    print("\n".join(lines), flush=True)
    networks = build_networks(flags, corpus, routes)
    rows: list[Row] = []
    with show_rows() as add:
        measured = time_steps(flags, networks), time_input(flags, corpus, networks)
        for row in (row for some in measured for row in some):
            if "gflop_per_s" in row:
                row["peak_fraction"] = row["gflop_per_s"] / ceiling.matmul_gflop_per_s
            rows.append(row)
            add(row)
    limits = [find_limit(rows, batch_size) for batch_size in flags.batch_sizes]
    print("\n".join(limit["sentence"] for limit in limits))
    lines += [header(), *(format_line(format_row(row)) for row in rows)]
    lines += [limit["sentence"] for limit in limits]
    result = {
        "benchmark": "step_time", "preset": flags.preset, "precision": flags.precision,
        "routes": list(routes), "seconds": flags.seconds, "docs": flags.docs, "machine": machine,
        "ceiling": dataclasses.asdict(ceiling), "rows": rows, "limits": limits,
    }  # fmt: skip
    return result, lines


def describe(flags: StepTimeFlags, machine: dict[str, Any], ceiling: Ceiling) -> list[str]:
    """The hardware's ceiling first, then what else the figures depend on."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"ceiling: {ceiling.matmul_gflop_per_s:,.0f} GFLOP/s ({ceiling.dtype} matrix product), "
        f"{ceiling.copy_gb_per_s:,.1f} GB/s (read and written)",
        f"{machine['device']}, {machine['architecture']}, {machine['num_cores']} cores, load "
        f"{machine['load_average']}; commit {machine['commit']}; {machine['date']}",
        f"{versions}; preset {flags.preset}, {flags.precision}",
    ]


def build_networks(
    flags: StepTimeFlags, corpus: Corpus, routes: Sequence[str]
) -> dict[str, Network]:
    from bench.steps import build_network

    return {
        route: build_network(
            corpus.flags, route, flags.precision, vocab_size=len(corpus.vocabulary),
            num_classes=len(corpus.shard_set.labels), unknown_id=corpus.vocabulary.unknown_id,
        )
        for route in routes
    }  # fmt: skip


def time_steps(flags: StepTimeFlags, networks: dict[str, Network]) -> Iterator[Row]:
    """Rows of training steps on a resident batch: the routes by turns, at each B and T."""
    import tensorflow as tf

    from bench.steps import build_run, make_batch, repeat_batches

    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    for batch_size in flags.batch_sizes:
        for length in flags.lengths:
            classifier = next(iter(networks.values())).classifier
            shape = batch_size // num_replicas, length
            batch = make_batch(*shape, classifier.vocab_size, classifier.num_classes)
            runs = [build_run(network, repeat_batches([batch])) for network in networks.values()]
            timings = time_in_turns(runs, flags.seconds)
            for network, timing in zip(networks.values(), timings, strict=True):
                yield step_row("step", network, timing, batch_size, length)


def time_input(
    flags: StepTimeFlags, corpus: Corpus, networks: dict[str, Network]
) -> Iterator[Row]:
    """Rows of the input pipeline alone, then for each B of training on it, by the first route."""
    from bench.feed import Feed, build_source, time_encode

    num_docs = corpus.shard_set.num_docs("train")
    timing = time_encode(corpus, flags.seconds)
    rates = {"batch_size": num_docs, "docs_per_s": 1000 * num_docs / timing.median_ms}
    yield {"kind": "input", "of": "encode", **rates, **timing.summary()}
    sources = {residency: build_source(corpus, residency) for residency in ("host", "stream")}
    network = next(iter(networks.values()))
    for batch_size in flags.batch_sizes:
        for residency, source in sources.items():
            with contextlib.closing(Feed(corpus, source, batch_size)) as feed:
                row = time_feed(feed, residency, batch_size, flags.seconds)
                yield row
                if residency == "host":
                    yield from time_fed(feed, network, row, flags.seconds)


def time_feed(feed: Any, residency: str, batch_size: int, seconds: float) -> Row:
    """The row of a feed that nothing consumes; its steps are batches, its chunks whole epochs."""
    infos = feed.draw_epochs(1)
    num_batches = sum(info.num_batches for info in infos)
    num_docs = sum(info.num_docs for info in infos)
    padded = sum(info.num_padded for info in infos)
    [epochs] = time_in_turns([feed.draw_epochs], seconds)
    timing = epochs.divided(num_batches)
    return {
        "kind": "input", "of": residency, "batch_size": batch_size,
        "length": padded / num_batches / batch_size, **timing.summary(),
        "docs_per_s": 1000 * num_docs / num_batches / timing.median_ms,
        "tokens_per_s": 1000 * padded / num_batches / timing.median_ms,
        "padding_fraction": 1 - sum(info.num_tokens for info in infos) / padded,
    }  # fmt: skip
