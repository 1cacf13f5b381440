"""Which document trains, validates or tests: by the keyed hash of its text and nothing else.

So the split does not depend on the order of files and rows, identical texts never stand on two
sides, and memory is bounded: a sketch of each class gives it a range of hashes for validation and
one for test. A log on disk, grouped by hash, finds the texts whose several labels would pull
them to several sides; these train. Where near copies are to stand on one side too, their group has
one hash, which then stands for all of its texts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfdata.near_groups import NearGroups
from tfdata.sketch import ClassTexts, HashSketch, changes
from tfdata.split_log import HASH_SPACE, SplitLog

PARTS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)
_KEY = 0x73686F72746C696E


def hash_texts(texts: pa.Array, seed: int) -> np.ndarray:
    """SipHash of string[n], keyed by `seed`: uint64[n] below 2**62."""
    import tensorflow as tf

    from tfdata.encode import texts_to_tensor

    tensor = texts_to_tensor(texts)
    return (
        tf.strings.to_hash_bucket_strong(tensor, HASH_SPACE, [seed, _KEY]).numpy().astype(np.uint64)
    )


@dataclass(frozen=True)
class Split:
    """The finished rule. Hash ranges by class code, and the texts that the ranges do not decide."""

    valid_ranges: np.ndarray
    """uint64[C, 2]: hashes from the first up to, not with, the second validate."""
    test_ranges: np.ndarray
    to_train: np.ndarray
    """uint64, sorted: texts that train in any case."""
    to_valid: np.ndarray
    """uint64, sorted: texts that validate in any case."""
    groups: NearGroups | None = None
    """All hashes above are of groups where texts have one."""

    def parts(
        self,
        hashes: np.ndarray,
        codes: np.ndarray,
        sources: np.ndarray,
        times: np.ndarray | None = None,
    ) -> np.ndarray:
        """The part uint8[n] of each row; a row of a --valid or --test file keeps its source's."""
        if self.groups is not None:
            hashes = self.groups.of(hashes)
        parts = np.zeros(len(hashes), np.uint8)
        for part, ranges in ((VALID, self.valid_ranges), (TEST, self.test_ranges)):
            parts[(hashes >= ranges[codes, 0]) & (hashes < ranges[codes, 1])] = part
        parts[_contains(self.to_train, hashes)] = TRAIN
        parts[_contains(self.to_valid, hashes)] = VALID
        return np.where(sources > 0, sources, parts).astype(np.uint8)


@dataclass
class SplitCounts:
    """What the split found; codes are class codes."""

    part_docs: np.ndarray
    """int64[C, 3]: documents of each class in train, valid, test."""
    duplicates: int = 0
    """Documents whose text and label another document has too, the first not counted."""
    texts_with_several_labels: int = 0
    texts_kept_in_training: int = 0
    """Texts that their labels would have pulled to several sides, or too common to validate."""
    texts_on_both_sides: int = 0
    """Texts of the training part that a --valid or --test file holds too."""
    one_text_codes: list[int] = field(default_factory=list)
    """Classes of two or more documents that are all the same text."""
    by: dict[str, int] = field(default_factory=dict)
    """What only this way of splitting counts, by names of tfdata.summary."""
    one_group_codes: list[int] = field(default_factory=list)
    """Classes of several texts that are all near copies of each other, by chains."""


