"""Every check and measurement that a machine with a GPU is for: `python -m bench.all --out DIR`.

First the tests marked `gpu`, then each benchmark, a process of its own with a time limit; what it
prints goes to DIR/NAME.log, its record to DIR/NAME/. One that fails or takes too long does not
keep the others from running. The limits add up to a quarter of an hour.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.arms import PEERS
from bench.checks import check_least
from bench.timing import describe_machine
from shortline import UserError, parse_flags, run_command, write_whole

GPU_TESTS = ("tests/test_cudnn.py", "tests/test_lstm.py")
"""Modules with tests marked `gpu`; others import what a machine lent for minutes may lack."""


@dataclass(frozen=True, kw_only=True)
class AllFlags:
    """The flags of `python -m bench.all`."""

    out: Path
    """Folder for all logs and records; new or empty."""
    docs: int = 710_900
    """Documents of the corpus, of which a tenth validates."""
    gpus: Literal["all", "none"] = "all"
    """none tries the same on a CPU."""
    against: str = ",".join(
        name for name in ("keras-right", "torch", "fasttext") if find_spec(PEERS[name].needs)
    )
    """Peers of the epochs, as of bench.epoch (default: those that are installed)."""
    only: str = ""
    """Names of the parts to run, with commas between (default: all)."""

    def __post_init__(self) -> None:
        check_least(self, docs=1_000)


class Part(NamedTuple):
    """A process: words after `python`, and the seconds that it may take."""

    name: str
    words: tuple[str, ...]
    limit_s: int


def list_parts(flags: AllFlags) -> Iterator[Part]:
    """In the order of worth: what comes last may be cut off by whoever lends the machine."""
    out, docs = flags.out, str(flags.docs)
    small = str(min(flags.docs, 40_000))
    gpu = ("--gpus", flags.gpus)
    seed = ("--preset", "seed", *gpu)
    large, middle = ("--batch-size", "4096"), ("--batch-size", "1024")

    def epoch(name: str, limit_s: int, *words: str, docs: str = docs) -> Part:
        common = ("-m", "bench.epoch", "--docs", docs, *gpu)
        return Part(name, (*common, *words, "--out", f"{out}/{name}"), limit_s)

    def step(name: str, limit_s: int, *words: str) -> Part:
        common = ("-m", "bench.step_time", "--docs", small, *seed, "--lengths", "40")
        return Part(name, (*common, *words, "--out", f"{out}/{name}"), limit_s)

    if flags.gpus == "all":
        marked = ("-m", "pytest", "-n", "0", "-m", "gpu", "-o", "addopts=", *GPU_TESTS)
        yield Part("tests", marked, 120)
    yield epoch("epoch_4096", 75, *large, "--epochs", "12")
    for residency in ("host", "stream"):
        words = ("train.py", "--docs", docs, "--residency", residency, *large, "--epochs", "3")
        words = (*words, "--no-id-cache", *seed, "--out", f"{out}/run_{residency}")
        yield Part(f"run_{residency}", words, 50)
    against = ("--against", flags.against) if flags.against else ()
    yield epoch("epoch_1024", 190, *middle, "--epochs", "4", *against)
    sizes = ("--batch-sizes", "128", "1024", "--seconds", "0.6")
    yield step("step_float32", 85, *sizes)
    yield epoch("epoch_default", 50, *middle, "--epochs", "3", "--preset", "default")
    half = ("--precision", "mixed_float16")
    yield epoch("epoch_float16", 45, *large, "--epochs", "4", *half)
    yield step("step_float16", 60, *sizes, *half)
    # the seed's script steps through its texts word by word, too slowly for all of them
    few = str(min(flags.docs, 150_000))
    yield epoch("epoch_keras", 75, *middle, "--epochs", "2", "--against", "keras", docs=few)
    words = ("-m", "bench.input_pipeline", "--docs", small, "--seconds", "1")
    yield Part("input_pipeline", (*words, "--out", f"{out}/input_pipeline"), 65)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 1 if a part failed."""
    description = "Check and measure everything that wants a GPU."
    flags = parse_flags(AllFlags, argv, prog="python -m bench.all", description=description)
    if flags.out.exists() and any(flags.out.iterdir()):
        raise UserError(f"--out {flags.out}: is not empty; choose another folder")
    flags.out.mkdir(parents=True, exist_ok=True)
    parts = list(list_parts(flags))
    if flags.only:
        names = [name.strip() for name in flags.only.split(",")]
        unknown = set(names) - {part.name for part in parts}
        if unknown:
            have = ", ".join(part.name for part in parts)
            raise UserError(f"--only {min(unknown)}: is not one of {have}")
        parts = [part for part in parts if part.name in names]
    results = []
    for part in parts:
        results.append(run_part(part, flags.out))
        print(
            "{name:16} {outcome:9} {seconds:6.1f} s of {limit_s}".format(**results[-1]), flush=True
        )
        record = {"benchmark": "all", "machine": describe_machine(""), "parts": results}
        with write_whole(flags.out / "all.json") as file:  # after each: the next may be the last
            json.dump(record, file, indent=2)
    print(json.dumps(record))
    return int(any(result["outcome"] != "done" for result in results))


def run_part(part: Part, out: Path) -> dict[str, Any]:
    """Runs one part; its last line of JSON, where it ends with one, is part of the result."""
    started = time.perf_counter()
    with (out / f"{part.name}.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, *part.words], stdout=log, stderr=subprocess.STDOUT, text=True
        )
        try:
            code = process.wait(part.limit_s)
            outcome = "done" if code == 0 else f"exit {code}"
        except subprocess.TimeoutExpired:
            process.terminate()
            outcome = "too long"
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.seek(0)
        lines = log.read().splitlines()
    result: dict[str, Any] = {"name": part.name, "outcome": outcome, "limit_s": part.limit_s}
    result["seconds"] = time.perf_counter() - started
    if lines and lines[-1].startswith("{"):
        result["result"] = json.loads(lines[-1])
    return result


if __name__ == "__main__":
    run_command(main)
