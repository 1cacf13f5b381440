"""A run's folder: of a run that came to nothing, what it made is deleted, and nothing else."""

from __future__ import annotations

import json
import shutil
import types
from typing import Any

import pytest
import tensorflow as tf

import model.build as build
import train
from model.flags import read_flags
from model.run import discard_run, hold_run
from shortline import UserError
from tests.runs import SMALL


def test_of_a_run_that_came_to_nothing_only_what_it_made_is_deleted(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    made = ["config.yaml", ".labels.txt.x.tmp", "checkpoints/.last.npz.y.tmp", "tensorboard/events"]
    with hold_run(tmp_path / "out") as paths:
        for name in [*made, "thesis.txt"]:
            (paths.folder / name).parent.mkdir(exist_ok=True)
            (paths.folder / name).write_text("x")
        discard_run(paths)
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["thesis.txt"]


def test_what_others_put_in_the_folder_meanwhile_is_left_there(small_shards, tmp_path, monkeypatch):
    build_trainer = build.build_trainer

    def build_late(*rest):
        (tmp_path / "run" / "config.yaml").write_text("of another run")
        return build_trainer(*rest)

    monkeypatch.setattr(build, "build_trainer", build_late)
    args = ["--data", str(small_shards.folder), "--out", str(tmp_path / "run"), *SMALL]
    with pytest.raises(UserError, match="holds another run"):
        train.main(args)
    assert (tmp_path / "run" / "config.yaml").read_text() == "of another run"


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_folder_stays_where_all_are_told_to_resume(tmp_path, monkeypatch, is_kept):
    """The first worker's collective operation fails as another worker is gone."""
    lost = tf.errors.UnavailableError(None, None, "socket closed") if is_kept else ValueError()

    def fail(*rest):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").write_text("docs: 1")
        raise lost

    monkeypatch.setattr(build, "build_trainer", fail)
    lifeline = types.SimpleNamespace(cluster=types.SimpleNamespace(index=0))
    devices: Any = types.SimpleNamespace(strategy=tf.distribute.get_strategy(), lifeline=lifeline)
    anything: Any = None
    flags = read_flags(["--out", str(tmp_path / "run")])
    with pytest.raises(type(lost)):
        train.train_held(flags, anything, devices, anything)
    assert (tmp_path / "run" / "config.yaml").exists() == is_kept


def test_a_damaged_best_is_told_when_the_run_is_resumed(straight, tmp_path, monkeypatch):
    """Not after the rest of the epochs, when it is wanted. Its copy is damaged, too."""
    shutil.copytree(straight, tmp_path / "run")
    for name in ("best.npz", "best-copy.npz"):
        (tmp_path / "run" / "checkpoints" / name).write_bytes(b"damaged")
    monkeypatch.setattr(train, "run_epochs", lambda *rest: pytest.fail("it trains on"))
    with pytest.raises(UserError, match=r"best\.npz: damaged .*; restore it or train anew"):
        train.main(["--resume", str(tmp_path / "run")])


def test_a_damaged_best_alone_loses_nothing(straight, tmp_path, capsys):
    """The run ends with the same scores, from the copy."""
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / "summary.json").unlink()
    (run / "checkpoints" / "best.npz").write_bytes(b"damaged")
    assert train.main(["--resume", str(run)]) == 0
    assert "its copy best-copy.npz is used" in capsys.readouterr().err
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (run, straight))
    assert (ours["loss"], ours["macro_f1"]) == (theirs["loss"], theirs["macro_f1"])
