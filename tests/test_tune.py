"""--tune: what is tried, within which time, and how a search that was stopped goes on."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import train
from model import tune
from model.cluster import Cluster
from model.flags import read_flags
from model.tune_trial import TrialResult
from shortline import EXIT_STOPPED, UserError, flat_values
from tests.runs import SMALL

ROOT = Path(__file__).parents[1]

pytest.importorskip("optuna")


class Clock:
    """Seconds that pass only when a made-up training takes them."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Made:
    """In the place of a training: macro-F1 is the better the nearer the settings are to a best."""

    def __init__(self, clock, *, after=None, seconds=12.0):
        self.asked, self.results = [], []
        self._clock, self._after, self._seconds = clock, after, seconds

    def __call__(self, settings, folder, is_poor, is_over):
        self.asked.append(settings)
        if self._after is not None and len(self.asked) > self._after:
            raise KeyboardInterrupt
        started = self._clock.now
        settled = {**settings, "epochs": settings["epochs"] or 10}
        result = TrialResult(settled=settled, outcome="done")
        best = 0.9 - abs(settings["dropout"] - 0.5) - 0.05 * (settings["num_layers"] - 1)
        for epoch in range(1, settled["epochs"] + 1):
            self._clock.now += self._seconds / settled["epochs"]
            result.epochs, result.macro_f1 = epoch, best * (1 - 0.5**epoch)
            result.accuracy = result.macro_f1
            if epoch < settled["epochs"] and is_poor(epoch / settled["epochs"], result.macro_f1):
                result.outcome = "pruned"
                break
            if is_over(self._clock.now - started):
                result.outcome = "cut short"
                break
        result.seconds = self._clock.now - started
        self.results.append(result)
        return result


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(tune, "time", clock)
    return clock


@pytest.fixture
def flags(tmp_path, monkeypatch):
    """Of a search of five minutes."""
    monkeypatch.setattr(tune, "write_trials", lambda folder, rows: None)  # it draws
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # of each of hundreds of lines
    return read_flags(["--data", "some.csv", "--out", str(tmp_path / "run"), "--tune=5"])


def _search(monkeypatch, flags, made):
    monkeypatch.setattr(tune, "run_trial", made)
    return tune.tune(flags, None)


