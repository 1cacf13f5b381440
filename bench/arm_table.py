"""The table of bench.epoch: a row for each arm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_MEASURED = "not measured"


def format_table(result: Mapping[str, Any]) -> list[str]:
    """The header and a line for each arm; what is not there is a dash, or says why."""
    columns = {
        "arm": 12, "epoch s": 9, "docs/s": 10, "ours x": 7, f"to {result['target']:g} s": 10,
        "start s": 8, "wall s": 9, "accuracy": 9, "macro-F1": 9, "joules": 13,
    }  # fmt: skip
    widths = list(columns.values())
    lines = [_format_line(list(columns), widths)]
    for arm, row in result["arms"].items():
        if "error" in row:
            lines.append(f"{arm:<{widths[0]}} failed: {row['error']}")
            continue
        ratios = result["times_as_fast_as"].get(arm, {})
        cells = [
            arm, _figure(row["epoch_seconds"], ",.2f"), _figure(row["docs_per_s"], ",.0f"),
            _figure(ratios.get("epoch"), ".2f"), _figure(row["target_seconds"], ",.1f"),
            _figure(row["startup_seconds"], ",.1f"), _figure(row["wall_seconds"], ",.1f"),
            _figure(row["accuracy"], ".4f"), _figure(row["macro_f1"], ".4f"),
            NOT_MEASURED if row["joules"] is None else f"{row['joules']:,.0f}",
        ]  # fmt: skip
        lines.append(_format_line(cells, widths))
    return lines


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _format_line(cells: list[str], widths: list[int]) -> str:
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return " ".join([cells[0].ljust(widths[0]), *rest]).rstrip()


def describe(result: Mapping[str, Any]) -> list[str]:
    """What the figures depend on: the job, the machine, the versions of every arm."""
    machine = result["machine"]
    lines = [
        f"{result['num_train']:,} training and {result['num_valid']:,} validation documents in "
        f"{result['num_classes']} classes, {result['epochs']} epochs, batches of "
        f"{result['batch_size']:,}, {result['precision']}; turns: {result['turns']}",
        f"{machine['device']}, {machine['architecture']}, {machine['num_cores']} cores, load "
        f"{machine['load_average']} at the start; commit {machine['commit']}; {machine['date']}",
    ]
    for arm, row in result["arms"].items():
        if "error" not in row:
            versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
            lines.append(f"{arm}: {versions}, on {row['device']}")
    return lines


def describe_ratios(result: Mapping[str, Any]) -> list[str]:
    """A sentence for each peer: how many times as fast ours is, and at what accuracy."""
    ours = result["arms"]["shortline"]
    lines = []
    for arm, ratios in result["times_as_fast_as"].items():
        row = result["arms"][arm]
        if ratios["epoch"] is None:  # there is no turn that both have done
            continue
        to_target = (
            f"not compared to {result['target']:g}, which not every turn of both reached"
            if ratios["target"] is None
            else f"{ratios['target']:.2f} times to {result['target']:g}"
        )
        lines.append(
            f"shortline is {ratios['epoch']:.2f} times as fast as {arm} by the epoch, "
            f"{ratios['wall']:.2f} from start to last validation, {to_target}; "
            f"accuracy {ours['accuracy']:.4f} against {row['accuracy']:.4f}, "
            f"macro-F1 {ours['macro_f1']:.4f} against {row['macro_f1']:.4f}"
        )
    return lines
