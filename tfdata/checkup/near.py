"""Texts that are almost the same: found by MinHash, confirmed by edit distance.

MinHash (Broder 1997) over words and pairs of words, in bands: texts that agree in a band are
compared, and counted where their Levenshtein similarity is .9 or more. Legend: D distinct texts,
S shingles of all of them one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfdata.checkup.corpus import Corpus
from tfdata.checkup.finding import Finding, grade, show
from tfdata.checkup.words import mix, take_ranges
from tfdata.split import TRAIN

SIMILAR = 0.9
"""1 - edits / length of the longer text."""
_BAND_ROWS = (3, 6) * 8
"""Hashes of each band: three find what is near, six what is nearest among much that is near."""
_THREADS = 2
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
        classes, sides = _Runs(keys, codes), _Runs(keys, held)
        for _ in range(_DRAWS):
            _confirm(corpus, rows, found.within, classes.draw(random, same=True))
            _confirm(corpus, rows, found.across, classes.draw(random, same=False))
            trained = np.where(held == 1, sides.draw(random, same=False), -1)
            _confirm(corpus, rows, found.leaking, trained)
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
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    done = np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), 65_536):
        part = slice(start, start + 65_536)
        done[part] = process.cpdist(
            corpus.joined.take(rows[part]).to_pylist(),
            corpus.joined.take(others[part]).to_pylist(),
            scorer=Levenshtein.normalized_similarity,
            score_cutoff=SIMILAR,
            workers=_THREADS,
            dtype=np.float32,
        )
    return done


def _band_keys(corpus: Corpus, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The key uint64[D] of each distinct text in each band; texts without words have their own."""
    words = corpus.words
    lengths = words.lengths[rows]
    ids = take_ranges(words.ids, words.offsets[rows], lengths).astype(np.uint64)
    filled = np.flatnonzero(lengths)
    ends = np.cumsum(lengths)[filled]
    starts = ends - lengths[filled]
    pairs = ids * np.uint64(0x9E3779B97F4A7C15)
    pairs[:-1] += ids[1:]
    pairs[ends - 1] = ids[ends - 1]  # no word follows
    single, pairs = (mix(x).astype(np.uint32) for x in (ids + np.uint64(1 << 40), pairs))
    random = np.random.default_rng(0)
    for num_rows in _BAND_ROWS:
        keys = np.arange(len(rows), dtype=np.uint64) | np.uint64(1 << 63)
        key = np.zeros(len(filled), np.uint64)
        for salt in random.integers(1, 2**32, num_rows, dtype=np.uint32) | np.uint32(1):
            lowest = np.minimum(single * salt, pairs * salt)
            if len(filled):
                key = mix(key + np.minimum.reduceat(lowest, starts))
        keys[filled] = key >> np.uint64(1)
        yield keys


class _Runs:
    """Texts sorted by key, and by group within a key."""

    def __init__(self, keys: np.ndarray, groups: np.ndarray):
        self._order = np.lexsort((groups, keys))
        ordered, grouped = keys[self._order], groups[self._order]
        new_key = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        new_group = new_key | np.concatenate([[True], grouped[1:] != grouped[:-1]])
        self._key, self._group = _bounds(new_key), _bounds(new_group)

    def draw(self, random: np.random.Generator, same: bool) -> np.ndarray:
        """For each text a random other one of its key: int64[D], -1 where there is none.

        The other one is of the `same` group, or else of another.
        """
        order, (low, high), (group_low, group_high) = self._order, self._key, self._group
        size = group_high - group_low
        if same:
            places = np.arange(len(order))
            step = 1 + (random.random(len(order)) * (size - 1)).astype(np.int64)
            chosen = group_low + (places - group_low + step) % size
            exists = size > 1
        else:
            others = high - low - size
            drawn = low + (random.random(len(order)) * others).astype(np.int64)
            chosen = np.where(drawn < group_low, drawn, drawn + size)
            exists = others > 0
        partners = np.full(len(order), -1, np.int64)
        partners[order[exists]] = order[chosen[exists]]
        return partners


def _bounds(is_first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each place the start and the end of its run."""
    starts = np.flatnonzero(is_first)
    lengths = np.diff(starts, append=len(is_first))
    return np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)


def check_near(corpus: Corpus, near: NearTexts) -> list[Finding]:
    """The findings `near_leaks`, `near_contradictions` and `near_duplicates`."""
    num_held = int((corpus.parts[corpus.first_rows] != TRAIN).sum())
    num_texts = len(corpus.first_rows)
    how = f"edit distance at most {1 - SIMILAR:.0%} of the length"
    found = [
        _finding(
            corpus, near.leaking, num_held, "near_leaks", (0.5, 0.1),
            f"at least {{count:,}} of {num_held:,} texts that validate or test have a near copy in "
            f"training ({how})",
            "Scores on them tell little about texts that are really new.",
            "for a stricter figure, keep later or other sources of texts in a file for --test FILE",
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
