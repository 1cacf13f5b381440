"""What an ingest found: as counts for the manifest, and as lines to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from shortline import printable
from tfdata.open_quotes import warn_of_open_quotes
from tfdata.pool import Pool
from tfdata.shards import PARTS, ShardSet
from tfdata.split import TRAIN, VALID, SplitCounts

_MOST_NAMED = 20
_NOTES = {
    "dropped_null_text": "rows dropped: they have no text",
    "dropped_null_label": "rows dropped: they have no label",
    "bad_rows": "rows skipped: they do not parse",
    "invalid_utf8": "documents with invalid UTF-8, replaced by U+FFFD",
    "empty_text": "documents with an empty text, kept",
    "duplicates": "documents repeat the text and label of another",
    "texts_with_several_labels": "texts stand under several labels",
    "texts_kept_in_training": "texts train because their labels or their number forbid a split",
    "texts_on_both_sides": "texts of the training part are also in your --valid or --test file",
    "near_groups": "groups of near copies, each kept on one side",
    "near_texts": "texts are in such groups",
    "largest_near_group": "of them in the largest group",
    "near_groups_kept_in_training": "groups or texts train because their labels or their number "
    "forbid a split",
    "near_groups_on_both_sides": "groups of near copies, or texts, of the training part are also "
    "in your --valid or --test file",
    "texts_that_recur": "texts of the training part come again in a newer one",
    "without_time": "documents have no time, and train",
    "classes_without_valid": "classes have no validation documents",
}
_NAMED_NOTES = {
    "bigger_classes_without_valid": "of them have three documents or more",
    "one_text_classes": "classes repeat one single text, which trains",
    "one_group_classes": "classes are one group of near copies each, which trains",
}


def collect_counts(pool: Pool, found: SplitCounts) -> dict[str, Any]:
    """What ingest read, dropped, replaced and found."""
    counts = dataclasses.asdict(pool.counts)
    del counts["bytes_read"], counts["time_kinds"]
    counts["columns"] = sorted(map(list, pool.counts.columns))
    for name in (
        "duplicates",
        "texts_with_several_labels",
        "texts_kept_in_training",
        "texts_on_both_sides",
    ):
        counts[name] = getattr(found, name)
    counts |= found.by
    docs = found.part_docs
    lacking = np.flatnonzero((docs[:, TRAIN] > 0) & (docs[:, VALID] == 0))
    counts["classes_without_valid"] = len(lacking)
    counts["bigger_classes_without_valid"] = sorted(
        pool.labels[code] for code in lacking if docs[code].sum() >= 3
    )
    counts["one_text_classes"] = sorted(pool.labels[code] for code in found.one_text_codes)
    counts["one_group_classes"] = sorted(pool.labels[code] for code in found.one_group_codes)
    drift = pool.order.measure()
    counts["order"] = {} if drift is None else dataclasses.asdict(drift)
    return counts


def summarize(shard_set: ShardSet) -> str:
    """A few lines; nothing that was dropped or changed is left out."""
    counts, labels, sizes = shard_set.counts, shard_set.labels, shard_set.label_counts
    columns = "; ".join(f"text `{text}`, label `{label}`" for text, label in counts["columns"])
    lines = [
        f"columns: {printable(columns)}",
        f"{counts['rows_read']:,} rows read, {counts['rows_kept']:,} documents kept: "
        + ", ".join(f"{shard_set.num_docs(part):,} {part}" for part in PARTS),
        f"{len(labels):,} classes, from {sizes[0]:,} ({printable(labels[0], 40)}) down to "
        f"{sizes[-1]:,} ({printable(labels[-1], 40)}) training documents",
    ]
    if counts.get("open_quotes"):
        lines.append(warn_of_open_quotes(counts["open_quotes"]))
    lines += [f"{counts[name]:,} {what}" for name, what in _NOTES.items() if counts.get(name)]
    named = {what: counts.get(name, []) for name, what in _NAMED_NOTES.items()}
    named["labels stand in validation or test alone; they are never learned"] = (
        shard_set.unseen_labels
    )
    if not shard_set.num_docs("valid"):  # asked for, so no news
        lines = [line for line in lines if _NOTES["classes_without_valid"] not in line]
        del named[_NAMED_NOTES["bigger_classes_without_valid"]]
    lines += [f"{len(some):,} {what}: {_listed(some)}" for what, some in named.items() if some]
    return "\n".join(lines)


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(printable(label, 40) for label in labels[:_MOST_NAMED])
    return shown + (", ..." if len(labels) > _MOST_NAMED else "")
