"""Texts that are almost the same: found by MinHash, confirmed by edit distance.

Texts that agree in a band are compared, and counted where their Levenshtein similarity is .9 or
more. Legend: D distinct texts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfdata.checkup.corpus import Corpus
from tfdata.checkup.finding import Finding, grade, show
from tfdata.config import IngestConfig
from tfdata.minhash import SIMILAR, Runs, band_keys, compare_texts
from tfdata.split import TRAIN
from tfdata.words import mix, take_ranges

_DRAWS = 2
"""Partners of a text that are tried in a band."""


@dataclass(frozen=True)
class NearTexts:
    """For each distinct text a row of the corpus that is almost the same; -1: none found."""

    within: np.ndarray
    """int64[D]: of the same class."""
    across: np.ndarray
    """int64[D]: of another class."""
    leaking: np.ndarray
    """int64[D]: in training, of a text that validates or tests."""


def find_near(corpus: Corpus) -> NearTexts:
    """Looks for a near copy of every distinct text.

    Nearly all are found where a text has few, some four fifths among thousands from one template.
    """
    rows = corpus.first_rows
    codes = corpus.codes[rows].astype(np.int64)
    held = (corpus.parts[rows] != TRAIN).astype(np.int64)
    found = NearTexts(*(np.full(len(rows), -1, np.int64) for _ in range(3)))
    random = np.random.default_rng(0)
    for keys in _band_keys(corpus, rows):
        classes, sides = Runs(keys, codes), Runs(keys, held)
        for _ in range(_DRAWS):
            _confirm(corpus, rows, found.within, classes.draw(random, same=True))
            _confirm(corpus, rows, found.across, classes.draw(random, same=False))
            trained = np.where(held == 1, sides.draw(random, same=False), -1)
            _confirm(corpus, rows, found.leaking, trained)
    return found


def find_near_leaks(corpus: Corpus) -> np.ndarray:
    """Of `find_near` what leaks alone: int64[D]."""
    rows = corpus.first_rows
    held = (corpus.parts[rows] != TRAIN).astype(np.int64)
    found = np.full(len(rows), -1, np.int64)
    random = np.random.default_rng(0)
    for keys in _band_keys(corpus, rows):
        sides = Runs(keys, held)
        for _ in range(_DRAWS):
            trained = np.where(held == 1, sides.draw(random, same=False), -1)
            _confirm(corpus, rows, found, trained)
    return found


def _confirm(corpus: Corpus, rows: np.ndarray, known: np.ndarray, partners: np.ndarray) -> None:
    """Notes the partners that are near enough, of texts for which none is known yet."""
    asked = np.flatnonzero((known < 0) & (partners >= 0))
    if not len(asked):
        return
    others = rows[partners[asked]]
    near = similarity(corpus, rows[asked], others) >= SIMILAR
    known[asked[near]] = others[near]


def similarity(corpus: Corpus, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float32[n]: 1 - Levenshtein distance / length of the longer, 0 where it is below .9."""
    done = np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), 65_536):
        part = slice(start, start + 65_536)
        one, other = (corpus.joined.take(some[part]).to_pylist() for some in (rows, others))
        done[part] = compare_texts(one, other)
    return done


def _band_keys(corpus: Corpus, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The key uint64[D] of each distinct text in each band."""
    words = corpus.words
    lengths = words.lengths[rows]
    ids = take_ranges(words.ids, words.offsets[rows], lengths)
    return band_keys(mix(ids.astype(np.uint64)), lengths)


def mend_near_leaks(config: IngestConfig) -> str:
    """What parts near copies that training and held-out documents share."""
    if not config.has_shares:
        return (
            "for a stricter figure give all files as one, and let --valid 0.1 --split group keep "
            "near copies on one side"
        )
    mend = "--split group keeps near copies on one side, for a stricter figure"
    if config.split == "group":
        mend = "nothing more: near copies that were found stand on one side already"
    return mend + ("; those in a --valid or --test file stay there" if config.has_files else "")


def check_near(
    corpus: Corpus, near: NearTexts, config: IngestConfig | None = None
) -> list[Finding]:
    """The findings `near_leaks`, `near_contradictions` and `near_duplicates`."""
    config = config or IngestConfig()
    num_held = int((corpus.parts[corpus.first_rows] != TRAIN).sum())
    num_texts = len(corpus.first_rows)
    how = f"edit distance at most {1 - SIMILAR:.0%} of the length"
    found = [
        _finding(
            corpus, near.leaking, num_held, "near_leaks", (0.5, 0.1),
            f"at least {{count:,}} of {num_held:,} texts that validate or test have a near copy in "
            f"training ({how})",
            "Scores on them tell little about texts that are really new.",
            mend_near_leaks(config),
        ),
        _finding(
            corpus, near.across, num_texts, "near_contradictions", (0.2, 0.02),
            f"at least {{count:,}} distinct texts have a near copy under another label ({how})",
            "Either a word or two tell these classes apart, or some of the labels are wrong; "
            "confusions gather here.",
            "look at the pairs: correct what is wrong; if words of little weight tell the classes "
            "apart, a larger --vocab-size keeps them",
        ),
        _finding(
            corpus, near.within, num_texts, "near_duplicates", (2, 0.3),
            f"at least {{count:,}} distinct texts have a near copy under the same label ({how})",
            "The texts are fewer than they look: scores vary more than the number of rows tells.",
            "nothing to do, unless copies come from a fault",
        ),
    ]  # fmt: skip
    return [finding for finding in found if finding is not None]


def _finding(
    corpus: Corpus, partners: np.ndarray, of: int, name: str, grades: tuple[float, float],
    title: str, effect: str, mend: str,
) -> Finding | None:  # fmt: skip
    texts = np.flatnonzero(partners >= 0)
    if not len(texts):
        return None
    examples = []
    for text in texts[[0, len(texts) // 2]][: len(texts)]:
        one, other = int(corpus.first_rows[text]), int(partners[text])
        labels = dict.fromkeys(show(corpus.label(row), 30) for row in (one, other))
        told = _where_they_differ(corpus.text(one), corpus.text(other))
        examples.append(f"{' / '.join(labels)}: {told[0]} ~ {told[1]}")
    count = len(texts)
    return Finding(
        name=name, severity=grade(count / of, *grades), title=title.format(count=count),
        count=count, of=of, examples=tuple(examples), effect=effect, mend=mend,
        figures={"similarity": SIMILAR},
    )  # fmt: skip


def _where_they_differ(one: str, other: str) -> tuple[str, str]:
    """Both texts from a little before their first difference."""
    pairs = enumerate(zip(one, other, strict=False))
    first = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    start = max(0, first - 30)
    dots = "…" if start else ""
    return dots + show(one[start:], 60), dots + show(other[start:], 60)