def _contains(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    if not len(ordered):
        return np.zeros(len(values), bool)
    return ordered[np.searchsorted(ordered, values).clip(max=len(ordered) - 1)] == values


class SplitBuilder:
    """Sees every document once through `add`, then `build` gives the rule."""

    def __init__(self, folder: Path, *, valid: float, test: float, sketch_size: int = 1024):
        self._shares = valid, test
        self._sketch = HashSketch(sketch_size)
        self._folder = folder
        self._log = SplitLog(folder)

    def add(
        self,
        hashes: np.ndarray,
        codes: np.ndarray,
        source: int = TRAIN,
        times: np.ndarray | None = None,
    ) -> None:
        """Takes in text hashes uint64[n] and class codes int32[n] of one source.

        Source 0 is to be split; rows of source VALID or TEST already belong there.
        """
        if source == TRAIN:
            self._sketch.add(codes, hashes)
        self._log.add(hash=hashes, code=codes, source=source)

    def build(self, num_classes: int) -> tuple[Split, SplitCounts]:
        """The rule, and what became of the documents under it."""
        classes = self._sketch.classes(num_classes)
        plans = [plan_class(texts, *self._shares) for texts in classes]
        ranges = np.array([p.ranges for p in plans], np.uint64).reshape(num_classes, 2, 2)
        most = np.array([p.most for p in plans], np.int64).reshape(num_classes, 2)
        counts = SplitCounts(np.zeros((num_classes, 3), np.int64))
        counts.one_text_codes = [
            code
            for code, texts in enumerate(classes)
            if texts.complete and len(texts.hashes) == 1 and texts.num_docs > 1
        ]
        none = np.empty(0, np.uint64)
        split = Split(ranges[:, 0], ranges[:, 1], to_train=none, to_valid=none)
        kept = []
        for rows in self._log.read():
            count_texts(rows, counts)
            kept.append(_group_log(rows, split, most, counts))
        split = replace(split, to_train=np.sort(np.concatenate(kept)))
        counts.texts_kept_in_training = len(split.to_train)
        sizes = np.array([texts.num_docs for texts in classes], np.int64)
        lacking = (counts.part_docs[:, VALID] == 0) & (sizes >= 3) & (self._shares[0] > 0)
        if lacking.any():
            split = replace(split, to_valid=self._mend(lacking, split, counts))
        return split, counts

    def build_by_group(self, num_classes: int, groups: NearGroups) -> tuple[Split, SplitCounts]:
        """The same rule for groups of near copies in the place of texts."""
        folder = self._folder / "groups"
        folder.mkdir()
        valid, test = self._shares
        inner = SplitBuilder(folder, valid=valid, test=test)
        found = SplitCounts(np.zeros((num_classes, 3), np.int64))
        texts_of_class = np.zeros(num_classes, np.int64)
        for rows in self._log.read():
            texts_of_class += count_texts(rows, found, num_classes)
            hashes = groups.of(rows["hash"])
            for source in (TRAIN, VALID, TEST):
                mine = rows["source"] == source
                inner.add(hashes[mine], rows["code"][mine], source)
        split, counts = inner.build(num_classes)
        several = texts_of_class > 1
        one_group = [code for code in counts.one_text_codes if several[code]]
        by = {
            "near_groups": len(groups),
            "near_texts": len(groups.hashes),
            "largest_near_group": groups.largest,
            "near_groups_kept_in_training": counts.texts_kept_in_training,
            "near_groups_on_both_sides": counts.texts_on_both_sides,
        }
        found = replace(
            found, part_docs=counts.part_docs, by=by, one_group_codes=one_group,
            one_text_codes=[code for code in counts.one_text_codes if not several[code]],
        )  # fmt: skip
        return replace(split, groups=groups), found

    def _mend(self, lacking: np.ndarray, split: Split, counts: SplitCounts) -> np.ndarray:
        """One text each, of no other class, for the classes without validation documents."""
        found = [_own_texts(rows, split, lacking) for rows in self._log.read()]
        codes, times, hashes, parts = (np.concatenate(c) for c in zip(*found, strict=True))
        spared = (parts == TEST) | (times < counts.part_docs[codes, TRAIN])
        codes, times, hashes, parts = (c[spared] for c in (codes, times, hashes, parts))
        order = np.lexsort((hashes, times, parts, codes))  # training's rarest text goes first
        best = order[changes(codes[order])]
        np.subtract.at(counts.part_docs, (codes[best], parts[best]), times[best])
        counts.part_docs[codes[best], VALID] += times[best]
        return np.sort(hashes[best])


def count_texts(rows: np.ndarray, counts: SplitCounts, num_classes: int = 0) -> np.ndarray:
    """Counts copies and contradictions in rows sorted by text; the texts int64[C] of each class."""
    if not len(rows):
        return np.zeros(num_classes, np.int64)
    new_text = changes(rows["hash"])
    new_pair = new_text | changes(rows["code"])
    counts.duplicates += len(rows) - int(new_pair.sum())
    labels = np.add.reduceat(new_pair.astype(np.int64), np.flatnonzero(new_text))
    counts.texts_with_several_labels += int((labels > 1).sum())
    return np.bincount(rows["code"][new_pair], minlength=num_classes)


def _group_log(rows: np.ndarray, split: Split, most: np.ndarray, counts: SplitCounts) -> np.ndarray:
    """Counts one file's documents by part, and gives the texts uint64 that must train."""
    hashes, codes, sources = rows["hash"], rows["code"], rows["source"]
    if not len(rows):
        return hashes
    own = sources == TRAIN
    wanted = split.parts(hashes, codes, np.zeros(len(rows), np.uint8))
    new_text = changes(hashes)
    new_pair = new_text | changes(codes)
    starts, pairs = np.flatnonzero(new_text), np.flatnonzero(new_pair)
    text_of_row = np.cumsum(new_text) - 1

    to_train = np.minimum.reduceat(np.where(own, wanted, 3), starts) < np.maximum.reduceat(
        np.where(own, wanted, 0), starts
    )
    docs_of_pair = np.add.reduceat(own.astype(np.int64), pairs)
    held_out = wanted[pairs] > 0
    allowed = most[codes[pairs], wanted[pairs].astype(int) - 1]
    to_train[text_of_row[pairs[held_out & (docs_of_pair > allowed)]]] = True

    final = np.where(own, np.where(to_train[text_of_row], TRAIN, wanted), sources)
    num_classes = len(counts.part_docs)
    cells = np.bincount(codes.astype(np.int64) * 3 + final, minlength=3 * num_classes)
    counts.part_docs += cells.reshape(num_classes, 3)
    trains = np.minimum.reduceat(final, starts) == TRAIN
    counts.texts_on_both_sides += int((trains & (np.maximum.reduceat(final, starts) > TRAIN)).sum())
    return hashes[starts[to_train]]


def _own_texts(
    rows: np.ndarray, split: Split, lacking: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(codes, documents, hashes, parts) of the texts that one `lacking` class alone has."""
    hashes, codes = rows["hash"], rows["code"]
    starts = np.flatnonzero(changes(hashes))
    if not len(rows):
        return codes, np.empty(0, np.int64), hashes, np.empty(0, np.uint8)
    times = np.diff(starts, append=len(rows))
    one_code = np.minimum.reduceat(codes, starts) == np.maximum.reduceat(codes, starts)
    all_own = np.maximum.reduceat(rows["source"], starts) == TRAIN
    parts = split.parts(hashes[starts], codes[starts], np.zeros(len(starts), np.uint8))
    chosen = one_code & all_own & lacking[codes[starts]]
    return codes[starts[chosen]], times[chosen], hashes[starts[chosen]], parts[chosen]


@dataclass(frozen=True)
class ClassPlan:
    """The hash ranges [from, to) of one class, and how many documents of one text each may get."""

    ranges: tuple[tuple[int, int], tuple[int, int]]
    most: tuple[int, int]


def plan_class(texts: ClassTexts, valid: float, test: float) -> ClassPlan:
    """Ranges that come nearest to the shares while a text, and so a document, is left to train.

    A class of three or more validates on at least one text, where it has two. Where the sketch
    does not reach, the share of the hash space is the range.
    """
    num_docs = texts.num_docs
    num_valid = max(int(num_docs * valid + 0.5), int(valid > 0 and num_docs >= 3))
    num_test = int(num_docs * test + 0.5)
    first = _run(texts.times, num_valid, texts.complete, spare=False)
    if first is None:
        stop = min(int(valid * HASH_SPACE), texts.highest)
        test_stop = max(stop, min(int((valid + test) * HASH_SPACE), texts.highest))
        return ClassPlan(((0, stop), (stop, test_stop)), (num_valid, num_test))
    after = first[1]
    second = _run(texts.times[after:], num_test, texts.complete, spare=first[0] > 0)
    valid_range = _hash_range(texts.hashes, *first)
    if second is not None:
        test_range = _hash_range(texts.hashes[after:], *second)
        return ClassPlan((valid_range, test_range), (HASH_SPACE, HASH_SPACE))
    start = valid_range[1]
    test_stop = max(start, min(start + int(test * HASH_SPACE), texts.highest))
    return ClassPlan((valid_range, (start, test_stop)), (HASH_SPACE, num_test))


def _run(times: np.ndarray, wanted: int, complete: bool, spare: bool) -> tuple[int, int] | None:
    """The run [start, stop) of texts whose documents come nearest to `wanted`; at least one text.

    It starts at the first text of no more than `wanted` documents. A text is left over unless
    there is one to `spare` already. None: beyond these texts, which are not the `complete` class.

    >>> _run(np.array([900, 3, 2, 95]), 100, complete=True, spare=False)
    (1, 4)
    """
    if wanted == 0 or (complete and len(times) + spare < 2):
        return 0, 0
    if complete or len(times):
        start = int(np.argmax(times <= max(wanted, times.min())))
        limit = len(times) - int(complete and start == 0 and not spare)
        sums = np.cumsum(times[start:limit])
        if complete or sums[-1] >= wanted:
            return start, start + 1 + int(np.argmin(np.abs(sums - wanted)))
    return None


def _hash_range(hashes: np.ndarray, start: int, stop: int) -> tuple[int, int]:
    return (int(hashes[start]), int(hashes[stop - 1]) + 1) if stop > start else (0, 0)
