"""What grows is told from what only moves; a training is watched without touching it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench import samples as watching
from bench import soak as command
from bench.flatness import find_growth, find_rise, judge, measure
from bench.samples import (
    Sample,
    Watched,
    count_children,
    find_leftovers,
    read_step,
    take_sample,
    watch_training,
)
from bench.soak import LEGS, SoakFlags, main, soak
from model.flags import PRESETS, Flags
from shortline import UserError, parse_flags

MB = 10**6
MINUTES = np.arange(0, 15, 0.05)
TIME = MINUTES / 15


def make_watched(exit_code=75, has_checkpoint=True, leftovers=(), **series):
    """A training of 15 minutes at 2,000 documents/s, with some of its series otherwise."""
    random = np.random.default_rng(5)
    steady = {
        # a window comes and goes, a checkpoint is written now and then, and so is it at the start
        "anon_bytes": 500 * MB * np.minimum(1, 30 * TIME) + 8 * MB * (np.arange(300) % 7 == 0)
        + random.normal(0, MB / 5, 300),
        "file_bytes": np.full(300, 460 * MB), "descriptors": 7 + (np.arange(300) % 11 == 0),
        "threads": 13 + (TIME > 0.1), "children": np.zeros(300), "temporary": np.full(300, 8),
        "cpu_seconds": 60 * MINUTES, "other_seconds": 1000 + 30 * MINUTES,
        "step": 2_000 * 60 * MINUTES // 128,
    } | series  # fmt: skip
    columns = [60 * MINUTES, *(steady[name] for name in Sample._fields[1:])]
    samples = [Sample(*row) for row in zip(*(np.asarray(c).tolist() for c in columns), strict=True)]
    epochs = [{"epoch": 10, "step": 350, "docs_per_s": 2_000.0, "seconds": 2.24}]  # 35 steps each
    return Watched(samples, exit_code, 1.5, epochs, has_checkpoint, list(leftovers))


def bad(watched):
    """Names of the verdicts that are bad."""
    return [verdict.name for verdict in judge(measure(watched)) if not verdict.is_right]


def test_a_steady_training_is_flat():
    watched = make_watched()
    assert bad(watched) == []
    figures = measure(watched)
    assert figures["num_train"] == 4_480
    assert abs(figures["anon_growth_bytes"]) < MB
    assert figures["thirds"][1]["docs_per_s"] == pytest.approx(2_000, rel=0.01)
    assert figures["thirds"][1]["cpu_us_per_doc"] == pytest.approx(500, rel=0.01)
    assert figures["thirds"][1]["other_cores"] == pytest.approx(0.5)


def test_a_slow_start_is_not_judged():
    """What fills up for 2 minutes after a start of 5 is done by the seventh."""
    steps = 2_000 * 60 * np.maximum(0, MINUTES - 5) // 128
    filling = 500 * MB + 100 * MB * np.minimum(1, np.maximum(0, MINUTES - 5) / 2)
    assert bad(make_watched(step=steps, anon_bytes=filling)) == []


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("leaks", 15 * MB * TIME),
        ("leaks from half-time on", 30 * MB * np.maximum(0, TIME - 0.5)),
        ("steps once", 12 * MB * (TIME > 0.4)),
        ("steps late", 12 * MB * (TIME > 0.8)),
        ("steps now and then", 3 * MB * (8 * TIME).astype(int)),
    ],
)
def test_memory_that_grows(name, added):
    level = make_watched()
    anon = np.array([sample.anon_bytes for sample in level.samples])
    watched = make_watched(anon_bytes=anon + added)
    assert bad(watched) == ["memory flat"]
    grown = measure(watched)["anon_growth_bytes"]
    assert grown == pytest.approx(added[-1] - added[60], abs=3.5 * MB)


def test_memory_that_shrinks_or_peaks_is_flat():
    anon = np.array([sample.anon_bytes for sample in make_watched().samples])
    assert bad(make_watched(anon_bytes=anon - 30 * MB * TIME)) == []
    assert bad(make_watched(anon_bytes=anon + 200 * MB * (np.arange(300) > 296))) == []
    # of a memory map, the kernel takes pages back
    assert bad(make_watched(file_bytes=460 * MB + 300 * MB * TIME)) == []


@pytest.mark.parametrize("name", ["descriptors", "threads", "children", "temporary"])
def test_a_handle_left_open_once_is_seen(name):
    peaks = 3 * (np.arange(300) % 5 == 0)
    assert bad(make_watched(**{name: 7 + peaks})) == []
    assert bad(make_watched(**{name: 7 + peaks + (TIME > 0.6)})) == ["handles flat"]


def test_a_slow_down_is_told_from_others_load():
    slowing = np.cumsum(2_000 * 3 / 128 * np.linspace(1.1, 0.8, 300))
    own_work = 60 * MINUTES
    assert bad(make_watched(step=slowing)) == ["no slow-down"]  # as much CPU time, fewer documents
    waiting = slowing * 128 / 2_000  # CPU time a document is as it was
    assert bad(make_watched(step=slowing, cpu_seconds=waiting)) == ["no slow-down"]
    others = 1000 + 30 * MINUTES + 60 * MINUTES * TIME
    assert bad(make_watched(step=slowing, cpu_seconds=waiting, other_seconds=others)) == []
    # others' load does not excuse more work for a document
    busy = make_watched(step=slowing, cpu_seconds=own_work, other_seconds=others)
    assert bad(busy) == ["no slow-down"]
    stuck = np.minimum(2_000 * 60 * MINUTES / 128, 6_000)
    assert bad(make_watched(step=stuck, other_seconds=others)) == ["no slow-down"]


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ({"exit_code": -9}, "stopped when asked"),
        ({"exit_code": 0}, "stopped when asked"),
        ({"has_checkpoint": False}, "stopped when asked"),
        ({"leftovers": ["temporary/x"]}, "nothing left over"),
    ],
)
def test_a_bad_end(how, name):
    assert bad(make_watched(**how)) == [name]


def test_growth_by_a_line_and_by_the_ends():
    seconds = np.arange(100.0)
    assert find_growth(seconds, np.full(100, 7.0)) == 0
    assert find_growth(seconds, 3 * seconds) == pytest.approx(297)
    assert find_growth(seconds, 1.0 * (seconds > 70)) == 1
    assert find_growth(seconds, -1.0 * seconds) < 0
    assert find_rise(np.array([1, 9, 1, 1, 5, 9, 9, 1, 9])) == 0


def test_a_process_is_read_from_outside(tmp_path):
    (tmp_path / "run").mkdir()
    code = (
        "import subprocess, sys, threading, time\n"
        "held = bytearray(b'x' * 100_000_000), [open('/dev/null') for _ in range(20)]\n"
        "threads = [threading.Thread(target=time.sleep, args=(60,), daemon=True) for _ in '123']\n"
        "[thread.start() for thread in threads]\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "end = time.process_time() + 0.3\n"
        "while time.process_time() < end: pass\n"
        "print('ready', flush=True); input(); child.communicate()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    sample = take_sample(process.pid, 4.0, tmp_path)
    assert 10**8 < sample.anon_bytes < 1.5 * 10**8
    assert 10**6 < sample.file_bytes < 10**8
    assert 23 <= sample.descriptors <= 26
    assert (sample.threads, sample.children, sample.temporary) == (4, 1, 0)
    assert 0.3 <= sample.cpu_seconds < 3
    assert sample.other_seconds > 0
    assert sample.step == 0
    assert count_children(process.pid) == 1
    process.communicate("\n", timeout=30)
    with pytest.raises(watching._Ended):
        take_sample(process.pid, 5.0, tmp_path)


def test_the_step_is_that_of_the_last_whole_line(tmp_path):
    assert read_step(tmp_path) == 0
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"event": "train", "st')
    assert read_step(tmp_path) == 0
    metrics.write_text('{"event": "train", "step": 7}\n' * 1000 + '{"event": "train", "step": 99')
    assert read_step(tmp_path) == 7


def test_what_a_training_left_over(tmp_path):
    for kept in ("run/checkpoints/last.npz", "shards/ids-1/ids.bin"):
        (tmp_path / kept).parent.mkdir(parents=True)
        (tmp_path / kept).touch()
    (tmp_path / "temporary").mkdir()
    assert find_leftovers(tmp_path) == []
    left = ["run/checkpoints/.last.npz.x.tmp", "shards/.ids-2.x.tmp", "temporary/tmpabc.py"]
    for name in left:
        (tmp_path / name).touch()
    assert find_leftovers(tmp_path) == left


def test_a_training_that_ends_by_itself_is_no_soak(tmp_path):
    with pytest.raises(UserError, match=r"ended with 2 before its time; it said: error: .*--wrong"):
        watch_training(["--wrong"], tmp_path, 60, 0.1, {})


def test_an_interrupted_soak_leaves_no_process(tmp_path, monkeypatch):
    pids = []

    def interrupt(pid, seconds, folder):
        pids.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "take_sample", interrupt)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        watch_training([], tmp_path, 60, 0.1, {})
    with pytest.raises(watching._Ended):
        take_sample(pids[0], 0.0, tmp_path)
    assert time.monotonic() - before < 30


@pytest.mark.parametrize("left", [[], ["temporary/x"]])
def test_what_is_printed_and_recorded(left, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "soak", lambda leg, flags: make_watched(leftovers=left))
    out = tmp_path / "r"
    assert main(["--out", str(out), "--window-docs", "200"]) == len(left)
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert json.loads((out / "soak.json").read_text()) == result
    assert (out / "soak.txt").read_text().splitlines() == printed[:-1]
    assert (out / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert result["is_flat"] == (not left)
    assert [leg["leg"] for leg in result["legs"]] == ["host", "stream"]
    assert [leg["num_windows"] for leg in result["legs"]] == [1, 23]
    assert len(printed) == 1 + 2 + 2 * 5 + 1 + 1
    assert sum("NOT nothing left over" in line for line in printed) == 2 * len(left)
    with (out / "stream.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300
    assert float(rows[100]["seconds"]) == pytest.approx(300)
    assert list(rows[0]) == list(Sample._fields)
    with pytest.raises(UserError, match="holds a record"):
        main(["--out", str(out)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "1"], "--minutes 1: must be 1.2 or more, for a dozen samples of each"),
        (["--legs", "host,disk"], "--legs host,disk: must be some of host, stream, cached"),
        (["--legs", "host,host"], "--legs host,host"),
        (["--legs", ","], "--legs ,: must be some"),
        (["--every", "0"], "--every 0: must be 0.05 or more"),
        (["--windows", "0"], "--windows 0"),
        (["--docs", "999"], "--docs 999"),
        (["--hidden", "0"], "--hidden 0"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        main(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("window_docs", [100, 16_000])
def test_a_stream_gets_so_many_windows(window_docs):
    flags = SoakFlags(window_docs=window_docs)
    assert 0.88 * flags.docs_of("stream") >= 20 * window_docs
    assert flags.docs_of("host") == flags.docs
    assert flags.leg_seconds == 900


@pytest.mark.parametrize("leg", LEGS)
def test_a_leg_is_what_train_py_can_read(leg, monkeypatch):
    stages, given = [], []
    monkeypatch.setattr(command, "run_stage", lambda words, *rest: stages.append(words))
    monkeypatch.setattr(command, "watch_training", lambda words, *rest: given.append((words, rest)))
    soak(leg, SoakFlags(minutes=2))
    [(words, (_, seconds, every, environment))] = given
    flags = parse_flags(Flags, words, prog="", description="", presets=PRESETS)
    assert flags.pipeline.residency == leg.replace("cached", "stream")
    assert flags.pipeline.id_cache == (leg != "stream")
    assert flags.train.patience == 0
    assert flags.train.epochs == (300 if leg == "host" else 17)
    assert stages[1][-1] == flags.data[0]
    assert (seconds, every) == (60, 3)
    assert flags.data[0].startswith(str(Path(environment["SHORTLINE_CACHE"]).parent))


@pytest.mark.slow
def test_a_soak_of_seconds():
    flags = SoakFlags(minutes=0.8, legs="stream", docs=1_000, window_docs=200, windows=4, every=0.2)
    watched = soak("stream", flags)
    verdicts = {verdict.name: verdict for verdict in judge(measure(watched))}
    # the rest is not settled after seconds
    for name in ("stopped when asked", "nothing left over"):
        assert verdicts[name].is_right, verdicts[name].words
    assert [epoch["epoch"] for epoch in watched.epochs] == [*range(1, len(watched.epochs) + 1)]
    assert len(watched.samples) > 60
    last = watched.samples[-1]
    assert last.step >= watched.epochs[-1]["step"] - 64
    assert last.threads > 1
    assert last.cpu_seconds > 5
