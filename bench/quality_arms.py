"""The arms of bench.quality: train.py, with whatever flags, and the baselines."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.peers.flags import INSTALL
from bench.quality_scores import score_rows
from bench.quality_sets import QualitySet
from bench.quality_tasks import Outcome, Task, as_words, last_line
from shortline import UserError, printable

OURS = "shortline"
KEPT = (
    "num_train", "num_valid", "num_classes", "accuracy", "macro_f1", "loss", "best_epoch", "epochs",
    "steps", "epoch_seconds", "startup_seconds", "docs_per_s", "device", "route", "precision",
)  # fmt: skip


class Baseline(NamedTuple):
    """An arm of bench.quality_baselines."""

    words: tuple[str, ...]
    needs: str
    """What it imports."""
    has_seeds: bool
    """Whether another seed gives other answers."""


BASELINES = {
    "fasttext": Baseline(("fasttext", "--ngrams", "1"), "fasttext", True),
    "fasttext-bigrams": Baseline(("fasttext", "--ngrams", "2"), "fasttext", True),
    "tfidf": Baseline(("tfidf",), "sklearn", False),
}


class Training(NamedTuple):
    """One training of an arm on a set."""

    arm: str
    flags: str
    """Of train.py; a baseline has none."""
    data: QualitySet
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data.name}-{self.arm}-{self.seed}"


def choose_arms(asked: Sequence[str], common: str, variants_file: Path | None) -> dict[str, str]:
    """The arms that can run, and the flags of those that are train.py.

    Args:
      asked: their names; none: all.
      common: flags of all that are train.py.
      variants_file: of further ones.

    Raises:
      UserError: one is not known.
    """
    variants = read_variants(variants_file)
    common = common.strip()
    ours = {OURS: common} | {name: f"{common} {own}".strip() for name, own in variants.items()}
    known = [*ours, *BASELINES]
    arms = {}
    for name in asked or known:
        if name not in known:
            raise UserError(f"--arms {name}: is not one of {', '.join(known)}")
        needs = BASELINES[name].needs if name in BASELINES else None
        if needs is not None and importlib.util.find_spec(needs) is None:
            print(f"{name} is left out: {needs} is not installed ({INSTALL})")
            continue
        arms[name] = ours.get(name, "")
    if not arms:
        raise UserError(f"--arms {','.join(asked)}: none of them is installed; {INSTALL}")
    return arms


def read_variants(path: Path | None) -> dict[str, str]:
    """Flags of train.py by the name of a variant.

    Raises:
      UserError: the file is not that.
    """
    if path is None:
        return {}
    try:
        variants = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"--variants {path}: not valid YAML: {error}") from None
    if not isinstance(variants, dict):
        raise UserError(f"--variants {path}: must hold `name: flags` lines")
    for name, words in variants.items():
        if not isinstance(words, str | None):
            raise UserError(f"--variants {path}: `{name}` must be flags, as `--epochs 3`")
        if not str(name).replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UserError(f"--variants {path}: `{name}` must be letters, digits, -, _ and .")
        if name in (OURS, *BASELINES):
            raise UserError(f"--variants {path}: `{name}` is the name of another arm")
    return {str(name): words or "" for name, words in variants.items()}


def build_task(training: Training, folder: Path, preset: str, gpus: str) -> Task:
    """Train, then predict the rows to score; what they write has names in `folder`, absolute."""
    data, out = training.data, folder / training.name
    predicted = out.with_suffix(".parquet")
    if training.arm in BASELINES:
        words = as_words(
            "-m", "bench.quality_baselines", *BASELINES[training.arm].words,
            "--data", *data.baseline, "--scored", data.scored, "--out", predicted,
            "--seed", training.seed,
        )  # fmt: skip
        return Task(
            name=training.name, commands=(words,), environment={"CUDA_VISIBLE_DEVICES": "-1"}
        )
    valid = () if data.valid is None else ("--valid", data.valid)
    train = as_words(
        "train.py", "--preset", preset, "--data", data.data, *valid, "--out", out,
        "--gpus", gpus, "--seed", training.seed, *shlex.split(training.flags),
    )  # fmt: skip
    predict = as_words(
        "-m", "model.predict", out, data.scored, "--text", "text", "--out", predicted,
        "--gpus", gpus,
    )  # fmt: skip
    growth = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}  # or the first would take the whole GPU
    return Task(name=training.name, commands=(train, predict), environment=growth)


def read_outcome(training: Training, folder: Path, outcome: Outcome, keep: bool) -> dict[str, Any]:
    """A training's scores, or why there are none; its files go unless they are to be kept."""
    run: dict[str, Any] = {
        "arm": training.arm, "flags": training.flags, "set": training.data.name,
        "seed": training.seed, "outcome": outcome.what, "seconds": sum(outcome.seconds),
    }  # fmt: skip
    out = folder / training.name
    predicted = out.with_suffix(".parquet")
    if outcome.what == "done":
        run["train_seconds"] = outcome.seconds[0]
        run["scores"] = score_rows(training.data, predicted)
        if training.arm in BASELINES:
            run["summary"] = json.loads(last_line(outcome.log))
        else:
            summary = json.loads((out / "summary.json").read_bytes())
            run["summary"] = {name: summary[name] for name in KEPT if name in summary}
    elif outcome.seconds:
        run["error"] = printable(last_line(outcome.log).removeprefix("error: "), 300)
    if not keep:
        shutil.rmtree(out, ignore_errors=True)
        predicted.unlink(missing_ok=True)
    return run
