"""A made-up corpus of the shape this project is for: skewed classes of near-identical texts.

Each class has a few templates of about 40 words in which a few slots vary. Every third class
takes its templates from the class before and changes two words, so telling these two apart hangs
on two words. A hundredth of the documents have a label that their text does not follow, and of
some twins the telling words are left out, so that no model can be right on all of them.

    python -m tfdata.synthetic corpus.parquet --docs 710900 --classes 60 --words 40
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tyro

from shortline import parse_flags, run_command, write_whole

_CHUNK_DOCS = 65_536
_NUM_NAMES, _NUM_WORDS = 24_000, 4_000
_MEAN_LENGTH, _LEAST_LENGTH = 40, 10
_WRONG_LABELS = 0.01
_UNTELLING = 0.02
_NOISELESS_DOCS = 50
"""Smaller classes have no wrong labels: there they would be the class."""
_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.string())])


@dataclass(frozen=True)
class _Template:
    """Words, with "" where a slot is filled for each document."""

    words: list[str]
    telling: tuple[int, ...] = ()
    """Positions of the words that tell a class from its twin."""


def write_corpus(
    path: Path,
    num_docs: int,
    num_classes: int = 60,
    seed: int = 0,
    order: Literal["random", "class"] = "random",
    mean_length: int = _MEAN_LENGTH,
) -> None:
    """Writes Parquet with the columns text and label; the same arguments give the same documents.

    `order="class"` writes class after class, as such data is often found, to show what that does.

    Args:
      mean_length: words of a text, about; the longest have 1.6 times as many.

    Raises:
      ValueError: fewer than two documents a class, or texts of fewer than ten words.
    """
    if mean_length < _LEAST_LENGTH:
        raise ValueError(f"texts of {mean_length} words: must be {_LEAST_LENGTH} or more")
    sizes = class_sizes(num_docs, num_classes)
    random = np.random.default_rng([seed, 0])
    words = _pseudo_words(_NUM_WORDS + _NUM_NAMES + num_classes, random)
    templates = _build_templates(words[:_NUM_WORDS], num_classes, mean_length, random)
    names = pa.array(words[_NUM_WORDS:-num_classes])
    labels = pa.array(words[-num_classes:])
    classes = np.repeat(np.arange(num_classes, dtype=np.int32), sizes)
    if order == "random":
        random.shuffle(classes)
    noisy = sizes >= _NOISELESS_DOCS
    with (
        write_whole(path, "wb") as file,
        pq.ParquetWriter(file, _SCHEMA, compression="zstd") as out,
    ):
        for start in range(0, num_docs, _CHUNK_DOCS):
            chunk = classes[start : start + _CHUNK_DOCS]
            random = np.random.default_rng([seed, 1, start])
            # a wrong label is a text of another class; sizes stay as they are
            swapped = (random.random(len(chunk)) < _WRONG_LABELS) & noisy[chunk]
            shown = np.where(swapped, random.permutation(chunk), chunk)
            texts = _write_texts(shown, templates, names, random)
            out.write_batch(pa.record_batch([texts, labels.take(pa.array(chunk))], schema=_SCHEMA))


def class_sizes(num_docs: int, num_classes: int) -> np.ndarray:
    """int64[C], falling: the curve from 48,548 of 710,900 documents down to 3, at any size.

    >>> class_sizes(710_900, 60)[[0, 1, 30, 59]].tolist()
    [48548, 48242, 1999, 3]

    Raises:
      ValueError: fewer than two documents a class.
    """
    if num_docs < 2 * num_classes or num_classes < 2:
        raise ValueError(f"{num_docs} documents are too few for {num_classes} classes")
    curve = np.exp(-11 * np.linspace(0, 1, num_classes) ** 1.82998)
    spare = num_docs - 2 * num_classes
    ends = np.round(np.cumsum(curve) / curve.sum() * spare).astype(np.int64)
    return -np.sort(-(2 + np.diff(ends, prepend=0)))


def _pseudo_words(count: int, random: np.random.Generator) -> list[str]:
    """Distinct pronounceable words of two to four syllables."""
    onsets = np.array([*"bcdfghjklmnprstvwz", "br", "cl", "dr", "gr", "pl", "st", "tr"])
    vowels = np.array([*"aeiou", "ai", "ea", "ou"])
    codas = np.array(["", "", "", *"nrslt"])

    def syllables() -> np.ndarray:
        parts = (random.choice(kind, 2 * count) for kind in (onsets, vowels, codas))
        first, second, third = parts
        return np.char.add(np.char.add(first, second), third)

    words = np.char.add(syllables(), syllables())
    longer = random.integers(0, 3, 2 * count)
    words = np.where(longer > 0, np.char.add(words, syllables()), words)
    words = list(dict.fromkeys(words.tolist()))
    return words[:count]


def _build_templates(
    words: list[str], num_classes: int, mean_length: int, random: np.random.Generator
) -> list[list[_Template]]:
    """One to six templates of each class."""
    classes: list[list[_Template]] = []
    for code in range(num_classes):
        if code % 3 == 1:
            classes[-1], twins = _make_twins(classes[-1], words, random)
            classes.append(twins)
        else:
            count = random.integers(1, 7)
            classes.append([_build_template(words, mean_length, random) for _ in range(count)])
    return classes


def _build_template(words: list[str], mean_length: int, random: np.random.Generator) -> _Template:
    scale = mean_length / _MEAN_LENGTH
    length = int(scale * np.clip(random.normal(37, 9), 25, 60))
    chosen = [words[rank] for rank in _zipf(len(words), length, random).tolist()]
    for slot in random.choice(length, round(scale * random.integers(4, 8)), replace=False):
        chosen[slot] = ""
    return _Template(chosen)


def _make_twins(
    templates: list[_Template], words: list[str], random: np.random.Generator
) -> tuple[list[_Template], list[_Template]]:
    """The same templates twice: each pair differs in two words, which tell the classes apart."""
    ones, others = [], []
    for template in templates:
        fixed = [i for i, word in enumerate(template.words) if word]
        telling = tuple(int(i) for i in random.choice(fixed, 2, replace=False))
        changed = list(template.words)
        for i in telling:
            changed[i] = words[int(random.integers(len(words)))]
        ones.append(replace(template, telling=telling))
        others.append(_Template(changed, telling))
    return ones, others


def _zipf(size: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Ranks int64[count] below `size`, rank r about as likely as 1 / (r + 1)."""
    return np.exp(random.random(count) * np.log(size)).astype(np.int64)


