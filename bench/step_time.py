"""Step time, input pipeline and both together: `python -m bench.step_time`.

Prints the hardware's ceiling, then a row for each thing measured, then which of the two limits,
and ends with one line of JSON that holds everything. The ceiling is measured again at the end: if
it has moved, others used the machine, and only rows timed by turns compare: the routes of a shape,
and mix with end-to-end. The rows are

  step ROUTE        training steps on one made-up batch in memory, full-length texts
  step VARIANT      the same of the first route, but for one thing (bench.steps.VARIANTS)
  input encode      shards of strings to token ids; its "batch" is the training part, once over
  input RESIDENCY   stream: encoded anew every epoch; host, device: planned and gathered from ids
                    in that memory
  mix, end-to-end   training steps of the first route on batches of the corpus that are kept in
                    memory, and on batches as the pipeline of that RESIDENCY makes them

ms and all rates are medians of the timed chunks, n is chunks x steps of each; a chunk ends with one
fetch from the device, and of mix and end-to-end it is an epoch. serial is the time of the ops that
must wait for each other (bench.ceiling). Legend: B documents, T tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.checks import check_preset
from bench.record import check_out, end_benchmark
from bench.step_chart import draw_steps
from bench.table import format_line, format_row, header, show_header, show_row
from bench.timing import describe_machine
from model.flags import read_flags
from shortline import UserError, import_tensorflow, parse_flags, run_command

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from bench.ceiling import Ceiling
    from bench.feed import Corpus


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
    variants: tuple[Literal["keras_cudnn", "two_calls", "no_dropout", "dropout_0.2"], ...] = ()
    """Networks that differ from the preset's in one thing (default: on a GPU all that do)."""
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
        check_preset(self.preset)
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
    check_out(flags.out, "step_time")
    import_tensorflow()
    from bench.feed import open_corpus
    from bench.steps import choose_routes, choose_variants
    from model.devices import choose_devices

    devices = choose_devices(flags.gpus)
    routes = choose_routes(flags.routes, devices.has_gpu, flags.precision)
    settings = read_flags(["--preset", flags.preset])
    variants = choose_variants(flags.variants, devices.has_gpu, settings.model)
    num_replicas = devices.strategy.num_replicas_in_sync
    for batch_size in flags.batch_sizes:
        if batch_size % num_replicas:
            raise UserError(f"--batch-sizes {batch_size}: must be a multiple of {num_replicas}")
    with devices.strategy.scope():
        corpus = open_corpus(settings, flags.docs)
        machine = describe_machine(devices.description)
        result, lines = run_all(flags, corpus, routes, variants, machine, devices.has_gpu)
    title = f"{devices.description}, preset {flags.preset}, {flags.precision}"
    draw = partial(draw_steps, rows=result["rows"], title=title)
    end_benchmark(flags.out, result, lines, draw)


def run_all(
    flags: StepTimeFlags, corpus: Corpus, routes: Sequence[str], variants: Sequence[str],
    machine: dict[str, Any], has_gpu: bool,
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """Measures everything; returns the result for JSON, and what was printed for people."""
    from bench.ceiling import measure_ceiling
    from bench.rows import build_networks, find_limit, time_input, time_steps

    dtype = flags.precision.removeprefix("mixed_")
    ceiling = measure_ceiling(dtype, has_gpu)
    lines = describe(flags, machine, ceiling)
    print("\n".join(lines), flush=True)
    networks = build_networks(corpus, routes, variants, flags.precision)
    steps = time_steps(networks, flags.batch_sizes, flags.lengths, flags.seconds)
    inputs = time_input(corpus, networks[routes[0]], flags.batch_sizes, flags.seconds)
    rows = []
    show_header()
    for row in itertools.chain(steps, inputs):
        if "gflop_per_s" in row:
            row["peak_fraction"] = row["gflop_per_s"] / ceiling.matmul_gflop_per_s
            row["serial_ms"] = row["serial_ops"] * ceiling.op_us / 1000
        rows.append(row)
        show_row(row)
    source = "device" if has_gpu else "host"
    limits = [find_limit(rows, batch_size, source) for batch_size in flags.batch_sizes]
    after = measure_ceiling(dtype, has_gpu)
    last = [limit["sentence"] for limit in limits] + [f"at the end, {describe_ceiling(after)}"]
    print("\n".join(last))
    lines += [header(), *(format_line(format_row(row)) for row in rows), *last]
    result = {
        "benchmark": "step_time", "preset": flags.preset, "precision": flags.precision,
        "routes": list(routes), "variants": list(variants), "seconds": flags.seconds,
        "docs": flags.docs, "machine": machine,
        "ceiling": dataclasses.asdict(ceiling), "ceiling_at_end": dataclasses.asdict(after),
        "rows": rows, "limits": limits,
    }  # fmt: skip
    return result, lines


def describe(flags: StepTimeFlags, machine: dict[str, Any], ceiling: Ceiling) -> list[str]:
    """The hardware's ceiling first, then what else the figures depend on."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        describe_ceiling(ceiling),
        f"{machine['device']}, {machine['architecture']}, {machine['num_cores']} cores, load "
        f"{machine['load_average']}; commit {machine['commit']}; {machine['date']}",
        f"{versions}; preset {flags.preset}, {flags.precision}",
    ]


def describe_ceiling(ceiling: Ceiling) -> str:
    return (
        f"ceiling: {ceiling.matmul_gflop_per_s:,.0f} GFLOP/s ({ceiling.dtype} matrix product), "
        f"{ceiling.copy_gb_per_s:,.1f} GB/s (read and written), {ceiling.op_us:.1f} us for an op "
        "that waits for the one before"
    )


if __name__ == "__main__":
    run_command(main)
