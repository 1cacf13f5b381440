"""`bench.all`: fits its quarter of an hour, goes on after a failure, keeps what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import all as everything
from bench.all import GPU_TESTS, AllFlags, Part, list_parts, main
from bench.epoch import EpochFlags
from bench.input_pipeline import InputFlags
from bench.step_time import StepTimeFlags
from model.flags import PRESETS, Flags
from shortline import UserError, parse_flags


def test_the_limits_fit_a_quarter_of_an_hour(tmp_path):
    assert sum(part.limit_s for part in list_parts(AllFlags(out=tmp_path))) <= 900


def test_every_part_is_a_command_that_can_be_read(tmp_path):
    """On a machine that is lent for minutes no flag may be misspelt."""
    readers = {
        "bench.epoch": EpochFlags, "bench.step_time": StepTimeFlags,
        "bench.input_pipeline": InputFlags, "train.py": Flags,
    }  # fmt: skip
    parts = {part.name: part for part in list_parts(AllFlags(out=tmp_path, against="torch"))}
    read = {}
    for name, part in parts.items():
        command, *words = part.words[1:] if part.words[0] == "-m" else part.words
        if command != "pytest":
            presets = PRESETS if command == "train.py" else None
            read[name] = parse_flags(
                readers[command], words, prog=command, description="", presets=presets
            )
            assert str(read[name].out).startswith(str(tmp_path)), name
    assert len({str(flags.out) for flags in read.values()}) == len(read)
    assert {flags.preset for name, flags in read.items() if name.startswith("epoch")} == {
        "seed", "default",
    }  # fmt: skip
    assert read["epoch_1024"].peers == ("torch",)
    assert read["epoch_keras"].peers == ("keras",)


def test_all_tests_that_want_a_gpu_are_among_its_parts(tmp_path):
    tests = Path(__file__).parent
    marked = [p.name for p in tests.glob("test_*.py") if "@pytest.mark.g" + "pu" in p.read_text()]
    assert sorted(marked) == [Path(name).name for name in GPU_TESTS]
    assert set(GPU_TESTS) <= set(next(list_parts(AllFlags(out=tmp_path))).words)


def test_a_failure_and_a_hang_keep_nothing_else_from_running(tmp_path, monkeypatch, capsys):
    parts = [
        Part("fails", ("-c", "raise SystemExit('no such kernel')"), 20),
        Part("hangs", ("-c", "import time; time.sleep(60)"), 1),
        Part("works", ("-c", "print('a line'); print('{\"docs_per_s\": 7}')"), 20),
    ]
    monkeypatch.setattr(everything, "list_parts", lambda flags: iter(parts))
    assert main(["--out", str(tmp_path / "all")]) == 1
    saved = json.loads((tmp_path / "all" / "all.json").read_text())
    assert [part["outcome"] for part in saved["parts"]] == ["exit 1", "too long", "done"]
    assert saved["parts"][2]["result"] == {"docs_per_s": 7}
    assert "no such kernel" in (tmp_path / "all" / "fails.log").read_text()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == saved


def test_it_names_the_parts_there_are(tmp_path):
    with pytest.raises(UserError, match="--only nothing: is not one of tests"):
        main(["--out", str(tmp_path / "all"), "--only", "nothing"])
