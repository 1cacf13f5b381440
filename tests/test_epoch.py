"""`bench.epoch`: what it runs, what it refuses, and what it leaves behind."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest

from bench import epoch
from bench.arms import ArmFailed
from shortline import UserError
from tests.records import SCHEMA, make_record


def test_what_was_measured_is_kept_after_every_turn(small_shards, tmp_path, monkeypatch, capsys):
    """The peer fails in its first turn; the machine is taken away before the last."""
    out, seen = tmp_path / "record", []

    def run(arm, job, seed, say):
        if (out / "epoch.json").exists():
            seen.append(json.loads((out / "epoch.json").read_text()))
        if len(seen) == 3:
            raise KeyboardInterrupt
        if arm == "keras" and seed == 0:
            raise ArmFailed("no such kernel")
        return make_record([0.5, 0.96], 10.0) | {"arm": arm, "seed": seed}

    monkeypatch.setattr(epoch, "run_arm", run)
    words = ["--data", str(small_shards.folder), "--out", str(out), "--against", "keras"]
    with pytest.raises(KeyboardInterrupt):
        epoch.main([*words, "--turns", "2"])
    turns = [[(row["arm"], row["seed"]) for row in record["runs"]] for record in seen]
    ours, theirs = ("shortline", 0), [("keras", 0), ("keras", 1)]
    assert turns == [[ours], [ours, theirs[0]], [ours, *theirs]]
    assert not any(record["finished"] for record in seen)
    last = seen[-1]
    assert last["times_as_fast_as"]["keras"]["epoch"] is None  # of no turn there are both
    assert json.loads((out / "epoch.json").read_text()) == last
    assert (out / "epoch.txt").read_text().endswith("\nnot finished: 3 of 4 turns\n")
    assert (out / "epoch.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="holds a record"):
        epoch.main(words)


def test_a_missing_peer_is_told_before_any_arm_runs(monkeypatch):
    monkeypatch.setattr(epoch, "open_split", pytest.fail)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else 1)
    with pytest.raises(UserError, match=r"--against torch: .* pip install -e '\.\[peers\]'"):
        epoch.main(["--against", "keras,torch"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--against", "keras,jax"], "--against jax: must be one of keras, keras2"),
        (["--preset", "best"], "--preset best"),
        (["--docs", "10"], "--docs 10: must be 1000 or more"),
        (["--turns", "0"], "--turns 0"),
        (["--torch-threads", "0"], "--torch-threads 0"),
        (["--target", "95"], "--target 95"),
        (["--data", "/no/such"], "no shard set"),
    ],
)
def test_wrong_flags(words, message):
    with pytest.raises(UserError, match=message):
        epoch.main(words)


def test_a_record_is_not_written_over(tmp_path):
    (tmp_path / "epoch.json").write_text("{}")
    with pytest.raises(UserError, match="holds a record"):
        epoch.main(["--out", str(tmp_path)])


@pytest.mark.slow
def test_a_small_comparison(small_shards, capsys, tmp_path, temporary):
    """Ours against a peer, two turns, on a shard set of one's own; all that is printed and left."""
    words = ["--data", str(small_shards.folder), "--epochs", "2", "--turns", "2", "--gpus", "none"]
    words += ["--target", "0.01", "--against", "keras-right", "--out", str(tmp_path / "record")]
    epoch.main(words)
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    assert [(run["arm"], run["seed"]) for run in result["runs"]] == [
        ("shortline", 0), ("shortline", 1), ("keras-right", 0), ("keras-right", 1),
    ]  # fmt: skip
    for run in result["runs"]:
        assert set(run) >= SCHEMA
        wall = [entry["wall_seconds"] for entry in run["epochs"]]
        assert run["startup_seconds"] < wall[0] < wall[1] == run["wall_seconds"]
        assert run["epochs"][-1]["train_seconds"] < run["wall_seconds"]
    assert result["finished"]
    assert set(result["arms"]) == {"shortline", "keras-right"}
    assert all(math.isfinite(ratio) for ratio in result["times_as_fast_as"]["keras-right"].values())
    assert [line for line in printed if line.endswith("of 2")] == [
        "shortline, turn 1 of 2", "keras-right, turn 1 of 2", "keras-right, turn 2 of 2",
        "shortline, turn 2 of 2",
    ]  # fmt: skip
    assert json.loads((tmp_path / "record" / "epoch.json").read_text()) == result
    text = (tmp_path / "record" / "epoch.txt").read_text().splitlines()
    assert text == printed[-1 - len(text) : -1]
    assert not list(temporary.iterdir())


def test_the_learning_rate_grows_with_the_root_of_the_batch():
    assert epoch.choose_rate(epoch.EpochFlags()) == pytest.approx(1e-3)
    assert epoch.choose_rate(epoch.EpochFlags(batch_size=2048)) == pytest.approx(4e-3)
    assert epoch.choose_rate(epoch.EpochFlags(batch_size=2048, learning_rate=0.5)) == 0.5
