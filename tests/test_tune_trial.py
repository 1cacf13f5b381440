"""A trial's process is watched, ended and cleared away; the space of --tune fits train.py."""

from __future__ import annotations

import csv
import os
import time
from random import Random

import pytest

from model import tune_trial
from model.flags import PRESETS, read_flags
from model.tune_record import write_trials
from model.tune_space import (
    SPACE,
    as_flags,
    build_distributions,
    choose_axes,
    decode,
    encode,
    mutate,
)  # fmt: skip
from model.tune_trial import run_trial
from shortline import flat_values

pytest.importorskip("optuna")

MADE = """
import json, os, pathlib, sys, time, yaml
flags = yaml.safe_load(open(sys.argv[2]))
assert flags["scores_only"]
run = pathlib.Path(flags["out"])
run.mkdir()
(run / "config.yaml").write_text(yaml.safe_dump({**flags, "epochs": 4}))
pathlib.Path(flags["data"]).write_text(str(os.getpid()))
best = 0.0
with open(run / "metrics.jsonl", "w") as file:
    for number, macro_f1 in enumerate(flags["scores"], start=1):
        event = {"event": "epoch", "step": number, "epoch": number}
        if macro_f1 is not None:
            accuracy = flags["accuracies"][number - 1] if "accuracies" in flags else macro_f1 / 2
            best = max(best, mean := (accuracy + macro_f1) / 2)
            event |= {"valid_macro_f1": macro_f1, "valid_accuracy": accuracy, "best": mean == best}
        print(json.dumps({"event": "train", "step": number}), file=file, flush=True)
        print(json.dumps(event), file=file, flush=True)
        time.sleep(flags["wait"])
if flags["message"]:
    sys.exit(flags["message"])
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """`run_trial` with a made-up train.py; gives the result, and what it was told."""
    script = tmp_path / "made.py"
    script.write_text(MADE)
    monkeypatch.setattr(tune_trial, "_TRAIN", script)
    folder = tmp_path / "tune"
    folder.mkdir()

    def run(scores, wait=0.0, message="", is_poor=lambda share, score: False, most=60.0, **more):
        settings = {"scores": scores, "wait": wait, "message": message, **more}
        settings["data"] = str(tmp_path / "pid")
        result = run_trial(settings, folder, is_poor, lambda seconds: seconds > most)
        assert list(folder.iterdir()) == []
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
        return result

    return run


def test_the_best_epoch_counts(made):
    told = []
    result = made([0.2, 0.5, 0.4], is_poor=lambda *what: told.append(what) or False)
    assert (result.outcome, result.epochs) == ("done", 3)
    assert (result.macro_f1, result.accuracy) == (0.5, 0.25)
    assert told == [(0.25, 0.2), (0.5, 0.5), (0.75, 0.5)]
    assert result.settled["epochs"] == 4


def test_the_epoch_that_the_training_keeps_counts(made):
    """The best mean of accuracy and macro-F1: a search took a training for better than it was."""
    result = made([0.70, 0.72, 0.60], accuracies=[0.90, 0.85, 0.95])
    assert (result.macro_f1, result.accuracy) == (0.70, 0.90)


def test_a_poor_one_is_ended(made):
    result = made([0.2, 0.1, 0.9, 0.9], wait=1.0, is_poor=lambda share, score: share == 0.5)
    assert (result.outcome, result.epochs, result.macro_f1) == ("pruned", 2, 0.2)


def test_one_that_takes_too_long_is_ended(made):
    started = time.monotonic()
    result = made([0.2, 0.3], wait=30.0, most=1.5)
    assert result.outcome == "cut short"
    assert time.monotonic() - started < 15


def test_one_that_fails_says_why(made):
    result = made([0.2], message="error: no such\x1b[2J file")
    assert result.outcome == "failed"
    assert result.error == "no such\\x1b[2J file"


def test_without_validation_there_is_no_figure(made):
    result = made([None, None])
    assert (result.outcome, result.macro_f1, result.epochs) == ("done", None, 2)


@pytest.mark.parametrize("preset", PRESETS)
def test_all_that_can_be_drawn_is_a_recipe(preset):
    """Whatever is drawn, train.py takes; and the untuned settings are among it."""
    base = flat_values(read_flags(["--preset", preset]))
    base["epochs"] = base["epochs"] or 12  # as settled
    base["label_smoothing"] = base["label_smoothing"] or 0.0
    axes = choose_axes(base, {"dropout"})
    without = {"dropout"} | ({"pieces"} if preset == "seed" else set())  # which has none
    assert {axis.flag for axis in axes} == {axis.flag for axis in SPACE} - without
    params = encode(axes, base)
    assert decode(axes, params, base) == {}
    distributions = build_distributions(axes, base)
    random = Random(0)
    for _ in range(60):
        before = params
        params = mutate(axes, params, base, random)
        assert params != before or decode(axes, params, base) == decode(axes, before, base)
        for flag, value in params.items():
            assert distributions[flag]._contains(distributions[flag].to_internal_repr(value)), flag
        recipe = decode(axes, params, base)
        read = flat_values(read_flags(["--preset", preset, *as_flags(recipe).split()]))
        assert {flag: read[flag] for flag in recipe} == recipe


def test_a_csv_that_no_spreadsheet_runs(tmp_path):
    figures = {"trial": 0, "outcome": "failed", "macro_f1": None, "accuracy": None, "epochs": 0,
               "seconds": 1.0}  # fmt: skip
    rows = [{**figures, "error": '=HYPERLINK("a")', "flags": {"hidden": 8, "pooling": "max"}},
            {**figures, "outcome": "done", "macro_f1": 0.5, "error": "", "flags":
             {"hidden": 16, "pooling": "-max"}}]  # fmt: skip
    write_trials(tmp_path, rows)
    with open(tmp_path / "trials.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["error"] == '\'=HYPERLINK("a")'
    assert (first["set_hidden"], second["set_hidden"]) == ("8", "16")
    assert second["set_pooling"] == "'-max"
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")
