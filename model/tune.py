"""--tune MINUTES: a better recipe than the default, by trials on the validation part.

The first trial is the training as the flags have it. The next ten are neighbours of the best so
far, later ones by turns neighbours and what optuna's TPE sampler proposes; what may change is the
table in model.tune_space, and what the user has set stays as it is. A trial whose macro-F1 falls
below the median of the others at the same share of their training is ended early. Time for the last
training, with the best recipe, is kept back: with it the minutes are used up. In RUN/tune/: the
untuned flags, the study (a journal, so that nothing but the trial of the moment is lost whenever it
ends), trials.csv and trials.png.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import yaml

from model.cluster import Cluster
from model.flags import Flags, place, read_flags
from model.run import InTheWay, RunPaths, check_free, hold_run
from model.tune_record import Row, write_trials
from model.tune_space import as_flags, build_distributions, choose_axes, decode, encode, mutate
from model.tune_study import open_study
from model.tune_trial import TrialResult, clear_trials, run_trial
from shortline import UserError, flat_values, printable, write_whole
from tfdata.lock import sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_END_FACTOR, _REFIT_FACTOR, _END_SECONDS = 1.15, 2.25, 15.0
"""What the last training takes more than its trial: evaluation of the report, and the export; with
--refit, another network. Not in it: the linear classifier."""
_TENTHS = 10
_MUTATED_FIRST = 10
_MOST_FAILURES = 5  # in a row


def tune(flags: Flags, cluster: Cluster | None) -> Flags | None:
    """The flags of the last training; None if a signal stopped the search, which can go on.

    Raises:
      UserError: optuna is missing, the folder is not free, or the untuned training fails.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("--tune: optuna is not installed: pip install -e '.[tune]'")
    if cluster is not None:
        raise UserError("--tune: only on a single machine; tune there, and train here")
    if flags.ingest.share("valid") == 0:
        raise UserError("--tune: --valid 0 leaves nothing to choose by; give it a share, or a file")
    if flags.pipeline.batch_size == "auto":
        raise UserError(
            "--tune: it tries batch sizes itself; name one instead of --batch-size auto"
        )
    flags = place(flags)
    assert flags.out is not None  # `place` filled it in
    paths = RunPaths(Path(flags.out))
    is_new = flags.resume is None
    if is_new:
        check_free(paths.folder)
    if is_new and paths.tune.exists():
        raise InTheWay(
            f"--out {printable(flags.out)}: holds a search; choose another folder, or go on with "
            f"--resume {printable(flags.out)}"
        )
    if paths.config.exists():
        raise UserError(
            f"--tune: the search in {printable(flags.out)} is over, and its last training begun: "
            "leave --tune out to go on with that, or start a new run"
        )
    with hold_run(paths.folder):
        try:
            search = Search(flags, paths.tune)
            best = search.run()
        except KeyboardInterrupt:
            print(f"stopped; go on with: python train.py --resume {printable(flags.out)}")
            return None
    recipe = dict(best.user_attrs["recipe"])
    return _replace(flags, {**recipe, "tune": None, "resume": None})