def _write_texts(
    classes: np.ndarray,
    templates: Sequence[Sequence[_Template]],
    names: pa.Array,
    random: np.random.Generator,
) -> pa.Array:
    """Texts string[n] for classes int32[n]: all documents of one template at a time."""
    template = random.random(len(classes)) * np.array([len(t) for t in templates])[classes]
    untelling = random.random(len(classes)) < _UNTELLING
    key = (classes * 8 + template.astype(np.int64)) * 2 + untelling
    order = np.argsort(key, kind="stable")
    pieces = []
    for value, start, stop in _runs(key[order]):
        chosen = templates[value // 16][value // 2 % 8]
        if value % 2:
            words = ["" if i in chosen.telling else w for i, w in enumerate(chosen.words)]
            chosen = replace(chosen, words=words)
        pieces.append(_fill(chosen, stop - start, names, random))
    return pa.concat_arrays(pieces).take(pa.array(np.argsort(order)))


def _runs(values: np.ndarray) -> Iterator[tuple[int, int, int]]:
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        yield int(values[start]), int(start), int(stop)


def _fill(
    template: _Template, count: int, names: pa.Array, random: np.random.Generator
) -> pa.Array:
    """`count` texts string[count] of one template."""
    pieces: list[pa.Array | pa.Scalar] = []
    fixed = ""
    for i, word in enumerate(template.words):
        gap = " " if i else ""
        if word:
            fixed += gap + word
            continue
        pieces += [pa.scalar(fixed + gap), _slot(i, count, names, random)]
        fixed = ""
    return pc.binary_join_element_wise(*pieces, pa.scalar(fixed), pa.scalar(""))


def _slot(i: int, count: int, names: pa.Array, random: np.random.Generator) -> pa.Array:
    """Values of the slot at position i: mostly names, or two names, numbers, ids."""
    kind = i % 8
    if kind == 0:
        return pa.array(random.integers(0, 10_000, count)).cast(pa.string())
    if kind == 1:
        digits = pa.array(random.integers(10**6, 10**7, count)).cast(pa.string())
        return pc.binary_join_element_wise(pa.scalar("id"), digits, pa.scalar(""))
    value = names.take(pa.array(_zipf(len(names), count, random)))
    if kind == 2:
        second = names.take(pa.array(_zipf(len(names), count, random)))
        return pc.binary_join_element_wise(value, second, pa.scalar(" "))
    return value


@dataclass(frozen=True, kw_only=True)
class SyntheticFlags:
    """The flags of `python -m tfdata.synthetic`."""

    out: tyro.conf.Positional[Path]
    """Parquet file to write."""
    docs: int = 40_000
    """Documents."""
    classes: int = 60
    """Classes, the biggest with some 7 % of the documents, the smallest with two or three."""
    words: int = _MEAN_LENGTH
    """Words of a text, about."""
    seed: int = 0
    """Of everything that is drawn."""
    order: Literal["random", "class"] = "random"
    """Order of the documents; class: one class after the other."""

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"--classes {self.classes}: must be 2 or more")
        if self.docs < 2 * self.classes:
            raise ValueError(f"--docs {self.docs}: must be {2 * self.classes} or more, two a class")
        if self.words < _LEAST_LENGTH:
            raise ValueError(f"--words {self.words}: must be {_LEAST_LENGTH} or more")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; ends stdout with one line of JSON."""
    flags = parse_flags(
        SyntheticFlags, argv, prog="python -m tfdata.synthetic",
        description="Write a generated corpus of skewed classes of near-identical texts.",
    )  # fmt: skip
    started = time.monotonic()
    write_corpus(flags.out, flags.docs, flags.classes, flags.seed, flags.order, flags.words)
    seconds = time.monotonic() - started
    result = {
        "num_docs": flags.docs,
        "num_classes": flags.classes,
        "seconds": round(seconds, 3),
        "docs_per_s": round(flags.docs / seconds, 1),
        "out": str(flags.out),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_command(main)
