"""`python -m labels run INPUT --out DIR`, or a step alone: `python -m labels STEP DIR`."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from labels.run import Settings
from labels.step import ORDER, RESULTS, check_before, hold_folder, read_record, read_settings
from shortline import (
    EXIT_STOPPED,
    UserError,
    describe_value,
    flat_values,
    import_tensorflow,
    parse_flags,
    printable,
    run_command,
)

_NEEDED = {"sklearn": "scikit-learn", "rapidfuzz": "rapidfuzz", "ftfy": "ftfy"}
_DESCRIPTION = (
    "From unlabelled text to labelled shards: clean, encode, cluster, merge, review, dedupe."
)
_USAGE = (
    "say what to do: python -m labels run INPUT --out DIR, python -m labels review DIR, or one "
    f"step: clean INPUT --out DIR, and {', '.join(ORDER[1:])} DIR"
)


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """What can be set."""

    input: tyro.conf.Positional[Path]
    """File of texts: CSV, TSV, JSONL, Parquet or fastText."""
    out: Path
    """Folder of the labelling; one that is there is gone on with."""
    review: bool = True
    """Wait for the checks by hand, on a page in the browser; what was decided before counts
    either way."""
    config: Path | None = None
    """YAML file of flags; flags on the command line win."""
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, kw_only=True)
class StepFlags:
    """What can be set; of the flags below, those of the step alone count."""

    folder: tyro.conf.Positional[Path]
    """Folder of the labelling."""
    config: Path | None = None
    """YAML file of flags; flags on the command line win."""
    settings: Settings = field(default_factory=Settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; ends stdout with one line of JSON."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in (["-h"], ["--help"]):
        print(__doc__, _USAGE, sep="\n")
        return 0
    if not argv or argv[0] not in ("run", "review", *ORDER):
        raise UserError(_USAGE)
    command, rest = argv[0], argv[1:]
    if command == "review":
        from labels.review import main as review

        return review(rest)
    prog = f"python -m labels {command}"
    flags_type = RunFlags if command in ("run", "clean") else StepFlags
    flags = parse_flags(flags_type, rest, prog=prog, description=_DESCRIPTION)
    if command != "run":
        folder = flags.out if isinstance(flags, RunFlags) else flags.folder
        kept = {k: v for k, v in read_settings(folder, command).items() if v is not None}
        flags = parse_flags(
            flags_type, rest, prog=prog, description=_DESCRIPTION, presets={"": kept}
        )
        tell_kept(command, kept, flags.settings)
        if flags.config is None:
            tell_others(command, flags.settings)
    check_packages()
    return run(flags, command) if isinstance(flags, RunFlags) else run_one(flags, command)


def tell_others(step: str, settings: Settings) -> None:
    """Says which of the settings given are another step's, and so do nothing."""
    for of, config in vars(settings).items():
        values, defaults = flat_values(config), flat_values(type(config)())
        for name, value in values.items() if of != step else ():
            if value != defaults[name]:
                given = f"--{name.replace('_', '-')} {printable(describe_value(value))}"
                print(f"{step}: {given} does nothing here: it is of the step {of}")


def tell_kept(step: str, kept: dict[str, Any], settings: Settings) -> None:
    """Says which settings of a step are others than the default because they were so before."""
    values, defaults = flat_values(settings), flat_values(Settings())
    told = [
        f"--{name.replace('_', '-')} {describe_value(value)}"
        for name, value in kept.items()
        if values[name] == value != defaults[name]
    ]
    if told:
        print(f"{step}: set as it was before: {printable(', '.join(told))}")


def check_packages() -> None:
    """Raises a UserError where a package of the extra `labels` is missing."""
    for module, package in _NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{package} is not installed: pip install -e '.[labels]'")


def run(flags: RunFlags, command: str) -> int:
    """All steps, or clean alone."""
    from labels.review import is_finished
    from labels.run import make

    import_tensorflow()
    records: dict[str, Any] = {}
    with hold_folder(flags.out, is_new=True):
        for step in ("clean",) if command == "clean" else ORDER:
            if step == "decide" and flags.review and not is_finished(flags.out):
                from labels.review import review

                if not review(flags.out):
                    where = printable(str(flags.out))
                    print(f"the review is not finished; the same command goes on with it: {where}")
                    return EXIT_STOPPED
            records[step] = make(flags.out, flags.input, step, flags.settings)
    tell(flags.out, records)
    return 0


def run_one(flags: StepFlags, step: str) -> int:
    """One step of a labelling that is there."""
    from labels.clean import CleanConfig
    from labels.run import check_review, make

    import_tensorflow()
    with hold_folder(flags.folder, is_new=False):
        check_before(flags.folder, step)
        check_review(flags.folder, step)
        cleaned = read_record(flags.folder, "clean")
        source = Path(cleaned["counts"]["source"])
        config = CleanConfig(**cleaned["config"])
        settings = dataclasses.replace(flags.settings, clean=config)
        record = make(flags.folder, source, step, settings)
    tell(flags.folder, {step: record})
    return 0


def tell(folder: Path, records: dict[str, Any]) -> None:
    """Where things are, in a sentence on a terminal, else with the counts as a line of JSON."""
    where = printable(str(folder))
    if sys.stdout.isatty():
        made = ", ".join(RESULTS.values()) if "shards" in records else ", ".join(records)
        train = f"; to train: python train.py --data {where}/shards" if "shards" in records else ""
        print(f"done: {made} in {where}{train}")
        return
    counts = {
        step: {k: v for k, v in record["counts"].items() if not isinstance(v, (list, dict))}
        | {"seconds": round(record["seconds"], 3)}
        for step, record in records.items()
    }
    print(json.dumps({"out": str(folder), **counts}))


if __name__ == "__main__":
    run_command(main)