def _replace(flags: Flags, changes: Mapping[str, Any]) -> Flags:
    """The flags with some values changed, in whichever of their parts they stand."""
    found: dict[str, Any] = {}
    for part in dataclasses.fields(flags):
        value = getattr(flags, part.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = {name.name for name in dataclasses.fields(value)} & set(changes)
            found[part.name] = dataclasses.replace(value, **{n: changes[n] for n in names})
        elif part.name in changes:
            found[part.name] = changes[part.name]
    return dataclasses.replace(flags, **found)


class Search:
    """Trials one after the other, in the time there is; what is known of them is on disk."""

    def __init__(self, flags: Flags, folder: Path):
        """Opens the search of `folder`, or begins it.

        Raises:
          UserError: a trial of a search that was killed is still at work.
        """
        folder.mkdir(parents=True, exist_ok=True)
        clear_trials(folder)
        assert flags.tune is not None
        self._folder, self._settings = folder, flat_values(flags) | {"tune": None, "resume": None}
        # a search of before may have asked for more
        has_shares = flags.ingest.has_shares
        self._unsplit: dict[str, Any] = {} if has_shares else {"split": "random", "time": None}
        untuned = flat_values(read_flags(["--preset", flags.preset]))
        self._end_factor = _REFIT_FACTOR if flags.train.refit == "auto" else _END_FACTOR
        self._fixed = {name for name, value in untuned.items() if self._settings[name] != value}
        if not (folder / "config.yaml").exists():
            with write_whole(folder / "config.yaml") as file:
                yaml.safe_dump(self._settings | {"tune": flags.tune}, file, allow_unicode=True)
        self._study = open_study(folder / "journal.log", flags.train.seed)
        used = sum(trial.user_attrs.get("seconds", 0.0) for trial in self._study.trials)
        self._begun, self._seconds = time.monotonic() - used, flags.tune * 60

    def run(self) -> FrozenTrial:
        """Trials until the time is up; the best of them."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):  # of a killed process
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params)
        if not self._study.trials:
            self._begin()
        failures = 0
        while failures < _MOST_FAILURES and self._has_time(self._typical_seconds()):
            result = self._try_another()
            failures = failures + 1 if result.outcome == "failed" else 0
        best = self._study.best_trial
        print(self._sum_up(best), flush=True)
        return best

    def _begin(self) -> None:
        """The first trial, the untuned training."""
        from optuna.trial import TrialState, create_trial

        scores: dict[int, float] = {}
        print(f"trial 0: the untuned training, of {self._seconds / 60:g} minutes", flush=True)

        def note(share: float, macro_f1: float) -> bool:
            scores.update(dict.fromkeys(range(1, int(_TENTHS * share) + 1), macro_f1) | scores)
            return False

        result = run_trial(self._settings | self._unsplit, self._folder, note, self._is_over)
        if result.outcome == "failed" or (result.outcome == "done" and result.macro_f1 is None):
            sweep([self._folder])  # nothing in it is of use
            none = "--tune: there are no validation documents to choose by; see --valid"
            raise UserError(result.error or none)
        base = result.settled or self._settings
        axes = choose_axes(base, self._fixed)
        self._study.set_user_attr("base", {axis.flag: base[axis.flag] for axis in axes})
        params = encode(axes, base)
        self._study.add_trial(
            create_trial(
                state=TrialState.COMPLETE, value=result.macro_f1 or 0.0, params=params,
                distributions=build_distributions(axes, base), intermediate_values=scores,
                user_attrs=_describe(result, {}),
            )
        )  # fmt: skip
        self._tell(0, result, {})

    def _try_another(self) -> TrialResult:
        from optuna.trial import TrialState

        base = self._study.user_attrs["base"]
        axes = choose_axes(base, set())
        number = len(self._study.trials)
        is_waiting = self._study.get_trials(states=(TrialState.WAITING,))
        if not is_waiting and (number <= _MUTATED_FIRST or number % 2):
            random = Random(f"{self._settings['seed']} {number}")
            self._study.enqueue_trial(mutate(axes, self._study.best_params, base, random))
        trial = self._study.ask(build_distributions(axes, base))
        recipe = decode(axes, trial.params, base)
        told: set[int] = set()

        def is_poor(share: float, macro_f1: float) -> bool:
            for tenth in range(max(told, default=0) + 1, int(_TENTHS * share) + 1):
                trial.report(macro_f1, tenth)
                told.add(tenth)
            return bool(told) and trial.should_prune()

        settings = self._settings | self._unsplit | recipe
        result = run_trial(settings, self._folder, is_poor, self._is_over)
        for name, value in _describe(result, recipe).items():
            trial.set_user_attr(name, value)
        if result.outcome == "done":
            self._study.tell(trial, result.macro_f1)
        else:
            state = TrialState.FAIL if result.outcome == "failed" else TrialState.PRUNED
            self._study.tell(trial, state=state)
        self._tell(trial.number, result, recipe)
        return result

    def _is_over(self, seconds: float) -> bool:
        """Whether a trial that has run so long, or the best so far, could not be trained again."""
        needed = max(seconds, self._best_seconds())
        return self._left() < self._end_factor * needed + _END_SECONDS

    def _has_time(self, seconds: float) -> bool:
        """Whether to begin a trial that takes so long: half of it tells whether it is poor."""
        needed = self._end_factor * self._best_seconds() + _END_SECONDS
        return self._left() - needed > seconds / 2

    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._begun)

    def _best_seconds(self) -> float:
        return self._study.best_trial.user_attrs["seconds"] if self._study.trials else 0.0

    def _typical_seconds(self) -> float:
        """Of a whole training: the median; without end if not even the first could be finished."""
        done = [row["seconds"] for row in self._rows() if row["outcome"] == "done"]
        return sorted(done)[len(done) // 2] if done else float("inf")

    def _rows(self) -> list[Row]:
        """Of the record; trials that a killed process left are not in it."""
        base = self._study.user_attrs["base"]
        return [
            {**trial.user_attrs, "trial": trial.number, "flags": base | trial.user_attrs["recipe"]}
            for trial in self._study.trials
            if "outcome" in trial.user_attrs
        ]

    def _tell(self, number: int, result: TrialResult, recipe: Mapping[str, Any]) -> None:
        """A line of the trial, and the record."""
        write_trials(self._folder, self._rows())
        figure = "" if result.macro_f1 is None else f"macro-F1 {result.macro_f1:.4f}, "
        best = f"best {self._study.best_value:.4f}"
        what = f"{result.outcome}{': ' + result.error if result.error else ''}"
        left = f"{max(0.0, self._left()) / 60:.1f} minutes left"
        spent = f"{result.epochs} epochs, {result.seconds:.0f} s"
        line = f"trial {number}: {figure}{best}; {spent}, {what}; {left}  {as_flags(recipe)}"
        print(line.rstrip(), flush=True)

    def _sum_up(self, best: FrozenTrial) -> str:
        """What came of it, in some lines."""
        rows, first = self._rows(), self._study.trials[0]
        spent = (time.monotonic() - self._begun) / 60
        num_early = sum(row["outcome"] in ("pruned", "cut short") for row in rows)
        lines = [f"tuned: {len(rows)} trials in {spent:.1f} minutes, {num_early} ended early"]
        if rows[0]["outcome"] != "done":
            lines.append(
                "the untuned training takes more than half of --tune: it alone is done now, beyond "
                "these minutes; give it more of them, or less data"
            )
        elif best.number == first.number:
            lines.append(
                f"no trial was better than the untuned training: {first.value:.4f} macro-F1"
            )
        else:
            lines.append(
                f"validation macro-F1 {first.value:.4f} untuned, {best.value:.4f} with "
                f"{as_flags(best.user_attrs['recipe'])}"
            )
        lines.append(f"trials   {printable(str(self._folder / 'trials.csv'))}, trials.png")
        lines.append(f"training with it, about {best.user_attrs['seconds'] / 60:.1f} minutes")
        return "\n".join(lines)


def _describe(result: TrialResult, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A trial as the journal keeps it."""
    names = ("outcome", "macro_f1", "accuracy", "epochs", "seconds", "error")
    return {name: getattr(result, name) for name in names} | {"recipe": dict(recipe)}
