"""What the records of several arms come to, and the table of it."""

from __future__ import annotations

import json
import re

import pytest

from bench.arm_table import describe_ratios, format_table
from bench.compare import compare, find_target, order_turns, summarise
from tests.records import make_record


def test_the_target_is_reached_after_the_first_epoch_that_is_good_enough():
    epochs = make_record([0.5, 0.95, 0.94, 0.99], 3.0)["epochs"]
    reached = find_target(epochs, 0.95)
    assert reached is not None
    assert (reached["epoch"], reached["train_seconds"]) == (2, 6.0)
    assert find_target(epochs, 0.995) is None


def test_summary_holds_the_medians_of_the_turns():
    records = [
        make_record([0.5, 0.96], 10.0, docs_per_s=100.0),
        make_record([0.97, 0.98], 14.0, docs_per_s=50.0),
        make_record([0.6, 0.99], 12.0, docs_per_s=200.0),
    ]
    row = summarise(records, 0.95)
    assert row["num_turns"] == 3
    assert row["docs_per_s"] == 100.0
    assert row["epoch_seconds"] == 10.0
    assert row["train_seconds"] == 24.0
    assert row["target_seconds"] == 20.0  # of 20, 14 and 24
    assert row["target_wall_seconds"] == 29.0  # of 29, 21 and 33
    assert (row["accuracy"], row["macro_f1"]) == (0.98, 0.49)
    assert row["joules"] == 20.0


def test_a_target_that_most_turns_miss_has_no_time():
    records = [make_record([0.99], 10.0), make_record([0.5], 10.0), make_record([0.5], 10.0)]
    row = summarise(records, 0.95)
    assert row["target_seconds"] is row["target_epoch"] is None
    assert row["train_seconds"] == 10.0
    json.dumps(row, allow_nan=False)


def test_failed_turns_do_not_count():
    failed = {"arm": "a", "seed": 0, "error": "out of memory"}
    row = summarise([failed, make_record([0.5], 10.0)], 0.95)
    assert (row["num_turns"], row["train_seconds"]) == (1, 10.0)
    assert summarise([failed], 0.95) == {"error": "out of memory", "num_turns": 0}
    ratios = compare([make_record([0.9], 1.0), make_record([0.9], 2.0)],
                     [failed, make_record([0.9], 6.0)], 0.9)  # fmt: skip
    assert ratios["target"] == 3.0
    assert set(compare([make_record([0.9], 1.0)], [failed], 0.9).values()) == {None}


def test_ratios_are_taken_turn_by_turn():
    ours = [make_record([0.96], s, docs_per_s=1 / s, start=0.0) for s in (1.0, 10.0, 3.0)]
    theirs = [make_record([0.9, 0.96], s, docs_per_s=1 / s, start=0.0) for s in (4.0, 20.0, 9.0)]
    ratios = compare(ours, theirs, 0.95)
    assert ratios["epoch"] == pytest.approx(3.0)  # of 4, 2 and 3
    assert ratios["target"] == pytest.approx(6.0)  # of 8, 4 and 6
    assert ratios["wall"] == pytest.approx(4.0)  # of 12 / 3, 44 / 12 and 22 / 5
    theirs[1] = make_record([0.5, 0.5], 20.0)
    assert compare(ours, theirs, 0.95)["target"] is None


def test_turns_go_forth_and_back():
    assert order_turns(["a", "b", "c"], 2) == [
        (0, "a"), (0, "b"), (0, "c"), (1, "c"), (1, "b"), (1, "a"),
    ]  # fmt: skip


def _make_result(records):
    rows = {arm: summarise([record], 0.95) for arm, record in records.items()}
    ratios = {arm: compare([records["shortline"]], [records[arm]], 0.95) for arm in rows}
    ratios.pop("shortline")
    return {"target": 0.95, "arms": rows, "times_as_fast_as": ratios}


def test_table_says_what_is_not_there():
    result = _make_result(
        {
            "shortline": make_record([0.96], 10.0, docs_per_s=200.0) | {"joules": None},
            "torch": make_record([0.9], 10.0, docs_per_s=100.0) | {"joules": 12_345.0},
            "keras": {"arm": "keras", "seed": 0, "error": "no such kernel"},
        }
    )
    header, ours, torch, keras = format_table(result)
    assert header.split("  ")[0] == "arm"
    assert "to 0.95 s" in header
    assert ours.endswith("not measured")
    assert re.split(r"\s+", torch)[1:] == [
        "10.00", "100", "2.00", "-", "5.0", "17.0", "0.9000", "0.4500", "12,345",
    ]  # fmt: skip
    assert keras.split() == ["keras", "failed:", "no", "such", "kernel"]
    [sentence] = describe_ratios(result)
    assert "2.00 times as fast as torch by the epoch" in sentence
    assert "not compared to 0.95" in sentence
