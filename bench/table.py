"""The rows of a benchmark, shown as they are measured: rich on a terminal, else aligned text."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_COLUMNS = {
    "measured": 17, "batch": 7, "length": 6, "ms": 9, "p10": 9, "p90": 9, "n": 7,
    "docs/s": 11, "tokens/s": 13, "GFLOP/s": 8, "% peak": 6, "% pad": 5,
}  # fmt: skip


def format_row(row: Mapping[str, Any]) -> list[str]:
    """A row's cells; n is chunks x steps of each, and an absent figure is a dash."""

    def figure(key: str, form: str, scale: float = 1.0) -> str:
        value = row.get(key)
        return "-" if value is None else format(value * scale, form)

    return [
        f"{row['kind']} {row.get('route') or row['source']}",
        figure("batch_size", ",.0f"), figure("length", ".0f"),
        figure("step_ms", ",.2f"), figure("step_ms_p10", ",.2f"), figure("step_ms_p90", ",.2f"),
        f"{row['num_chunks']}x{row['steps_per_chunk']}", figure("docs_per_s", ",.0f"),
        figure("tokens_per_s", ",.0f"), figure("gflop_per_s", ",.1f"),
        figure("peak_fraction", ".1f", 100), figure("padding_fraction", ".1f", 100),
    ]  # fmt: skip


def format_line(cells: list[str]) -> str:
    """One line of the plain table: the first cell to the left, figures to the right.

    >>> format_line(list(_COLUMNS))[:31]
    'measured            batch length'
    """
    widths = list(_COLUMNS.values())
    first = cells[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return " ".join([first, *rest]).rstrip()


def header() -> str:
    return format_line(list(_COLUMNS))


@contextlib.contextmanager
def show_rows() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Gives `add(row)`, which shows the row at once."""
    if not sys.stdout.isatty():
        print(header(), flush=True)
        yield lambda row: print(format_line(format_row(row)), flush=True)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(_COLUMNS):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    with Live(table, console=Console(highlight=False), auto_refresh=False) as live:

        def add(row: Mapping[str, Any]) -> None:
            table.add_row(*format_row(row))
            live.refresh()

        yield add
