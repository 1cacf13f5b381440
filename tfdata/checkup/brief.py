"""The short form, at the start of a training: what ingest counted, and a bounded sample.

It costs the same however large the data: at most 1,000 held-out texts and 10,000 of training are
read.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfdata.checkup.classes import FEW, UNKNOWN, UNKNOWN_WORDS, mend_unknown_words
from tfdata.checkup.columns import check_open_quotes
from tfdata.checkup.corpus import Corpus
from tfdata.checkup.duplicates import mend_duplicates
from tfdata.checkup.finding import Finding, grade, show
from tfdata.checkup.near import find_near_leaks, mend_near_leaks
from tfdata.checkup.order import TITLES
from tfdata.config import IngestConfig
from tfdata.label_order import Drift
from tfdata.shards import ShardSet, read_batches
from tfdata.split import PARTS, TRAIN

_HELD_DOCS, _TRAIN_DOCS = 1_000, 10_000
_SAMPLE_BYTES = 3 << 20
"""Of training texts, where those are long."""
_LEAST_CUT = 0.02


def check_briefly(
    shard_set: ShardSet, max_len: int, config: IngestConfig | None = None
) -> list[Finding]:
    """Findings on a shard set, those that cost seconds left out.

    Args:
      max_len: tokens kept of a text.
      config: how ingest made it.
    """
    config = config or IngestConfig()
    counts = shard_set.counts
    found = [
        *check_open_quotes(counts.get("open_quotes", ()), counts.get("rows_read", 0)),
        _check_order(shard_set), _check_both_sides(shard_set), _check_labels(shard_set),
        _check_duplicates(shard_set, config), _check_small(shard_set), _check_held_out(shard_set),
        _check_lengths(shard_set, max_len),
    ]  # fmt: skip
    sample = _read_sample(shard_set)
    if sample is not None:
        found.append(_check_words(shard_set, sample))
        if importlib.util.find_spec("rapidfuzz") is not None:
            found.append(_check_near(sample, config))
    return [finding for finding in found if finding is not None]


def _num_docs(shard_set: ShardSet) -> int:
    return sum(map(shard_set.num_docs, PARTS))


def _check_order(shard_set: ShardSet) -> Finding | None:
    figures = dict(shard_set.counts.get("order") or {})
    drift = Drift(**figures) if figures else None
    if drift is None or drift.kind is None:
        return None
    num_docs = _num_docs(shard_set)
    mend = "shuffled globally here, so nothing to do; elsewhere, shuffle before splitting"
    if drift.kind == "drifting":
        mend = (
            "shuffled globally here; if the order is that of time, --split time --time COL gives "
            "the figure to expect of new texts"
        )
    return Finding(
        name="order", severity="medium", count=num_docs, of=num_docs,
        title=TITLES[drift.kind].format(**vars(drift)),
        effect="Whoever splits or batches in this order sees high training and low validation "
        "accuracy.",
        figures=figures, mend=mend,
    )  # fmt: skip


def _check_both_sides(shard_set: ShardSet) -> Finding | None:
    count = shard_set.counts.get("texts_on_both_sides", 0)
    held = shard_set.num_docs("valid") + shard_set.num_docs("test")
    if not count or not held:
        return None
    return Finding(
        name="leaks", severity=grade(count / held, 0.05, 0.005), count=count, of=held,
        title=f"{count:,} texts of the training part are also in the --valid or --test file",
        effect="Scores on them are scores of memory.",
        mend="take them out of one of the files, or let --valid 0.1 split all of them by text",
    )  # fmt: skip


def _check_labels(shard_set: ShardSet) -> Finding | None:
    count, num_docs = shard_set.counts.get("texts_with_several_labels", 0), _num_docs(shard_set)
    if not count:
        return None
    return Finding(
        name="contradictions", severity=grade(count / num_docs, 0.05, 0.005), count=count,
        of=num_docs, title=f"{count:,} texts stand under several labels",
        effect="No model can be right on all of them.",
        mend="give every text one label; python -m tfdata.doctor lists the pairs",
    )  # fmt: skip


def _check_duplicates(shard_set: ShardSet, config: IngestConfig) -> Finding | None:
    count, num_docs = shard_set.counts.get("duplicates", 0), _num_docs(shard_set)
    if not count:
        return None
    return Finding(
        name="duplicates", severity=grade(count / num_docs, 0.25, 0.05), count=count, of=num_docs,
        title=f"{count:,} documents repeat the text and label of another",
        effect="Split row by row, validation would be a test of memory.",
        mend=mend_duplicates(config),
    )  # fmt: skip


def _check_small(shard_set: ShardSet) -> Finding | None:
    small = np.flatnonzero(shard_set.label_counts < FEW)
    if not len(small):
        return None
    num_classes = len(shard_set.label_counts)
    return Finding(
        name="small_classes", severity=grade(len(small) / num_classes, 0.25, 0.05),
        count=len(small), of=num_classes,
        title=f"{len(small):,} classes have fewer than {FEW} training documents",
        examples=tuple(show(shard_set.labels[code], 60) for code in small[:2]),
        effect="They weigh in macro-F1 like all others, and hardly in accuracy.",
        mend="merge them into wider labels, or collect more",
    )  # fmt: skip


def _check_held_out(shard_set: ShardSet) -> Finding | None:
    lacking, classes = shard_set.counts.get("classes_without_valid", 0), len(shard_set.labels)
    alike = shard_set.counts.get("one_group_classes", [])
    if not shard_set.num_docs("valid") or not (alike or shard_set.unseen_labels):
        return None
    title = f"{len(shard_set.unseen_labels):,} labels stand in validation or test alone"
    if alike:
        title = f"{len(alike):,} classes are one group of near copies each, and only train"
    return Finding(
        name="unjudged", severity="medium", count=len(alike or shard_set.unseen_labels), of=classes,
        title=title, examples=tuple(show(x, 60) for x in (alike or shard_set.unseen_labels)[:2]),
        effect=f"The score says nothing of the {lacking:,} classes without validation documents."
        if alike else "They are never learned, and count as wrong.",
        mend="--split random judges them, on near copies" if alike else "have them in training too",
    )  # fmt: skip


def _check_lengths(shard_set: ShardSet, max_len: int) -> Finding | None:
    counts = shard_set.length_counts
    num_docs, cut = int(counts.sum()), int(counts[max_len + 1 :].sum())
    if cut <= _LEAST_CUT * num_docs:
        return None
    lengths = np.arange(len(counts))
    words = float(np.maximum(lengths - max_len, 0) @ counts) / max(1, int(lengths @ counts))
    longest = int(np.searchsorted(np.cumsum(counts), 0.99 * num_docs))
    return Finding(
        name="max_len", severity=grade(words, 0.2, 0.05), count=cut, of=num_docs,
        title=f"{cut:,} training texts have more than the {max_len} tokens of --max-len",
        effect=f"{words:.1%} of all tokens are cut off.",
        mend=f"--max-len {longest} keeps 99 % of the texts whole",
    )  # fmt: skip


def _read_sample(shard_set: ShardSet) -> Corpus | None:
    """Some held-out documents and some of training; None where nothing is held out."""
    held = next((p for p in ("valid", "test") if shard_set.num_docs(p)), None)
    if held is None:
        return None
    texts, codes, parts = [], [], []
    for part, most in ((held, _HELD_DOCS), ("train", _TRAIN_DOCS)):
        some, labels = next(iter(read_batches(shard_set, part, batch_docs=most)))
        ends = np.cumsum(pc.binary_length(some).to_numpy(), dtype=np.int64)
        kept = max(1, int(np.searchsorted(ends, _SAMPLE_BYTES)))
        texts.append(some[:kept])
        codes.append(labels[:kept])
        parts.append(np.full(len(some[:kept]), PARTS.index(part), np.uint8))
    labels = (*shard_set.labels, *shard_set.unseen_labels)
    part_of = np.concatenate(parts)
    column = pa.chunked_array(texts, pa.string())
    how = map(shard_set.counted_with, ("filters", "unspaced"))
    return Corpus(column, np.concatenate(codes), labels, part_of, part_of, *how)


def _check_words(shard_set: ShardSet, sample: Corpus) -> Finding | None:
    if shard_set.tokenizer["tokenizer"] != "word":  # pieces of words are all known
        return None
    words = sample.words
    ids = words.ids[(sample.parts != TRAIN)[words.documents()]]
    known = pc.is_in(words.names, pa.array(shard_set.words, pa.string()))
    is_known = known.to_numpy(zero_copy_only=False)[ids]
    unknown = 1 - float(is_known.mean()) if len(ids) else 0.0
    if unknown < UNKNOWN:
        return None
    counts = np.bincount(ids[~is_known])
    commonest = np.argsort(-counts, kind="stable")[:3]
    return Finding(
        name="vocabulary", severity=grade(unknown, 0.15, UNKNOWN), count=int((~is_known).sum()),
        of=len(ids), title=f"{unknown:.0%} of the words in held-out texts are unknown",
        examples=tuple(show(words.names[int(word)].as_py(), 40) for word in commonest[:2]),
        effect=UNKNOWN_WORDS,
        mend=mend_unknown_words(len(shard_set.words), shard_set.tokenizer["vocab_size"]),
        sample=int((sample.parts != TRAIN).sum()),
    )  # fmt: skip


def _check_near(sample: Corpus, config: IngestConfig) -> Finding | None:
    held = int((sample.parts[sample.first_rows] != TRAIN).sum())
    count = int((find_near_leaks(sample) >= 0).sum())
    if count < max(2, 0.02 * held):
        return None
    return Finding(
        name="near_leaks", severity=grade(count / held, 0.5, 0.1), count=count, of=held,
        title=f"{count:,} of {held:,} held-out texts have a near copy among "
        f"{int((sample.parts == TRAIN).sum()):,} training texts, and more among all",
        effect="Scores on them tell little about texts that are really new.",
        mend=mend_near_leaks(config), sample=len(sample),
    )  # fmt: skip


def describe_briefly(findings: Iterable[Finding], most: int = 4) -> list[str]:
    """A line for each finding that matters, `most` at most."""
    told = [finding for finding in findings if finding.severity != "low"][:most]
    return [f"  {finding.title}: {finding.mend}" for finding in told]
