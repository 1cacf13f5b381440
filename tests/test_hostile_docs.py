"""docs/hostile-input.md says what happens: every row of its table is run."""

from __future__ import annotations

import pytest

from tests.hostile_cases import PAGE, build_row, rows

LINES = PAGE.read_text("utf-8").splitlines()


@pytest.mark.parametrize("name", rows())
def test_the_table_is_true(name):
    row = build_row(name)
    assert row.endswith(" | 2 |")
    assert "Traceback" not in row
    assert row in LINES, "`python -m tests.hostile_cases` writes the table anew"


def test_the_table_has_nothing_else():
    assert sum(line.endswith("| 2 |") for line in LINES) == len(rows())
