"""`bench.all`: fits its quarter of an hour, goes on after a failure, keeps what was measured."""

from __future__ import annotations

import json

import pytest

from bench import all as everything
from bench.all import AllFlags, Part, list_parts, main
from shortline import UserError


def test_the_limits_fit_a_quarter_of_an_hour(tmp_path):
    assert sum(part.limit_s for part in list_parts(AllFlags(out=tmp_path))) <= 900


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
