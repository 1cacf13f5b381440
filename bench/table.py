"""The rows of a benchmark as lines of a table, shown as they are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

_COLUMNS = {
    "measured": 17, "batch": 7, "length": 6, "ms": 9, "p10": 9, "p90": 9, "n": 7,
    "docs/s": 11, "tokens/s": 13, "GFLOP/s": 8, "% peak": 6, "serial": 7, "% pad": 5,
}  # fmt: skip


def format_row(row: Mapping[str, Any]) -> list[str]:
    """A row's cells; n is chunks x steps of each, and an absent figure is a dash."""

    def figure(key: str, form: str, scale: float = 1.0) -> str:
        value = row.get(key)
        return "-" if value is None else format(value * scale, form)

    return [
        f"{row['kind']} {row.get('source') or row['name']}",
        figure("batch_size", ",.0f"), figure("length", ".0f"),
        figure("step_ms", ",.2f"), figure("step_ms_p10", ",.2f"), figure("step_ms_p90", ",.2f"),
        f"{row['num_chunks']}x{row['steps_per_chunk']}", figure("docs_per_s", ",.0f"),
        figure("tokens_per_s", ",.0f"), figure("gflop_per_s", ",.1f"),
        figure("peak_fraction", ".1f", 100), figure("serial_ms", ".2f"),
        figure("padding_fraction", ".1f", 100),
    ]  # fmt: skip


def format_line(cells: Sequence[str], columns: Mapping[str, int] = _COLUMNS) -> str:
    """One line of a plain table: the first cell to the left, figures to the right.

    Args:
      columns: width of each column by its name.

    >>> format_line(["step block", "128", "40", *("-" * 10)])[:32]
    'step block            128     40'
    """
    widths = list(columns.values())
    first = cells[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return " ".join([first, *rest]).rstrip()


def header(columns: Mapping[str, int] = _COLUMNS) -> str:
    return format_line(list(columns), columns)


def show_header() -> None:
    show_line(header(), style="bold")


def show_row(row: Mapping[str, Any]) -> None:
    show_line(format_line(format_row(row)))


def show_line(line: str, style: str = "none") -> None:
    # lines and not a rich Table: that one cuts figures off where the terminal is narrow
    Console().print(line, style=style, soft_wrap=True, highlight=False, markup=False)
