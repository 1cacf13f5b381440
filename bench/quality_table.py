"""Means and spreads of bench.quality, and its tables: one for each data set."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.quality_arms import BASELINES
from bench.table import format_line, header

Row = dict[str, Any]
_COLUMNS = {
    "arm": 22, "n": 3, "accuracy": 15, "macro-F1": 15, "head": 6, "mid": 6, "tail": 6, "ahead": 14,
    "train s": 8,
}  # fmt: skip


def sum_up(runs: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> list[Row]:
    """A row for each set, rows of it, and arm, in the order of `arms` within a set.

    Each figure is the mean over the seeds; spread is the sample standard deviation, None of one.
    `ahead` is what an arm that is no baseline is ahead of the better baseline, figure by figure.
    """
    latest = {}
    for run in runs:  # of a training that a record beside has, too, the later counts
        latest[run["set"], run["arm"], run["seed"]] = run
    done = [run for run in latest.values() if run["outcome"] == "done"]
    order = list(dict.fromkeys([*arms, *(run["arm"] for run in done)]))
    order.sort(key=lambda arm: arm in BASELINES)
    rows = []
    for name in sorted({run["set"] for run in done}):
        for part in ("all rows", "in scope"):
            rows += _sum_up_set([run for run in done if run["set"] == name], part, order)
    return rows


def _sum_up_set(runs: Sequence[Mapping[str, Any]], part: str, order: Sequence[str]) -> list[Row]:
    rows = []
    for arm in order:
        ours = [run for run in runs if run["arm"] == arm and part in run["scores"]]
        if ours:
            scores = [run["scores"][part] for run in ours]
            rows.append({
                "set": ours[0]["set"], "part": part, "arm": arm, "n": len(ours),
                "num_docs": scores[0]["num_docs"],
                "accuracy": _spread([score["accuracy"] for score in scores]),
                "macro_f1": _spread([score["macro_f1"] for score in scores]),
                "thirds": {
                    third: _spread([score["thirds"][third] for score in scores])
                    for third in ("head", "mid", "tail")
                },
                "train_seconds": _spread([run["train_seconds"] for run in ours]),
            })  # fmt: skip
    floors = [row for row in rows if row["arm"] in BASELINES]
    for row in rows:
        if floors and row["arm"] not in BASELINES:
            row["ahead"] = {
                figure: row[figure]["mean"] - max(floor[figure]["mean"] for floor in floors)
                for figure in ("accuracy", "macro_f1")
            }
    return rows


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "spread": None}
    spread = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.fmean(known), "spread": spread}


def format_tables(result: Mapping[str, Any]) -> list[str]:
    """A table for each set, what failed, and what the figures depend on."""
    lines, last = [], None
    for row in result["rows"]:
        if last != (row["set"], row["part"]):
            last = row["set"], row["part"]
            what = "validation" if result["development"] else "test"
            lines += ["", f"{row['set']}, {row['part']}: {row['num_docs']:,} {what} rows"]
            lines.append(header(_COLUMNS))
        lines.append(_format_row(row))
    failed = [run for run in result["runs"] if run["outcome"] != "done"]
    lines += ["", *(_describe_failure(run) for run in failed)]
    machine = result["machine"]
    lines.append(
        f"means and standard deviations over n seeds; ahead: of the better baseline, accuracy and "
        f"macro-F1; train s: wall time of the process, {result['jobs']} at once; "
        f"preset {result['preset']}; commit {machine['commit']}; {machine['device']}, "
        f"{machine['num_cores']} cores; "
        f"{machine['date']}{'' if result['finished'] else '; not finished'}"
    )
    return lines[1:] if lines[0] == "" else lines


def _format_row(row: Row) -> str:
    ahead = row.get("ahead")
    cells = [
        row["arm"], str(row["n"]), _figure(row["accuracy"]), _figure(row["macro_f1"]),
        *(_short(row["thirds"][third]["mean"]) for third in ("head", "mid", "tail")),
        f"{ahead['accuracy']:+.4f} {ahead['macro_f1']:+.4f}" if ahead else "",
        f"{row['train_seconds']['mean']:,.0f}",
    ]  # fmt: skip
    return format_line(cells, _COLUMNS)


def _figure(value: Mapping[str, float | None]) -> str:
    spread = "" if value["spread"] is None else f" ±{_short(value['spread'])}"
    return f"{_short(value['mean'])}{spread}".ljust(12)


def _short(value: float | None) -> str:
    """Four digits without the zero before the point."""
    return (
        "-" if value is None else f"{value:.4f}".removeprefix("0") if value < 1 else f"{value:.3f}"
    )


def _describe_failure(run: Mapping[str, Any]) -> str:
    why = f": {run['error']}" if run.get("error") else ""
    return f"{run['set']}, {run['arm']}, seed {run['seed']}: {run['outcome']}{why}"
