"""Columns that are constant, tell the label or have swallowed rows; labels that stand in texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfdata.checkup.corpus import Corpus
from tfdata.checkup.finding import Finding, show
from tfdata.columns import find_columns
from tfdata.config import IngestConfig
from tfdata.open_quotes import OPEN_QUOTES_MEND, describe_open_quotes
from tfdata.read import column_as_text, decode_texts, list_files, read_table_batches

_MOST_VALUES = 100_000
_LEAST_PURE = 0.99
_LEAST_ROWS = 20
_LABEL_SAMPLE = 2_000


def check_open_quotes(places: Sequence[str], num_rows: int) -> list[Finding]:
    """The finding `open_quotes`, of ReadCounts.open_quotes."""
    if not places:
        return []
    return [
        Finding(
            name="open_quotes", severity="high", count=len(places), of=num_rows,
            title=describe_open_quotes(places), examples=tuple(show(place) for place in places[:2]),
            effect="All these lines are one text or label; whole classes can be missing.",
            mend=OPEN_QUOTES_MEND,
        )
    ]  # fmt: skip


def check_columns(inputs: Sequence[Path], config: IngestConfig) -> list[Finding]:
    """The findings `constant_columns` and `leaking_columns`, over all rows of all files.

    A column leaks where its values tell the label of 99 % of the rows, and are fewer than half as
    many as the rows.

    Raises:
      UserError: a file cannot be read.
    """
    pairs: dict[str, list[pa.Table]] = {}
    for path in inputs:
        for file in list_files(path, config.format):
            for name, table in _read_pairs(file, config):
                pairs.setdefault(name, []).append(table)
    constant, leaking = [], []
    for name, tables in pairs.items():
        table = _count(pa.concat_tables(tables))
        values = pc.count_distinct(table["value"], mode="all").as_py()
        num_rows = pc.sum(table["rows"]).as_py()
        if values == 1:
            constant.append(f"{show(name, 40)}: always {show(table['value'][0].as_py(), 60)}")
            continue
        best = table.group_by("value").aggregate([("rows", "max")])
        pure = pc.sum(best["rows_max"]).as_py() / num_rows
        by_label = table.group_by("label").aggregate([("rows", "sum")])
        usual = pc.max(by_label["rows_sum"]).as_py() / num_rows
        if values <= num_rows / 2 and num_rows >= _LEAST_ROWS and pure >= _LEAST_PURE > usual:
            leaking.append(
                f"{show(name, 40)}: {values:,} values tell the label of {pure:.1%} of the rows, "
                f"such as {show(table['value'][0].as_py(), 30)} → "
                f"{show(table['label'][0].as_py(), 30)}"
            )
    found = []
    if constant:
        found.append(
            Finding(
                name="constant_columns", severity="low", count=len(constant), of=len(pairs),
                title=f"{len(constant)} columns have one value in every row",
                examples=tuple(constant[:2]), effect="None here: only the text is read.",
                mend="nothing to do; as --text such a column would teach nothing",
            )
        )  # fmt: skip
    if leaking:
        found.append(
            Finding(
                name="leaking_columns", severity="low", count=len(leaking), of=len(pairs),
                title=f"{len(leaking)} columns tell the label",
                examples=tuple(leaking[:2]),
                effect="None as long as they stay out of the text: only the text is read.",
                mend="do not join them to the text, unless they are known before the label is",
            )
        )  # fmt: skip
    return found


def _read_pairs(file: Path, config: IngestConfig) -> list[tuple[str, pa.Table]]:
    """For each column beside text and label its (value, label) pairs; ids are left out."""
    names, batches = read_table_batches(file, config.format, config.delimiter, config.skip_bad_rows)
    if len(names) <= 2:
        return []
    text, label = find_columns(names, config.text, config.label, source=file)
    assert label is not None
    found: dict[str, pa.Table] = {}
    dropped = {text, label}
    for batch in batches:
        labels = decode_texts(column_as_text(batch, label, {}, file))[0]
        for name in batch.schema.names:
            if name in dropped or pa.types.is_nested(batch.schema.field(name).type):
                continue
            values = decode_texts(column_as_text(batch, name, {}, file))[0]
            rows = pa.array(np.ones(len(batch), np.int64))
            table = pa.table({"value": values, "label": labels, "rows": rows})
            found[name] = _count(pa.concat_tables([table, *filter(None, [found.get(name)])]))
            if len(found[name]) > _MOST_VALUES:
                del found[name]
                dropped.add(name)
    return list(found.items())


def _count(table: pa.Table) -> pa.Table:
    """Equal pairs made one, with the sum of their rows."""
    grouped = table.group_by(["value", "label"]).aggregate([("rows", "sum")])
    return grouped.rename_columns(["value", "label", "rows"])


def check_label_in_text(corpus: Corpus) -> list[Finding]:
    """The finding `label_in_text`: classes most of whose texts hold their label, and few others."""
    random = np.random.default_rng(0)
    order = np.argsort(corpus.codes, kind="stable")
    counts = np.bincount(corpus.codes, minlength=len(corpus.labels))
    ends = np.cumsum(counts)
    others = np.sort(random.permutation(len(corpus))[:_LABEL_SAMPLE])
    other_texts = corpus.texts.take(others)
    told: list[tuple[int, int]] = []
    for code, label in enumerate(corpus.labels):
        if counts[code] < _LEAST_ROWS or len(label) < 3:
            continue
        pattern = rf"(^|[^\pL\pN]){re.escape(label)}($|[^\pL\pN])"
        own = corpus.texts.take(order[ends[code] - counts[code] : ends[code]])
        num_own = _num_matching(own, pattern)
        if num_own < 0.5 * counts[code]:
            continue
        foreign = other_texts.filter(pa.array(corpus.codes[others] != code))
        if _num_matching(foreign, pattern) <= 0.05 * len(foreign):
            told.append((code, num_own))
    if not told:
        return []
    rows = sum(num for _, num in told)
    return [
        Finding(
            name="label_in_text",
            severity="high" if rows >= 0.2 * len(corpus) else "medium",
            title=f"{len(told):,} classes write their label into most of their texts",
            count=len(told),
            of=len(corpus.labels),
            examples=tuple(
                f"{show(corpus.labels[code], 40)}: in {num:,} of its {counts[code]:,} texts"
                for code, num in told[:2]
            ),
            effect=f"{rows:,} texts hold the answer. If texts to come do not, the score is far too "
            "good.",
            figures={"rows": rows},
            mend="take the label out of the texts, unless texts to come hold it too",
        )
    ]


def _num_matching(texts: pa.ChunkedArray, pattern: str) -> int:
    found = pc.match_substring_regex(texts, pattern, ignore_case=True)
    return pc.sum(found).as_py() or 0
