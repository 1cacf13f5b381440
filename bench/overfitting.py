"""Why training looks good and validation does not, cause by cause.

    python -m bench.overfitting                                    # the generated corpus
    python -m bench.overfitting --data nvd_cwe/all.parquet --epochs 10

Trains the seed's network again and again, each time with one thing otherwise: the order of the
documents, the split, the class weights, the sizes. docs/overfitting.md reads the figures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.record import check_out, end_benchmark
from shortline import UserError, import_tensorflow, parse_flags, run_command
from tfdata.config import IngestConfig


@dataclass(frozen=True, kw_only=True)
class OverfittingFlags:
    """The flags of this command."""

    data: tuple[Path, ...] = ()
    """Files of texts and labels; without them a corpus is generated."""
    docs: int = 40_000
    """Documents to generate, or most to take of the files, in their order."""
    epochs: int = 5
    """Passes over the training documents."""
    batch_size: int = 128
    """Documents in a batch."""
    causes: tuple[str, ...] = ()
    """Names of trainings (default: all)."""
    out: Path | None = None
    """Folder for the record."""
    ingest: IngestConfig = field(default_factory=IngestConfig)

    def __post_init__(self) -> None:
        for flag, least in (("docs", 1_000), ("epochs", 1), ("batch_size", 1)):
            if getattr(self, flag) < least:
                name = flag.replace("_", "-")
                raise ValueError(f"--{name} {getattr(self, flag)}: must be {least} or more")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; ends stdout with one line of JSON."""
    flags = parse_flags(
        OverfittingFlags, argv, prog="python -m bench.overfitting",
        description="Show what makes validation worse than training, cause by cause.",
    )  # fmt: skip
    check_out(flags.out, "overfitting")
    import_tensorflow()
    from bench.arrangement import read_documents
    from bench.causes import CAUSES, run_cause
    from bench.overfitting_chart import draw_curves
    from tfdata.generated import generate_cached

    known = {cause.name: cause for cause in CAUSES}
    for name in flags.causes:
        if name not in known:
            raise UserError(f"--causes {name}: choose from {', '.join(known)}")
    inputs = list(flags.data) or [generate_cached(flags.docs)]
    documents = read_documents(inputs, flags.ingest, flags.docs)
    result: dict[str, Any] = {
        "benchmark": "overfitting", "data": [path.name for path in inputs],
        "num_docs": len(documents.rows), "num_classes": documents.num_classes,
        "epochs": flags.epochs, "batch_size": flags.batch_size, "causes": {},
    }  # fmt: skip
    lines = [
        f"{len(documents.rows):,} documents, {documents.num_classes:,} classes; accuracy after "
        f"each of {flags.epochs} epochs: training / validation",
    ]
    print(lines[0], flush=True)
    for cause in (known[name] for name in flags.causes or known):
        started = time.monotonic()
        curve = run_cause(documents, cause, flags.epochs, flags.batch_size)
        seconds = round(time.monotonic() - started, 1)
        result["causes"][cause.name] = asdict(curve) | {"title": cause.title, "seconds": seconds}
        told = "  ".join(
            f"{a:.3f} / {b:.3f}" for a, b in zip(curve.train, curve.valid, strict=True)
        )
        lines.append(f"{cause.title:<40} {told}  macro-F1 {curve.macro_f1:.3f}  {seconds:.0f} s")
        print(lines[-1], flush=True)
    end_benchmark(flags.out, result, lines, lambda file: draw_curves(file, result))


if __name__ == "__main__":
    run_command(main)
