"""The documents of a check: texts and labels in the order of the files, and their parts."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from shortline import UserError
from tfdata.config import IngestConfig
from tfdata.pool import find_sources
from tfdata.raw import ReadCounts
from tfdata.read import read_documents, read_times
from tfdata.split import TRAIN, hash_texts
from tfdata.splitter import Splitter
from tfdata.words import WORD_FILTERS, Words, cut_words


@dataclass(frozen=True)
class Corpus:
    """B documents, all in memory: some 300 bytes each besides the text."""

    texts: pa.ChunkedArray
    """string[B]"""
    codes: np.ndarray
    """int32[B]: classes, by first sight."""
    labels: tuple[str, ...]
    """The name of each class."""
    sources: np.ndarray
    """uint8[B]: TRAIN for what is to be split, VALID or TEST for what a file of its own holds."""
    parts: np.ndarray
    """uint8[B]: TRAIN, VALID or TEST after the split."""
    filters: str = WORD_FILTERS
    """Characters that become spaces before texts are cut into words."""
    unspaced: str = "split"
    """What becomes of scripts without spaces: TokenizerConfig."""
    files: pa.ChunkedArray | None = None
    """dictionary[B]: the file of each document, where it came from one."""
    rows: np.ndarray | None = None
    """int64[B]: its row there, as messages number it."""

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def words(self) -> Words:
        """The words of all documents."""
        return cut_words(self.texts, self.filters, self.unspaced)

    @cached_property
    def text_ids(self) -> np.ndarray:
        """int32[B]: equal where texts are equal to the byte; ids go by first sight."""
        return self.joined.dictionary_encode().indices.to_numpy()

    @cached_property
    def first_rows(self) -> np.ndarray:
        """int64[distinct texts]: the first document of each text id."""
        return np.unique(self.text_ids, return_index=True)[1]

    @cached_property
    def joined(self) -> pa.Array:
        """The texts in one piece, large_string[B]: rows are taken from it ten times as fast."""
        joined = self.texts.cast(pa.large_string()).combine_chunks()
        return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined

    def text(self, row: int | np.integer) -> str:
        """The text of one document."""
        return self.texts[int(row)].as_py()

    def label(self, row: int | np.integer) -> str:
        """The label of one document."""
        return self.labels[self.codes[row]]


def read_corpus(
    inputs: Sequence[Path],
    config: IngestConfig,
    filters: str = WORD_FILTERS,
    unspaced: str = "split",
) -> tuple[Corpus, ReadCounts]:
    """All documents of files or folders and of `--valid` and `--test` files, and what was dropped.

    Raises:
      UserError: an input cannot be read, or holds no document.
    """
    counts = ReadCounts()
    texts: list[pa.Array] = []
    labels: list[pa.Array] = []
    sources: list[np.ndarray] = []
    times: list[np.ndarray] = []
    files: list[pa.Array] = []
    rows: list[np.ndarray] = []
    for source in find_sources(inputs, config):
        for batch in read_documents(source.path, source.settings(config), counts, places=True):
            times.append(read_times(batch))
            texts.append(batch.column("text"))
            labels.append(batch.column("label").dictionary_encode())
            files.append(batch.column("file"))
            rows.append(batch.column("row").to_numpy())
            sources.append(np.full(len(batch), source.part, np.uint8))
    if not counts.rows_kept:
        raise UserError(
            f"no document has both a text and a label: {counts.dropped_null_text} rows lack the "
            f"text, {counts.dropped_null_label} the label; check --text and --label"
        )
    coded = pa.chunked_array(labels).unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in coded.chunks]).astype(np.int32)
    names = tuple(coded.chunk(0).dictionary.to_pylist())
    part_of = np.concatenate(sources)
    column = pa.chunked_array(texts, pa.string())
    parts = split_corpus(column, codes, part_of, np.concatenate(times), len(names), config)
    places = pa.chunked_array(files).unify_dictionaries(), np.concatenate(rows)
    return Corpus(column, codes, names, part_of, parts, filters, unspaced, *places), counts


def split_corpus(
    texts: pa.ChunkedArray,
    codes: np.ndarray,
    sources: np.ndarray,
    times: np.ndarray,
    num_classes: int,
    config: IngestConfig,
) -> np.ndarray:
    """The parts uint8[B] that `tfdata.ingest` would give the documents under these settings."""
    valid, test = config.share("valid") or 0.0, config.share("test") or 0.0
    if valid == test == 0:
        return sources
    hashes = np.concatenate([hash_texts(chunk, config.split_seed) for chunk in texts.chunks])
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Splitter(Path(folder), config)) as splitter,
    ):
        start = 0
        for chunk in texts.chunks:  # each of one source, and never empty
            rows = slice(start, start + len(chunk))
            splitter.add(chunk, hashes[rows], codes[rows], int(sources[start]), times[rows])
            start += len(chunk)
        split, _ = splitter.build(num_classes)
    return split.parts(hashes, codes, sources, times)


def own_rows(corpus: Corpus) -> np.ndarray:
    """int64[n]: documents that are to be split, in the order of the files."""
    return np.flatnonzero(corpus.sources == TRAIN)
