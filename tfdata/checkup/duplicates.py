"""Texts that stand there more than once: under one label, under two, on both sides of the split."""

from __future__ import annotations

import numpy as np

from tfdata.checkup.corpus import Corpus
from tfdata.checkup.finding import Finding, grade, show
from tfdata.config import IngestConfig
from tfdata.split import PARTS, TEST, TRAIN, VALID


def check_duplicates(corpus: Corpus, config: IngestConfig | None = None) -> list[Finding]:
    """The finding `duplicates`: rows whose text and label an earlier row has."""
    config = config or IngestConfig()
    pairs, firsts, times = np.unique(_pairs(corpus), return_index=True, return_counts=True)
    count = len(corpus) - len(pairs)
    if not count:
        return []
    copies = np.bincount(corpus.text_ids)
    others = copies[corpus.text_ids] - 1
    seen = float((1 - 0.1**others).mean())
    commonest = np.argsort(-times, kind="stable")[:2]
    return [
        Finding(
            name="duplicates",
            severity=grade(count / len(corpus), 0.25, 0.05),
            title=f"{count:,} rows repeat the text and label of an earlier row",
            count=count,
            of=len(corpus),
            examples=tuple(
                f"{times[i]:,} times: {_line(corpus, int(firsts[i]))}"
                for i in commonest
                if times[i] > 1
            ),
            effect=f"Split row by row, {seen:.0%} of the validation rows would have their very "
            "text in training, and the score would be one of memory.",
            figures={"distinct_texts": len(copies), "seen_if_split_by_row": seen},
            mend=f"{mend_duplicates(config)}; drop copies only if they come from a fault, not if "
            "they come from life",
        )
    ]


def mend_duplicates(config: IngestConfig) -> str:
    """What to do about copies, which only --split random and group keep on one side."""
    if config.split == "time":
        return "split by time here, so a newer copy may validate or test"
    if not config.has_files:
        return "split by text here, so nothing to do"
    return "copies stay in the files that hold them; what else is split is split by text"


def check_contradictions(corpus: Corpus) -> list[Finding]:
    """The finding `contradictions`: rows whose text stands under another label too."""
    pairs, times = np.unique(_pairs(corpus), return_counts=True)
    texts = pairs // len(corpus.labels)
    num_labels = np.bincount(texts)
    contrary = np.flatnonzero(num_labels > 1)
    if not len(contrary):
        return []
    count = int(np.isin(corpus.text_ids, contrary).sum())
    most = np.maximum.reduceat(times, np.flatnonzero(np.diff(texts, prepend=-1)))
    best = most.sum() / len(corpus)
    copies = np.bincount(corpus.text_ids)
    shown = contrary[np.argsort(-copies[contrary], kind="stable")[:2]]
    return [
        Finding(
            name="contradictions",
            severity=grade(1 - best, 0.05, 0.01),
            title=f"{count:,} rows have a text that also stands under another label: "
            f"{len(contrary):,} texts",
            count=count,
            of=len(corpus),
            examples=tuple(_contradiction(corpus, text) for text in shown),
            effect=f"No model can be right on more than {best:.2%} of the rows: "
            f"{len(corpus) - most.sum():,} rows are not of their text's commonest label.",
            figures={"texts": len(contrary), "best_accuracy": best},
            mend="give every text one label, or the two labels one name; until then these texts "
            "train and do not validate, but for those of a --valid FILE",
        )
    ]


def check_leaks(corpus: Corpus) -> list[Finding]:
    """The finding `leaks`: rows whose very text trains, or validates before they test."""
    earliest = np.full(int(corpus.text_ids.max()) + 1, TEST, np.uint8)
    np.minimum.at(earliest, corpus.text_ids, corpus.parts)
    held = corpus.parts != TRAIN
    leaked = np.flatnonzero(earliest[corpus.text_ids] < corpus.parts)
    if not len(leaked):
        return []
    by_part = {PARTS[p]: int((corpus.parts[leaked] == p).sum()) for p in (VALID, TEST)}
    told = " and ".join(
        f"{n:,} of {(corpus.parts == PARTS.index(part)).sum():,} rows of {part}"
        for part, n in by_part.items()
        if n
    )
    own = len(np.unique(corpus.text_ids[leaked]))
    return [
        Finding(
            name="leaks",
            severity=grade(len(leaked) / held.sum(), 0.05, 0.005),
            title=f"{told} have a text that stands in an earlier part too ({own:,} texts)",
            count=len(leaked),
            of=int(held.sum()),
            examples=tuple(_line(corpus, row) for row in _distinct(corpus, leaked)[:2]),
            effect="Scores on these rows are scores of memory: the figure is too good by the "
            "share of them that a model would get wrong on new texts.",
            figures={f"leaked_{part}": n for part, n in by_part.items()},
            mend="take these rows out of one of the files; or give all files as DATA and let "
            "--valid 0.1 --test 0.1 split them by text",
        )
    ]


def _pairs(corpus: Corpus) -> np.ndarray:
    """int64[B]: a number for text and label together."""
    return corpus.text_ids.astype(np.int64) * len(corpus.labels) + corpus.codes


def _distinct(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """The first row of each text among `rows`."""
    return rows[np.sort(np.unique(corpus.text_ids[rows], return_index=True)[1])]


def _line(corpus: Corpus, row: int | np.integer) -> str:
    return f"{show(corpus.label(row), 30)}: {show(corpus.text(row))}"


def _contradiction(corpus: Corpus, text: int) -> str:
    counts = np.bincount(corpus.codes[corpus.text_ids == text], minlength=len(corpus.labels))
    best = np.argsort(-counts, kind="stable")[:3]
    told = ", ".join(f"{show(corpus.labels[c], 30)} x{counts[c]:,}" for c in best if counts[c])
    return f"{told}: {show(corpus.text(corpus.first_rows[text]))}"