def test_it_finds_better_than_the_default_which_is_tried_first(flags, clock, monkeypatch, capsys):
    made = Made(clock)
    found = _search(monkeypatch, flags, made)
    first, *others = made.asked
    same = flat_values(flags) | {"data": first["data"]}
    assert {name for name, value in first.items() if value != same[name]} == {"tune"}
    assert first["tune"] is None
    assert len(others) > 15
    best = max(made.results, key=lambda result: (result.outcome == "done", result.macro_f1))
    spent = clock.now - 1000 + best.seconds * 1.15 + 15  # the last training and its report
    assert 0.9 * 300 < spent <= 1.05 * 300
    assert best.macro_f1 > made.results[0].macro_f1
    assert found.tune is None
    assert found.resume is None
    assert flat_values(found) | {"out": None} == {
        **flat_values(flags), **best.settled, "tune": None, "out": None,
        "epochs": flat_values(found)["epochs"],
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert f"{best.macro_f1:.4f} with --" in printed
    assert f"--dropout {best.settled['dropout']:g}" in printed


def test_poor_trials_end_early(flags, clock, monkeypatch):
    made = Made(clock)
    _search(monkeypatch, flags, made)
    pruned = [result for result in made.results if result.outcome == "pruned"]
    done = [result for result in made.results if result.outcome == "done"]
    assert pruned
    assert max(result.epochs / result.settled["epochs"] for result in pruned) < 1
    worst = min(done, key=lambda result: result.macro_f1)
    assert sum(result.macro_f1 < worst.macro_f1 for result in pruned) > len(pruned) / 2


def test_what_the_user_sets_stays(flags, clock, monkeypatch):
    flags = dataclasses.replace(
        flags, model=dataclasses.replace(flags.model, dropout=0.1, hidden=24)
    )
    made = Made(clock)
    found = _search(monkeypatch, flags, made)
    assert {settings["dropout"] for settings in made.asked} == {0.1}
    assert {settings["hidden"] for settings in made.asked} == {24}
    assert len({settings["learning_rate"] for settings in made.asked}) > 5
    assert (found.model.dropout, found.model.hidden) == (0.1, 24)


def test_a_search_that_was_stopped_goes_on(flags, clock, monkeypatch, tmp_path, capsys):
    before = Made(clock, after=6)
    assert _search(monkeypatch, flags, before) is None
    assert "--resume " + str(tmp_path / "run") in capsys.readouterr().out
    assert read_flags(["--resume", str(tmp_path / "run")]).tune == 5
    more = read_flags(["--resume", str(tmp_path / "run"), "--tune", "6"])
    after = Made(clock)
    found = _search(monkeypatch, more, after)
    # the trial of the moment begins again; nothing else does
    assert after.asked[0] == before.asked[6]
    assert after.asked[1] not in before.asked
    numbers = [
        int(line.split(":")[0].removeprefix("trial "))
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("trial ")
    ]
    assert numbers == list(range(7, 7 + len(after.asked)))
    best = max(
        (result for result in before.results + after.results if result.outcome == "done"),
        key=lambda result: result.macro_f1,
    )
    assert found.model.dropout == best.settled["dropout"]


def test_time_that_was_used_before_counts(flags, clock, monkeypatch, tmp_path):
    _search(monkeypatch, flags, Made(clock, after=8))
    used = clock.now - 1000
    assert used > 50
    clock.now += 10_000  # until it is resumed
    _search(monkeypatch, read_flags(["--resume", str(tmp_path / "run")]), Made(clock))
    assert 0.85 * 300 < clock.now - 11_000 + 12 * 1.15 + 15 <= 1.05 * 300


def test_a_journal_cut_short_is_mended(flags, clock, monkeypatch, tmp_path):
    _search(monkeypatch, flags, Made(clock, after=3))
    journal = tmp_path / "run" / "tune" / "journal.log"
    whole = journal.read_bytes()
    assert all(isinstance(json.loads(line), dict) for line in whole.splitlines())
    journal.write_bytes(whole + b'{"op_code": 4, "worker')
    (journal.parent / "journal.log.lock").symlink_to(journal)  # held by the process that was killed
    resumed = read_flags(["--resume", str(tmp_path / "run")])
    made = Made(clock, after=2)
    assert _search(monkeypatch, resumed, made) is None
    assert len(made.results) == 2
    journal.write_bytes(whole.replace(b"{", b"", 1))
    with pytest.raises(UserError, match="line 1 is damaged"):
        _search(monkeypatch, resumed, made)


def test_a_trial_that_outlived_its_search_is_named(flags, clock, monkeypatch, tmp_path):
    """Its search was killed; it would share the machine with what is measured."""
    _search(monkeypatch, flags, Made(clock, after=2))
    lock = tmp_path / "run" / "tune" / "trial-x" / "run" / ".lock"
    lock.parent.mkdir(parents=True)
    code = (
        "import pathlib, sys, time\nfrom tfdata.lock import hold_lock\n"
        "with hold_lock(pathlib.Path(sys.argv[1]), print):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    resumed = read_flags(["--resume", str(tmp_path / "run")])
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {process.pid} on .* still trains trial-x"):
            _search(monkeypatch, resumed, Made(clock, after=1))
        assert lock.exists()
        process.kill()
    _search(monkeypatch, resumed, Made(clock, after=1))
    assert not lock.exists()


def test_a_training_too_long_to_search_is_said_to_be(flags, clock, monkeypatch, capsys):
    made = Made(clock, seconds=600)
    found = _search(monkeypatch, flags, made)
    assert clock.now - 1000 < 200
    assert len(made.asked) == 1
    assert made.results[0].outcome == "cut short"
    assert found.model == flags.model
    assert found.train == flags.train
    assert "takes more than half of --tune" in capsys.readouterr().out


def test_a_failure_is_told_and_passed_over(flags, clock, monkeypatch, capsys):
    made = Made(clock)

    def fail(settings, *rest):
        if settings["num_layers"] == 2 or not made.asked:
            made.asked.append(settings)
            return TrialResult(error="no memory", seconds=0.01)
        return made(settings, *rest)

    with pytest.raises(UserError, match="no memory"):  # the untuned one: it is the user's to mend
        _search(monkeypatch, flags, fail)
    made.asked.append({})
    _search(monkeypatch, flags, fail)  # nothing is left in the way
    assert "failed: no memory" in capsys.readouterr().out


def test_failures_in_a_row_end_the_search(flags, clock, monkeypatch):
    made = Made(clock)

    def fail(settings, *rest):
        if not made.asked:
            return made(settings, *rest)
        made.asked.append(settings)
        return TrialResult(error="no memory", seconds=0.01)

    found = _search(monkeypatch, flags, fail)
    assert len(made.asked) == 1 + 5
    assert found.model == flags.model


def test_what_is_in_the_way_is_named(flags, monkeypatch, tmp_path):
    folder = tmp_path / "run" / "tune"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match="holds a search; choose another folder, or go on with"):
        tune.tune(flags, None)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({}))
    with pytest.raises(UserError, match="holds another run"):
        tune.tune(flags, None)
    with pytest.raises(UserError, match="is over, and its last training begun"):
        tune.tune(dataclasses.replace(flags, resume=flags.out), None)
    monkeypatch.setattr(tune.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="optuna is not installed: pip install"):
        tune.tune(flags, None)


