"""How good the answers are: `python -m bench.quality --data DIR --out RECORD`.

On each data set of a folder, trains with one recipe and scores once on the test part, with several
seeds, beside fastText and TF-IDF with a linear SVM (`pip install -e '.[peers]'`; what is missing
is left out). Every training is train.py, and every score that of what model.predict says, each in
a process of its own, `--jobs` at once. The record is written after every training, so what is cut
short keeps what it has; `--beside` shows the trainings of other records in the same table.

Which rows (bench.quality_sets): an official valid part validates, or with `--validation share`
trains, while train.py sets a share of everything aside (`--flags "--valid 0.05"` chooses the
share); where there is none, train.py's share it is. Without a test part, a fifth of the rows
tests: those whose text has an md5 that 5 divides, or of `--random-sets` any. The baselines train
on train and valid. `--development` scores the valid part, or a tenth of the training part, and
leaves the test part alone: for choosing among recipes (`--variants FILE.yaml`, name: flags). The
rows scored there do nothing else: train.py sets a share aside.

Macro-F1 is over the classes that occur in labels or predictions; head, mid and tail are thirds of
the classes by training rows. A set with a class `oos` (out of scope) is scored on all rows, and
with the same predictions on the rows in scope.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.checks import check_least, check_preset
from bench.quality_arms import BASELINES, OURS, Training, build_task, choose_arms, read_outcome
from bench.quality_chart import draw_quality
from bench.quality_sets import QualitySet, Rules, find_sets, prepare_set
from bench.quality_table import format_tables, sum_up
from bench.quality_tasks import run_tasks
from bench.record import check_out, write_record
from bench.timing import describe_machine
from shortline import UserError, import_tensorflow, parse_flags, run_command


@dataclass(frozen=True, kw_only=True)
class QualityFlags:
    """The flags of `python -m bench.quality`."""

    data: Path
    """Folder of data sets, each a folder of train, test and perhaps valid.parquet, or all.parquet,
    with columns text and label."""
    out: Path
    """Folder of the record to write; what each training prints goes to its logs/."""
    sets: str = ""
    """Names of the sets, with commas between (default: all)."""
    arms: str = ""
    """shortline, names of variants, fasttext, fasttext-bigrams, tfidf, with commas between
    (default: all that are installed)."""
    seeds: str = "0,1,2"
    """Of training, with commas between."""
    development: bool = False
    """Score the validation rows, and leave the test rows out of everything."""
    validation: Literal["file", "share"] = "file"
    """An official valid part: validates (file), or trains, and train.py sets a share of everything
    aside (share)."""
    random_sets: str = "loghub_2k"
    """Sets to split at random where they have no official split."""
    preset: str = "default"
    """Of train.py."""
    flags: str = ""
    """More flags of train.py, of all its arms, as --flags="--epochs 3"."""
    variants: Path | None = None
    """YAML file of further arms of train.py, a line each: name: its flags."""
    beside: tuple[Path, ...] = ()
    """Records (quality.json) whose trainings to show in the same table."""
    gpus: str = "all"
    """Of train.py."""
    jobs: int = 1
    """Trainings at once."""
    limit_seconds: float = float("inf")
    """Of all trainings together; what is running then is cut short."""
    training_seconds: float = float("inf")
    """That a single training may take."""
    keep_runs: bool = False
    """Keep the run folders, in OUT/runs."""

    def __post_init__(self) -> None:
        check_preset(self.preset)
        check_least(self, jobs=1)
        for flag in ("limit_seconds", "training_seconds"):
            if not getattr(self, flag) > 0:
                name = flag.replace("_", "-")
                raise ValueError(f"--{name} {getattr(self, flag)}: must be above 0")
        if not all(seed.isdecimal() for seed in split_names(self.seeds)) or not self.seeds.strip():
            raise ValueError(f"--seeds {self.seeds}: must be whole numbers, with commas between")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        QualityFlags, argv, prog="python -m bench.quality",
        description="Score train.py and baselines on a folder of data sets.",
    )  # fmt: skip
    check_out(flags.out, "quality")
    arms = choose_arms(split_names(flags.arms), flags.flags, flags.variants)
    folders = find_sets(flags.data, split_names(flags.sets))
    earlier = [run for path in flags.beside for run in read_record(path, flags.development)]
    import_tensorflow()
    from model.devices import choose_devices
    from tfdata.ingest import cache_folder

    choose_devices("none")  # the memory of the GPUs is for the trainings
    rules = Rules(
        development=flags.development, validation=flags.validation,
        random=split_names(flags.random_sets),
    )  # fmt: skip
    sets = [prepare_set(folder, rules, cache_folder() / "quality") for folder in folders]
    print(json.dumps(run_all(flags, arms, sets, earlier)))


def split_names(text: str) -> tuple[str, ...]:
    """
    >>> split_names("a, b,a")
    ('a', 'b')
    """
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def read_record(path: Path, is_development: bool) -> list[dict[str, Any]]:
    """The trainings of a record.

    Raises:
      UserError: it is none, or of the other kind of rows.
    """
    try:
        record = json.loads(path.read_bytes())
        runs, is_other = record["runs"], record["development"] != is_development
    except (ValueError, KeyError, TypeError):
        raise UserError(f"--beside {path}: is no quality.json of this benchmark") from None
    if is_other:
        raise UserError(f"--beside {path}: one is of --development, the other is not")
    return runs


def run_all(
    flags: QualityFlags, arms: Mapping[str, str], sets: Sequence[QualitySet],
    earlier: Sequence[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """Trains and scores everything; the result, which is also the record."""
    machine = describe_machine("")  # now: the load at the end is our own
    seeds = [int(seed) for seed in split_names(flags.seeds)]
    trainings = {
        training.name: training
        for number, seed in enumerate(seeds)  # all sets with one seed, then with the next
        for data in sets
        for arm, words in arms.items()
        if (training := Training(arm, words, data, seed))
        and (number == 0 or arm not in BASELINES or BASELINES[arm].has_seeds)
    }
    folder = flags.out.absolute() / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        build_task(training, folder, flags.preset, flags.gpus) for training in trainings.values()
    ]
    runs, result, lines = list(earlier), {}, []
    outcomes = run_tasks(
        tasks, num_jobs=flags.jobs, logs=flags.out / "logs",
        task_limit=flags.training_seconds, limit=flags.limit_seconds,
    )  # fmt: skip
    for number, outcome in enumerate(outcomes, start=1):
        run = read_outcome(trainings[outcome.task.name], folder, outcome, flags.keep_runs)
        runs.append(run | {"commit": machine["commit"]})
        machine["device"] = machine["device"] or run.get("summary", {}).get("device", "")
        print(f"[{number}/{len(tasks)}] {describe_run(run)}", flush=True)
        result = {
            "benchmark": "quality", "development": flags.development, "preset": flags.preset,
            "validation": flags.validation, "machine": machine, "jobs": flags.jobs,
            "finished": number == len(tasks) and all(one["outcome"] == "done" for one in runs),
            "rows": sum_up(runs, [OURS, *arms]), "runs": runs,
        }  # fmt: skip
        lines = format_tables(result)
        draw = partial(draw_quality, rows=result["rows"], development=flags.development)
        write_record(flags.out, result, lines, draw)
    if not flags.keep_runs:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(lines), flush=True)
    return {name: value for name, value in result.items() if name != "runs"}


def describe_run(run: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    line = f"{run['set']}, {run['arm']}, seed {run['seed']}: {run['seconds']:.0f} s, "
    if run["outcome"] != "done":
        return f"{line}{run['outcome']}{': ' + run['error'] if run.get('error') else ''}"
    return line + "; ".join(
        f"{rows}: accuracy {score['accuracy']:.4f}, macro-F1 {score['macro_f1']:.4f}"
        for rows, score in run["scores"].items()
    )


if __name__ == "__main__":
    run_command(main)
