"""Trainings killed at random moments and resumed until they are done: `python -m tests.torture`.

Each run must end with the weights, predictions and scores of one that nothing stopped, bitwise, and
leave no temporary file. What was killed where is printed as a table. Half of the signals are
SIGKILL, half SIGTERM.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from shortline import run_command
from tests.runs import arrays_of, same_weights

ROOT = Path(__file__).parents[1]
FLAGS = [
    "--docs=1500", "--test=0.1", "--embedding-dim=48", "--hidden=8", "--batch-size=32",
    "--epochs=3", "--steps-per-call=3", "--learning-rate=0.005", "--save-minutes=0.002",
    "--gpus=none",
]  # fmt: skip
"""All tables of words are lazy with one replica, and after training the logits are adjusted."""
STOPPED, INTERRUPTED = 75, 130
_MOST_SECONDS = 180.0  # of a process: more is a hang


@dataclass
class Kill:
    """One signal and what the process was at."""

    phase: str
    signal: str
    exit_code: int


@dataclass
class Outcome:
    """One run: its kills, and what it came to."""

    replicas: int
    kills: list[Kill] = field(default_factory=list)
    same_weights: bool = False
    same_predictions: bool = False
    same_scores: bool = False
    leftovers: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def is_right(self) -> bool:
        right = self.same_weights and self.same_predictions and self.same_scores
        return right and not self.leftovers and not self.problem


class Job:
    """A training in a folder of its own, cache and temporary files included."""

    def __init__(self, folder: Path, replicas: int):
        self.folder, self.out = folder, folder / "run"
        self.temporary = folder / "temporary"
        self.temporary.mkdir(parents=True)
        self._new = [*FLAGS, f"--cpu-replicas={replicas}", "--out", str(self.out)]

    def start(self) -> subprocess.Popen[bytes]:
        """The training, new or resumed."""
        is_begun = (self.out / "config.yaml").exists()
        flags = ["--resume", str(self.out)] if is_begun else self._new
        environment = os.environ | {
            "SHORTLINE_CACHE": str(self.folder / "cache"), "TMPDIR": str(self.temporary),
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "train.py", *flags], cwd=ROOT, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def find_leftovers(self) -> list[str]:
        """Temporary and lock files that are there after the end."""
        paths = [path for path in self.folder.rglob("*") if path != self.temporary]
        return [
            str(path.relative_to(self.folder))
            for path in paths
            if path.name.startswith(".") or ".tmp" in path.name or self.temporary in path.parents
        ]


def predict(run: Path) -> np.ndarray:
    """Probabilities of some texts, by the export as a user would load it."""
    import tensorflow as tf

    texts = (run / "vocab.txt").read_text("utf-8").splitlines()[2:202]
    lines = [" ".join(texts[start : start + 8]) for start in range(0, len(texts), 8)]
    serve = tf.saved_model.load(str(run / "export")).signatures["serving_default"]
    return serve(text=tf.constant(lines))["probabilities"].numpy()


_SCORES = (
    "accuracy", "macro_f1", "loss", "test", "best_epoch", "steps", "long_tail", "temperature",
    "calibration",
)  # fmt: skip


def read_scores(run: Path) -> dict[str, Any]:
    """What the run says of itself, but for times; with its calibration."""
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    calibration = (run / "calibration.json").read_text("utf-8")
    linear = summary["linear"]["weight"]  # the linear classifier takes a while, too
    found = {name: summary[name] for name in _SCORES}
    return found | {"linear": linear, "calibration.json": calibration}


def _has_line(words: str) -> Callable[[Job, str], bool]:
    return lambda job, printed: words in printed


def _writes_checkpoint(job: Job, printed: str) -> bool:
    return any((job.out / "checkpoints").glob(".*.tmp"))


def _evaluates(job: Job, printed: str) -> bool:
    """The last chunk of an epoch is logged, the epoch is not."""
    metrics = job.out / "metrics.jsonl"
    lines = metrics.read_text("utf-8").splitlines() if metrics.exists() else []
    last = lines[-1] if lines and lines[-1].endswith("}") else "{}"
    event = json.loads(last)
    return event.get("event") == "train" and event["step"] % _STEPS_OF_EPOCH == 0


def _has_refit(job: Job, printed: str) -> bool:
    return (job.out / "checkpoints" / "refit.npz").exists()


def _has_final(job: Job, printed: str) -> bool:
    return (job.out / "checkpoints" / "final.npz").exists()


_STEPS_OF_EPOCH = 38  # 1,200 documents in batches of 32
PHASES: dict[str, tuple[Callable[[Job, str], bool], float]] = {
    "start-up": (lambda job, printed: True, 5.0),
    "generating": (_has_line("generating a corpus"), 0.2),
    "ingest": (_has_line("ingesting into"), 1.5),
    "compiling": (_has_line("residency, "), 2.0),
    "training": (_has_line("start-up "), 1.0),
    "checkpointing": (_writes_checkpoint, 0.0),
    "evaluating": (_evaluates, 0.02),
    "compiling anew": (_has_line("training another network"), 3.0),
    "training anew": (_has_refit, 0.5),
    "adjusting": (_has_final, 1.0),
    "fitting again": (_has_line("calibration error"), 1.0),
    "exporting": (_has_line("writing the report and the export"), 2.0),
}
"""What shows that a phase has begun, and the most seconds to wait before the signal."""


def run_until(job: Job, phase: str | None, number: int, dice: random.Random) -> Kill | str:
    """One process, which gets signal `number` in the phase; the words of a failure, if it fails.

    A process that ends before the phase comes is a Kill without a signal.
    """
    begins, most = PHASES[phase] if phase else (lambda job, printed: False, 0.0)
    process = job.start()
    assert process.stdout is not None
    printed, started, kill_at = "", time.monotonic(), None
    output = process.stdout.fileno()
    sent = False
    while process.poll() is None:
        if select.select([output], [], [], 0.0005)[0]:
            printed += os.read(output, 1 << 16).decode()
        now = time.monotonic()
        if kill_at is None and begins(job, printed):
            kill_at = now + dice.uniform(0, most)
        if kill_at is not None and now >= kill_at and not sent:
            process.send_signal(number)
            sent = True
        if now - started > _MOST_SECONDS:
            process.kill()
            return f"hangs: {printed[-500:]}"
    printed += process.stdout.read().decode()
    code = process.wait()
    if code not in ({0, STOPPED, INTERRUPTED, -number} if sent else {0}):
        return f"exit code {code}: {printed[-800:]}"
    name = signal.Signals(number).name if sent else "-"
    return Kill(phase or "-", name, code)


def torture(job: Job, whole: Path, replicas: int, num_kills: int, seed: str) -> Outcome:
    """Kills the job so often, then lets it end, and compares it with the one nothing stopped."""
    dice = random.Random(seed)
    outcome = Outcome(replicas)
    for _ in range(num_kills):
        phase = dice.choice(list(PHASES))
        if job.out.exists() and phase in ("generating", "ingest"):
            phase = "training"  # those are done with
        number = dice.choice([signal.SIGKILL, signal.SIGTERM])
        kill = run_until(job, phase, number, dice)
        if isinstance(kill, str):
            outcome.problem = kill
            return outcome
        if kill.signal == "-" or kill.exit_code == 0:  # it was done before the signal came
            break
        outcome.kills.append(kill)
    end = run_until(job, None, signal.SIGTERM, dice)
    if isinstance(end, str):
        outcome.problem = end
        return outcome
    outcome.same_weights = same_weights(job.out, whole) and all(
        np.array_equal(value, arrays_of(whole, which)[name])
        for which in ("best", "final")
        for name, value in arrays_of(job.out, which).items()
    )
    outcome.same_predictions = np.array_equal(predict(job.out), predict(whole))
    outcome.same_scores = read_scores(job.out) == read_scores(whole)
    outcome.leftovers = job.find_leftovers()
    return outcome


def describe(outcomes: Sequence[Outcome]) -> str:
    """The table of kills, in Markdown."""
    names = (
        "run", "replicas", "killed in (signal, exit code)", "weights", "predictions", "scores",
        "left over",
    )  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for number, outcome in enumerate(outcomes, 1):
        kills = "; ".join(f"{k.phase} ({k.signal}, {k.exit_code})" for k in outcome.kills) or "-"
        weights = "same" if outcome.same_weights else "OTHER"
        predictions = "same" if outcome.same_predictions else "OTHER"
        scores = "same" if outcome.same_scores else "OTHER"
        left = ", ".join(outcome.leftovers) or "nothing"
        cells = [str(number), str(outcome.replicas), kills, weights, predictions, scores, left]
        lines.append(f"| {' | '.join(cells)} |")
    right = sum(outcome.is_right for outcome in outcomes)
    num_kills = sum(len(outcome.kills) for outcome in outcomes)
    lines.append("")
    lines.append(f"{right} of {len(outcomes)} runs right, after {num_kills} kills.")
    lines += [
        f"run {number}: {' '.join(outcome.problem.split())}"
        for number, outcome in enumerate(outcomes, 1)
        if outcome.problem
    ]
    return "\n".join(lines)


def torture_all(
    folder: Path, num_runs: int, seed: int, most_kills: int, tell: Callable[[str], None]
) -> list[Outcome]:
    """Runs on one and two replicas in turn, each held against its own unbroken run."""
    whole: dict[int, Path] = {}
    outcomes: list[Outcome] = []
    dice = random.Random(seed)
    for number in range(num_runs):
        replicas = 1 + number % 2
        if replicas not in whole:
            straight = Job(folder / f"whole{replicas}", replicas)
            end = run_until(straight, None, signal.SIGTERM, dice)
            assert not isinstance(end, str), end
            changed = read_scores(straight.out)
            assert changed["long_tail"]["power"] or changed["linear"], "logits are as they were"
            whole[replicas] = straight.out
        job = Job(folder / f"run{number + 1}", replicas)
        num_kills = dice.randint(1, most_kills)
        outcome = torture(job, whole[replicas], replicas, num_kills, f"{seed}/{number}")
        if outcome.is_right:
            shutil.rmtree(job.folder)
        outcomes.append(outcome)
        tell(f"run {number + 1}: {'right' if outcome.is_right else outcome}")
    return outcomes


@dataclass(frozen=True, kw_only=True)
class TortureFlags:
    """What can be set."""

    runs: int = 30
    """Trainings to kill and resume."""
    seed: int = 0
    """Of phases, moments and signals."""
    most_kills: int = 3
    """Kills of one run, at most."""


def main(argv: Sequence[str] | None = None) -> int:
    flags = tyro.cli(TortureFlags, args=argv, prog="python -m tests.torture")
    folder = Path(tempfile.mkdtemp(prefix="torture-"))

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    outcomes = torture_all(folder, flags.runs, flags.seed, flags.most_kills, tell)
    print(describe(outcomes))
    if not all(outcome.is_right for outcome in outcomes):
        print(f"what is wrong can be looked at in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    run_command(main)
