"""The arms of a comparison: train.py and its peers, each a process of its own on one split."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.joules import JouleMeter
from bench.peers.flags import INSTALL
from shortline import UserError, printable

OURS = "shortline"
ROOT = Path(__file__).parents[1]
_END_OF_EPOCH = re.compile(r"epoch (\d+)/\d+ .*\|  validation")  # as train.py and Record print it


@dataclass(frozen=True)
class Peer:
    """A module of bench.peers, and what it asks for."""

    module: str
    needs: str
    """What it imports."""
    words: tuple[str, ...] = ()
    """Flags of its own."""
    takes: tuple[str, ...] = ()
    """Of the flags of a job, those that not every peer has."""


PEERS = {
    "keras": Peer("bench.peers.keras_seed", "keras", takes=("learning_rate",)),
    "keras2": Peer(
        "bench.peers.keras_seed", "tf_keras", ("--keras", "2"), takes=("learning_rate",)
    ),
    "keras-right": Peer("bench.peers.keras_right", "keras", takes=("precision", "learning_rate")),
    "torch": Peer(
        "bench.peers.torch_lstm", "torch", takes=("precision", "learning_rate", "torch_threads")
    ),
    "fasttext": Peer("bench.peers.fasttext_ngrams", "fasttext", takes=("target",)),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every arm does."""

    shards: Path
    preset: str
    """Of train.py; the peers have the seed's network."""
    epochs: int
    batch_size: int
    learning_rate: float
    """Of Adam: in the networks of all arms."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"]
    target: float
    gpus: Literal["all", "none"]
    torch_threads: int | None = None
    """None: PyTorch's own choice."""


class Stamp(NamedTuple):
    """When an arm had trained and validated an epoch."""

    epoch: int
    seconds: float
    """Since the process was started."""
    joules: float | None
    """Likewise."""


class ArmFailed(Exception):
    """An arm ended with an error; the message is its last line."""


def check_peers(names: Sequence[str]) -> None:
    """Before any arm runs: all that was asked for is there.

    Raises:
      UserError: a peer's package is not installed.
    """
    for name in names:
        needs = PEERS[name].needs
        if importlib.util.find_spec(needs) is None:
            raise UserError(
                f"--against {name}: {needs} is not installed: {INSTALL}, or leave {name} out"
            )


def run_arm(name: str, job: Job, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One training by train.py or a peer, in the schema of bench.peers.record.Record.

    wall_seconds and joules go from the start of the process to the validation of the last epoch,
    those of an epoch to its validation; None where nothing measures them.

    Raises:
      ArmFailed: it ended with an error.
    """
    common = ["--epochs", job.epochs, "--batch-size", job.batch_size, "--seed", seed]
    if name == OURS:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            words = ["train.py", "--data", job.shards, "--out", run, "--gpus", job.gpus]
            words += ["--preset", job.preset, "--precision", job.precision, "--patience", 0]
            words += ["--learning-rate", job.learning_rate]
            stamps, _ = _run([*words, *common], job, say)
            record = _read_run(run, job)
    else:
        peer = PEERS[name]
        own = [
            word
            for flag in peer.takes
            if getattr(job, flag) is not None
            for word in (f"--{flag.replace('_', '-')}", getattr(job, flag))
        ]
        stamps, last = _run(["-m", peer.module, job.shards, *common, *peer.words, *own], job, say)
        record = json.loads(last)
    return {"arm": name, "seed": seed, **add_stamps(record, stamps)}


def _run(
    words: Sequence[object], job: Job, say: Callable[[str], None]
) -> tuple[list[Stamp], str]:  # fmt: skip
    """Runs Python on these words; returns the ends of its epochs, and its last line."""
    meter = JouleMeter(job.gpus)
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONUNBUFFERED": "1"}
    if job.gpus == "none":
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    stamps, line = [], ""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        started, joules_before = time.perf_counter(), meter.read()
        with _start([sys.executable, *map(str, words)], environment, errors) as process:
            assert process.stdout is not None
            for line in process.stdout:
                ended = _END_OF_EPOCH.match(line)
                if ended:
                    joules = meter.read()
                    if joules is not None and joules_before is not None:
                        joules -= joules_before
                    seconds = time.perf_counter() - started
                    stamps.append(Stamp(int(ended[1]), seconds, joules))
                    say(printable(line.rstrip("\n")))
        if process.returncode:
            errors.seek(0)
            lines = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
            raise ArmFailed(printable(lines[-1].removeprefix("error: "), 300))
    if not stamps:
        raise ArmFailed("it ended without validating an epoch")
    return stamps, line


@contextlib.contextmanager
def _start(command: list[str], environment: dict[str, str], errors: Any) -> Iterator[Any]:
    """A process from the root of the repository, which does not outlive the block."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()  # it may have temporary files to clear away
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _read_run(run: Path, job: Job) -> dict[str, Any]:
    """A run folder of train.py as a record."""
    summary = json.loads((run / "summary.json").read_bytes())
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    epochs, train_seconds = [], 0.0
    for event in events:
        if event["event"] == "epoch":
            train_seconds += event["seconds"]
            epochs.append(
                {
                    "epoch": event["epoch"], "seconds": event["seconds"],
                    "train_seconds": train_seconds, "accuracy": event["valid_accuracy"],
                    "macro_f1": event["valid_macro_f1"],
                }
            )  # fmt: skip
    same = ("versions", "device", "num_train", "num_valid", "startup_seconds", "docs_per_s")
    more = ("route", "precision", "residency", "padding_fraction", "num_classes")
    return {
        "peer": f"{OURS} {job.preset}", **{name: summary[name] for name in (*same, *more)},
        "batch_size": job.batch_size, "trainings": False, "epochs": epochs,
    }  # fmt: skip


def add_stamps(record: dict[str, Any], stamps: Sequence[Stamp]) -> dict[str, Any]:
    """The record with wall_seconds, and joules of its epochs and of the whole.

    Of a peer whose epochs are trainings from scratch, the first is the one that counts as a whole;
    a shorter one would have had the same start-up and validation.
    """
    by_epoch = {stamp.epoch: stamp for stamp in stamps}
    whole = stamps[0] if record["trainings"] else stamps[-1]
    total = max(record["epochs"], key=lambda epoch: epoch["epoch"])["train_seconds"]
    epochs = []
    for epoch in record["epochs"]:
        seconds, joules = by_epoch[epoch["epoch"]][1:]
        if record["trainings"]:
            seconds = whole.seconds - total + epoch["train_seconds"]
            joules = whole.joules if epoch["epoch"] == whole.epoch else None
        epochs.append({**epoch, "wall_seconds": seconds, "joules": joules})
    return record | {"epochs": epochs, "wall_seconds": whole.seconds, "joules": whole.joules}
