"""A run's folder that was damaged, or made to harm: its config.yaml says what is wrong with it."""

from __future__ import annotations

import re

import pytest

from model.opened import open_run
from shortline import UserError
from tests.small_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".*", "[" * 100_000), (".*", ""), (".*", "5"), (".*", "[]"), (".*", "\0"),
        ("hidden: 5", "hidden: 5.5"), ("hidden: 5", "hidden: null"), ("hidden: 5", "hidden: true"),
        ("pieces: 300", "pieces: '300'"), ("pairs: 64", "pairs: 1"), ("pairs: 64", "pairs: 64.0"),
        ("stems: 4", "stems: -1"), ("stems: 4", "stems: 2.5"), ("bag: true", "bag: hello"),
        ("max_len: 12", "max_len: x"), ("max_len: 12", "max_len: 1.5"),
        ("max_len: 12", "max_len: null"), ("tokenizer: word", "tokenizer: other"),
        ("pooling: max_mean", "pooling: other"), ("dropout: 0.5", "dropout: 1"),
        ("dropout: 0.5", "dropout: [0.5]"), ("filters: ", "filters: 5 #"),
    ],
)  # fmt: skip
def test_settings_that_are_none(run, tmp_path, old, new):
    text = run.paths.config.read_text("utf-8")
    damaged, count = re.subn(old, lambda match: new, text, count=1, flags=re.DOTALL)
    assert count
    (tmp_path / "config.yaml").write_text(damaged, "utf-8")
    with pytest.raises(UserError, match=r"config\.yaml: damaged: .+"):
        open_run(tmp_path)
