"""Each stage's time and peak memory are its own, and the sweeps are what was asked for."""

from __future__ import annotations

import json
import time

import pytest

from bench import scale
from bench.point import Point, measure_point
from bench.scale import ScaleFlags, find_growth, find_sweeps, main, read_numbers
from bench.stage import run_stage
from shortline import UserError


def make_row(docs, classes, length):
    """Costs that grow with the work in a known way; two thirds of a second an epoch and so on."""
    return {
        "docs": docs, "classes": classes, "length": length, "num_train": docs,
        "generate_seconds": 0.1, "ingest_seconds": 1e-5 * docs, "ingest_s_per_doc": 1e-5,
        "ingest_peak_bytes": 5 * 10**8 + docs, "startup_seconds": 2.0,
        "epoch_seconds": [9.0, 1e-6 * length * docs], "train_s_per_doc": 1e-6 * length,
        "train_docs_per_s": 1e6 / length, "train_peak_bytes": 10**9 * classes // 60,
        "accuracy": 0.5, "device": "1 CPU",
    }  # fmt: skip


def test_points_grow_one_at_a_time():
    points = ScaleFlags().points
    assert [(point.docs, point.classes, point.length) for point in points] == [
        (40_000, 60, 40), (160_000, 60, 40), (640_000, 60, 40), (40_000, 600, 40),
        (40_000, 6_000, 40), (40_000, 60, 120), (40_000, 60, 400),
    ]  # fmt: skip
    flags = ScaleFlags(docs=710_900, factors="1", classes="60", lengths="40", epochs=1)
    assert flags.points == [Point(docs=710_900, classes=60, length=40)]


def test_sweeps_and_growth():
    flags = ScaleFlags(docs=1_000, factors="4,1", classes="60,120", lengths="40")
    rows = [make_row(point.docs, point.classes, point.length) for point in flags.points]
    sweeps = find_sweeps(rows, flags.axes)
    assert {axis: [row[axis] for row in points] for axis, points in sweeps.items()} == {
        "docs": [1_000, 4_000], "classes": [60, 120],
    }  # fmt: skip
    [docs], [classes] = (find_growth(axis, points) for axis, points in sweeps.items())
    assert (docs["work"], docs["train_s_per_doc"], docs["train_peak_bytes"]) == (4, 1, 1)
    assert docs["ingest_peak_bytes"] == pytest.approx(500_004_000 / 500_001_000)
    assert (classes["work"], classes["train_peak_bytes"]) == (2, 2)
    alone = ScaleFlags(factors="1", classes="60", lengths="40")
    assert list(find_sweeps(rows[:1], alone.axes)) == ["docs"]


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_printed_and_recorded(alone, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        scale, "measure_point",
        lambda point, **flags: make_row(point.docs, point.classes, point.length),
    )  # fmt: skip
    words = ["--factors", "1", "--classes", "60", "--lengths", "40"] if alone else []
    main([*words, "--out", str(tmp_path / "r")])
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    num_points = 1 if alone else 7
    assert len(result["points"]) == num_points
    assert len(result["growth"]) == num_points - 1
    assert len(printed) == 1 + num_points + (num_points - 1) + 1 + 1
    assert printed[1].split()[:3] == ["40,000", "60", "40"]
    assert json.loads((tmp_path / "r" / "scale.json").read_text()) == result
    assert (tmp_path / "r" / "scale.txt").read_text().splitlines() == printed[:-1]
    assert (tmp_path / "r" / "scale.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="holds a record"):
        main(["--out", str(tmp_path / "r")])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--factors", "1,x"], "--factors 1,x: must be whole numbers from 1 on, with commas"),
        (["--factors", "0"], "--factors 0"),
        (["--factors", "1,,4"], "--factors 1,,4"),
        (["--factors", ""], "--factors"),
        (["--classes", "60,1"], "--classes 60,1: must be whole numbers from 2"),
        (["--lengths", "9"], "--lengths 9"),
        (["--docs", "10000"], "--classes 6000: 10000 documents are too few; --docs must be 12000"),
        (["--docs", "10"], "--docs 10"),
        (["--epochs", "0"], "--epochs 0"),
        (["--preset", "best"], "--preset best"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        main(words)
    assert "\n" not in str(caught.value)


def test_numbers_are_sorted_and_different():
    assert read_numbers("factors", " 4, 1,4", 1) == [1, 4]


def test_time_and_peak_memory_are_those_of_the_process(tmp_path):
    code = "import time; x = bytearray({}); time.sleep({}); print('hello'); print('{{\"a\": 1}}')"
    small = run_stage(["-c", code.format(1, 0.3)], tmp_path, {})
    large = run_stage(["-c", code.format(400_000_000, 0)], tmp_path, {})
    assert 0.3 <= small.seconds < 5
    assert small.lines[0] == "hello"
    assert small.result == {"a": 1}
    assert large.peak_bytes > 400_000_000
    assert large.peak_bytes < 400_000_000 + max(small.peak_bytes, 100_000_000)


def test_a_stage_sees_its_environment_and_says_why_it_failed(tmp_path):
    code = "import os, sys; print(os.environ['WORD'], file=sys.stderr); sys.exit({})"
    with pytest.raises(UserError, match=r"`-c .*`: so it goes$"):
        run_stage(["-c", code.format(2)], tmp_path, {"WORD": "error: so it goes"})
    with pytest.raises(UserError, match="ended with 1: oh"):
        run_stage(["-c", code.format(1)], tmp_path, {"WORD": "oh"})
    with pytest.raises(UserError, match="by signal 9, which may be for want of memory"):
        run_stage(["-c", "import os; os.kill(os.getpid(), 9)"], tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        run_stage(["-c", "import sys; sys.exit(75)"], tmp_path, {})


def test_an_interrupted_benchmark_leaves_no_process(tmp_path, monkeypatch):
    import subprocess

    started = []
    popen = subprocess.Popen

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[0]

    def interrupt(pid, options):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr("bench.stage.os.wait4", interrupt)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_stage(["-c", "import time; time.sleep(60)"], tmp_path, {})
    assert started[0].poll() is not None
    assert time.monotonic() - before < 30


@pytest.mark.slow
def test_a_point_from_nothing_to_an_epoch():
    point = Point(docs=1_000, classes=12, length=20)
    row = measure_point(point, epochs=1, preset="default", batch_size=32, gpus="none")
    assert row["num_train"] < 1_000
    assert row["num_classes"] == 12
    assert len(row["epoch_seconds"]) == 1
    assert row["train_s_per_doc"] == pytest.approx(row["epoch_seconds"][0] / row["num_train"])
    assert row["train_wall_seconds"] > row["startup_seconds"] + row["epoch_seconds"][0]
    # what this process holds is in each of them, as it imports TensorFlow: see run_stage
    # equal where this process, which they start from, is larger than they are
    assert row["train_peak_bytes"] >= row["generate_peak_bytes"] > 5 * 10**7