def test_it_wants_one_machine_and_something_to_choose_by(flags):
    ingest = dataclasses.replace(flags.ingest, valid="0")
    with pytest.raises(UserError, match="--valid 0 leaves nothing"):
        tune.tune(dataclasses.replace(flags, ingest=ingest), None)
    pipeline = dataclasses.replace(flags.pipeline, batch_size="auto")
    with pytest.raises(UserError, match="it tries batch sizes itself"):
        tune.tune(dataclasses.replace(flags, pipeline=pipeline), None)
    cluster = Cluster.__new__(Cluster)
    with pytest.raises(UserError, match="only on a single machine"):
        tune.tune(flags, cluster)
    for minutes in ("0", "-1", "nan", "inf"):
        with pytest.raises(UserError, match="must be above 0 minutes"):
            read_flags(["--tune", minutes])


def test_scores_only_leaves_the_metrics(small_shards, tmp_path, straight):
    out = tmp_path / "run"
    words = ["--data", str(small_shards.folder), "--out", str(out), *SMALL]
    assert train.main([*words, "--scores-only"]) == 0
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = [event["valid_macro_f1"] for event in events if event["event"] == "epoch"]
    whole = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert scores == [event["valid_macro_f1"] for event in whole if event["event"] == "epoch"]
    left = {path.name for path in out.iterdir()}
    assert not left & {"checkpoints", "export", "report.html", "summary.json"}


def test_a_stop_has_the_code_of_one(flags, clock, monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "run_trial", Made(clock, after=2))
    words = ["--data", "some.csv", "--out", str(tmp_path / "run"), "--tune=5"]
    assert train.main(words) == EXIT_STOPPED


@pytest.mark.slow
def test_a_search_and_its_training(small_shards, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--data", str(small_shards.folder), "--out", str(out), "--gpus", "none", *SMALL]
    assert train.main([*words, "--tune", "2"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    with open(out / "tune" / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 2
    best = max(float(row["macro_f1"]) for row in rows if row["outcome"] == "done")
    assert summary["macro_f1"] == pytest.approx(best)  # the same training again
    assert sorted(path.name for path in (out / "tune").iterdir()) == [
        "config.yaml", "journal.log", "trials.csv", "trials.png",
    ]  # fmt: skip
    num_done = sum(row["outcome"] == "done" for row in rows)
    said = f"--tune chose the recipe, the best of {num_done} trials"
    assert summary.get("tuned", 1) == num_done
    assert (said in (out / "report.html").read_text()) == (num_done > 1)
    assert yaml.safe_load(Path(out / "config.yaml").read_text())["tune"] is None
    assert train.main(["--resume", str(out)]) == 0  # it had finished
