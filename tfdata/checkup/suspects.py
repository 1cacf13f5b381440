"""Likely label errors: confident learning on cross-validated probabilities.

Northcutt, Jiang and Chuang 2021 (arXiv:1911.00068): a document is suspected where the model is as
sure of another class as it is, on average, of that class's own documents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfdata.checkup.classifier import build_features, fit
from tfdata.checkup.corpus import Corpus
from tfdata.checkup.finding import Finding, grade, show
from tfdata.words import mix

_FOLDS = 4
_MOST_DOCS = 40_000
_LEAST_DOCS = 200
_CHUNK_DOCS = 4_096
_LEAST_MARGIN = 0.5
_LEAST_TEXTS = 5
"""Distinct texts of a class in the sample; of fewer, too few train to know the class again."""


@dataclass(frozen=True)
class Suspects:
    """Documents whose label the rest of the data speaks against, the surest first."""

    rows: np.ndarray
    """int64[n]"""
    codes: np.ndarray
    """int64[n]: the class that the model takes each for."""
    margins: np.ndarray
    """float32[n]: its probability less that of the label given."""
    sample: int
    """Documents looked at."""
    accuracy: float
    """Of the light classifier, cross-validated."""


def find_suspects(corpus: Corpus, most: int = _MOST_DOCS) -> Suspects | None:
    """Looks at a sample of at most `most` documents; None: too few to tell.

    Equal texts stand in the same fold, so that none speaks for itself.
    """
    if len(corpus) < _LEAST_DOCS or len(corpus.labels) < 2:
        return None
    random = np.random.default_rng(0)
    rows = np.sort(random.permutation(len(corpus))[:most])
    features = build_features(corpus.words, len(corpus.labels))[rows]
    codes = corpus.codes[rows]
    folds = mix(corpus.text_ids[rows].astype(np.uint64)) % np.uint64(_FOLDS)
    own = np.zeros(len(rows), np.float32)
    best = np.zeros(len(rows), np.int64)
    most_sure = np.zeros(len(rows), np.float32)
    models = [
        fit(features, codes, np.flatnonzero(folds != fold), len(corpus.labels))
        for fold in range(_FOLDS)
    ]
    for chunk in _chunks(folds):
        probabilities = models[int(folds[chunk[0]])].probabilities(features[chunk])
        own[chunk] = probabilities[np.arange(len(chunk)), codes[chunk]]
        best[chunk] = probabilities.argmax(axis=1)
        most_sure[chunk] = probabilities.max(axis=1)
    counts = np.bincount(codes, minlength=len(corpus.labels))
    usual = np.bincount(codes, own, len(counts)) / np.maximum(counts, 1)
    margins = most_sure - own
    pairs = np.unique(corpus.text_ids[rows].astype(np.int64) * len(counts) + codes)
    judged = np.bincount(pairs % len(counts), minlength=len(counts)) >= _LEAST_TEXTS
    suspected = (best != codes) & (most_sure >= usual[best]) & (margins >= _LEAST_MARGIN)
    suspected &= judged[codes]
    found = np.flatnonzero(suspected)
    found = found[np.argsort(-margins[found], kind="stable")]
    accuracy = float((best == codes).mean())
    return Suspects(rows[found], best[found], margins[found], len(rows), accuracy)


def _chunks(folds: np.ndarray) -> list[np.ndarray]:
    chunks = []
    for fold in range(_FOLDS):
        members = np.flatnonzero(folds == fold)
        chunks += [members[i : i + _CHUNK_DOCS] for i in range(0, len(members), _CHUNK_DOCS)]
    return chunks


def check_labels(corpus: Corpus, suspects: Suspects) -> list[Finding]:
    """The finding `label_errors`."""
    count = len(suspects.rows)
    if not count:
        return []
    shown = dict.fromkeys(  # of equal rows one
        f"{show(corpus.label(row), 30)}, rather {show(corpus.labels[code], 30)}: "
        f"{show(corpus.text(row), 80)}"
        for row, code in zip(suspects.rows[:99], suspects.codes[:99], strict=True)
    )
    examples = list(shown)[:2]
    share = count / suspects.sample
    return [
        Finding(
            name="label_errors",
            severity=grade(share, 0.1, 0.02),
            title=f"{count:,} of {suspects.sample:,} labels are likely wrong, or their classes "
            "overlap",
            count=count,
            of=suspects.sample,
            examples=tuple(examples),
            effect=f"If all of them are wrong, a right model is still counted wrong on {share:.1%}"
            " of the validation rows.",
            figures={"accuracy": suspects.accuracy, "about_in_all": share * len(corpus)},
            mend="look at the surest in the file of --suspects FILE and correct the labels; "
            "label smoothing, which training has by default, makes it mind the rest less",
            sample=suspects.sample if suspects.sample < len(corpus) else None,
        )
    ]
