"""Texts that near copies tie together: whoever is like one of a group is in it.

All texts go to the disk, where pairs of them are looked up; in memory a text takes some 60 bytes.
Legend: D distinct texts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shortline import UserError
from tfdata.minhash import BAND_ROWS, SIMILAR, Runs, band_keys, compare_texts
from tfdata.words import cut_words, hash_words, mix

_STEPS = (1, 2, 3, 5, 9)
"""A text is compared with its next ones, by alphabet or by length: from each to before the next."""
_DRAWS = 3
"""Random partners of a text that are tried in a band after that."""
_COMPARED = 65_536
_OF_LEADER = np.uint64(2)


@dataclass(frozen=True)
class NearGroups:
    """The group of each text that has one; G texts in groups of two and more."""

    hashes: np.ndarray
    """uint64[G], ascending: of the texts."""
    groups: np.ndarray
    """uint64[G]: a hash of the whole group, spread as those of texts are."""

    def of(self, hashes: np.ndarray) -> np.ndarray:
        """For texts uint64[n] the hash of their group; without one, their own."""
        if not len(self.hashes):
            return hashes
        places = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        return np.where(self.hashes[places] == hashes, self.groups[places], hashes)

    def __len__(self) -> int:
        """Groups of two texts or more."""
        return len(np.unique(self.groups))

    @property
    def largest(self) -> int:
        """Texts of the largest group."""
        return int(np.unique(self.groups, return_counts=True)[1].max(initial=0))


class NearGroupFinder:
    """Sees every text once through `add`, then `find` gives the groups."""

    def __init__(self, folder: Path):
        """Raises a UserError where the packages of the extra `doctor` are missing."""
        for package in ("scipy", "rapidfuzz"):
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--split group: {package} is not installed: pip install -e '.[doctor]'"
                )
        folder.mkdir()
        self._folder = folder
        self._open = contextlib.ExitStack()
        self._files = {
            name: self._open.enter_context((folder / name).open("wb"))
            for name in (
                "texts",
                "bytes",
                "characters",
                "hashes",
                *map(_keys_name, range(len(BAND_ROWS))),
            )
        }

    def add(self, texts: pa.Array, hashes: np.ndarray) -> None:
        """Takes in string[n] and their hashes uint64[n] of tfdata.split."""
        first = np.sort(np.unique(hashes, return_index=True)[1])
        if len(first) < len(texts):
            texts, hashes = texts.take(first), hashes[first]
        words = cut_words(pa.chunked_array([texts]))
        hashed = hash_words(words.names)[words.ids]
        for number, keys in enumerate(band_keys(hashed, words.lengths)):
            self._write(_keys_name(number), keys)
        data = texts.cast(pa.large_string())
        ends = np.frombuffer(data.buffers()[1], np.int64)[data.offset :][: len(data) + 1]
        if len(data):
            self._files["texts"].write(memoryview(data.buffers()[2])[ends[0] : ends[-1]])
        self._write("bytes", np.diff(ends))
        self._write("characters", pc.utf8_length(data).cast(pa.int64()).to_numpy())
        self._write("hashes", hashes)

    def _write(self, name: str, values: np.ndarray) -> None:
        self._files[name].write(values.tobytes())

    def find(self) -> NearGroups:
        """The groups of texts with a Levenshtein similarity of .9 or more, by chains of them.

        What no band brings together is missed, as some are of texts of few words, or of thousands
        from one template.
        """
        self.close()
        hashes, rows = np.unique(self._read("hashes", np.uint64), return_index=True)
        lengths = self._read("characters", np.int64)[rows]
        texts = self._open_texts()
        components = _Components(len(hashes))
        alphabetic = np.argsort(pc.array_sort_indices(texts).to_numpy())[rows]
        random = np.random.default_rng(0)
        for band in range(len(BAND_ROWS)):
            keys = self._read(_keys_name(band), np.uint64)[rows]
            places = lengths if band // 2 % 2 else alphabetic
            for one, other in _draw_pairs(keys, places, lengths, components, random):
                near = _are_near(texts, rows[one], rows[other])
                components.join(one[near], other[near])
        numbers = components.numbers
        sizes = np.bincount(numbers)
        grouped = np.flatnonzero(sizes[numbers] > 1)
        leaders = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(leaders, numbers, hashes)
        # mixed: the least of many hashes is small, and small ones would be held out
        return NearGroups(hashes[grouped], mix(leaders)[numbers[grouped]] >> _OF_LEADER)

    def close(self) -> None:
        """Closes the files."""
        self._open.close()

    def _read(self, name: str, dtype: type) -> np.ndarray:
        return np.fromfile(self._folder / name, dtype)

    def _open_texts(self) -> pa.Array:
        """large_string[n], the characters of which stay on the disk."""
        lengths = self._read("bytes", np.int64)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        data = pa.py_buffer(b"")
        if ends[-1]:
            with contextlib.closing(pa.memory_map(str(self._folder / "texts"))) as file:
                data = file.read_buffer()
        return pa.LargeStringArray.from_buffers(len(lengths), pa.py_buffer(ends), data)


def _keys_name(band: int) -> str:
    return f"keys{band}"


class _Components:
    """Which texts are tied together so far: `numbers` int64[D], from 0."""

    def __init__(self, num_texts: int):
        self.numbers = np.arange(num_texts)

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Ties each of the texts `one` to its `other`, and so all that hangs on them."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(one):
            return
        size = int(self.numbers.max()) + 1
        edges = (self.numbers[one], self.numbers[other])
        graph = coo_array((np.ones(len(one), bool), edges), shape=(size, size))
        self.numbers = connected_components(graph, directed=False)[1][self.numbers]


def _draw_pairs(
    keys: np.ndarray,
    places: np.ndarray,
    lengths: np.ndarray,
    components: _Components,
    random: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of texts of one key that may be near and are of two components, some at a time.

    Of every text its next ones by `places`, so that among few of a key all pairs are drawn; then
    random ones.
    """
    _, number, times = np.unique(keys, return_inverse=True, return_counts=True)
    shared = np.flatnonzero((times[number] > 1) & (keys > 0))
    shared = shared[np.lexsort((places[shared], keys[shared]))]
    keys, lengths = keys[shared], lengths[shared]
    for steps in itertools.pairwise(_STEPS):
        of = components.numbers[shared]
        pairs = []
        for step in range(*steps):
            found = np.flatnonzero(
                (keys[step:] == keys[:-step])
                & (of[step:] != of[:-step])
                & _may_be_near(lengths[:-step], lengths[step:])
            )
            pairs.append((shared[found], shared[found + step]))
        one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
        yield one, other
    for _ in range(_DRAWS):
        partners = Runs(keys, components.numbers[shared]).draw(random, same=False)
        asked = np.flatnonzero(partners >= 0)
        partners = partners[asked]
        may = _may_be_near(lengths[asked], lengths[partners])
        yield shared[asked[may]], shared[partners[may]]


def _may_be_near(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Do the characters int64[n] of two texts leave it open?"""
    return np.minimum(one, other) >= SIMILAR * np.maximum(one, other)


def _are_near(texts: pa.Array, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    near = np.zeros(len(rows), bool)
    for start in range(0, len(rows), _COMPARED):
        part = slice(start, start + _COMPARED)
        one, other = (texts.take(pa.array(some[part])).to_pylist() for some in (rows, others))
        near[part] = compare_texts(one, other) >= SIMILAR
    return near
