"""All documents of an ingest between its passes.

The first pass reads, cleans and hashes every document and scatters it to the disk; the second
gives each its part and label id and writes the shards.
"""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from shortline import UserError, printable
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.label_order import LabelOrder
from tfdata.progress import show_progress
from tfdata.raw import ReadCounts
from tfdata.read import estimate_bytes, list_files, read_documents, read_times
from tfdata.shard_writer import ShardWriter
from tfdata.shards import PARTS, Shard, ShardSet, is_shard_set, read_batches
from tfdata.shuffle import DOCUMENTS, ShuffleBuckets
from tfdata.split import TEST, TRAIN, VALID, Split, SplitCounts, hash_texts
from tfdata.splitter import Splitter
from tfdata.time_split import TimeSplit

if TYPE_CHECKING:
    from tfdata.vocab import VocabularyBuilder

_MOST_LABELS = 100_000


@dataclass(frozen=True)
class Source:
    """A file or folder, and the part that its documents belong to (TRAIN: they are to be split)."""

    path: Path
    part: int

    def settings(self, config: IngestConfig) -> IngestConfig:
        """For reading it: what is not to be split needs no times."""
        return config if self.part == TRAIN else replace(config, split="random", time=None)


def find_sources(inputs: Sequence[Path], config: IngestConfig) -> list[Source]:
    """The inputs, and the files that --valid and --test name.

    Raises:
      UserError: one is missing, is given twice, or is a shard set already.
    """
    sources = [Source(Path(path), TRAIN) for path in inputs]
    for flag, part in (("valid", VALID), ("test", TEST)):
        if config.share(flag) is None:
            path = Path(getattr(config, flag))
            if not path.exists():
                raise UserError(f"--{flag} {path}: neither a share like 0.1 nor a file")
            sources.append(Source(path, part))
    seen: set[Path] = set()
    for source in sources:
        if is_shard_set(source.path):
            raise UserError(f"{source.path}: is a shard set already; train.py --data takes it")
        for file in list_files(source.path, config.format):
            if file.resolve() in seen:
                raise UserError(f"{file}: is given twice; give every file once")
            seen.add(file.resolve())
    return sources


class LabelCodes:
    """Codes of labels, by first sight."""

    def __init__(self) -> None:
        self._code_of: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Label names by code."""
        return list(self._code_of)

    def merge(self, names: Iterable[str], counts: ReadCounts) -> np.ndarray:
        """The codes int32[n] of labels.

        Raises:
          UserError: they have become so many that they are none.
        """
        codes = [self._code_of.setdefault(name, len(self._code_of)) for name in names]
        if len(self._code_of) > _MOST_LABELS:
            raise UserError(self.too_many(counts))
        return np.array(codes, np.int32)

    def too_many(self, counts: ReadCounts) -> str:
        """What the user is told, of `counts.rows_kept` documents with such labels."""
        names = ", ".join(f"`{printable(label)}`" for _, label in sorted(counts.columns))
        some = ", ".join(printable(label, 30) for label in self.names[:3])
        return (
            f"column {names} has {len(self._code_of):,} distinct values in "
            f"{counts.rows_kept:,} documents ({some}, ...): it looks like texts or ids, not "
            "labels; name the label column with --label"
        )


def code_documents(
    batches: Iterable[pa.RecordBatch], part: int, seed: int, codes: LabelCodes, counts: ReadCounts
) -> Iterator[pa.RecordBatch]:
    """What `read_documents` gives of one source as batches of shuffle.DOCUMENTS."""
    for batch in batches:
        texts, labels = batch.column("text"), batch.column("label").dictionary_encode()
        code_of_row = codes.merge(labels.dictionary.to_pylist(), counts)[labels.indices.to_numpy()]
        hashes = hash_texts(texts, seed)
        parts = np.full(len(batch), part, np.uint8)
        columns = [texts, code_of_row, hashes, parts, read_times(batch)]
        yield pa.RecordBatch.from_arrays([*map(pa.array, columns)], schema=DOCUMENTS)


class Pool(ABC):
    """All documents of all sources: on the disk, and as hashes in the splitter."""

    def __init__(self, folder: Path, sources: Sequence[Source], config: IngestConfig):
        self._folder, self._sources, self._config = folder, sources, config
        files = [f for source in sources for f in list_files(source.path, config.format)]
        self._disk_bytes = sum(file.stat().st_size for file in files)
        self._num_bytes = sum(estimate_bytes(file) for file in files)
        self._splitter = Splitter(folder, config)
        self.order = LabelOrder()
        """Of the rows that are to be split."""
        self.counts = ReadCounts()
        self._codes = LabelCodes()

    @property
    def labels(self) -> list[str]:
        """Label names by code; codes go by first sight."""
        return self._codes.names

    @abstractmethod
    def fill(self, progress: bool) -> None:
        """Reads everything.

        Raises:
          UserError: something cannot be read, or the labels are so many that they are none.
        """

    def take_in(
        self,
        texts: pa.Array | None,
        hashes: np.ndarray,
        codes: np.ndarray,
        source: int,
        times: np.ndarray,
    ) -> None:
        """For the split and the order: the next documents; without texts, none by near copies."""
        self._splitter.add(texts, hashes, codes, source, times)
        if source == TRAIN:
            self.order.add(codes)

    def build_split(self) -> tuple[Split | TimeSplit, SplitCounts]:
        """The rule for all that was read, and what becomes of the documents under it."""
        return self._splitter.build(len(self.labels))

    @abstractmethod
    def write_shards(
        self,
        folder: Path,
        split: Split | TimeSplit,
        id_of_code: np.ndarray,
        vocabulary: VocabularyBuilder,
        progress: bool,
    ) -> dict[str, tuple[Shard, ...]]:
        """Writes the shards of each part into `folder`; can be called once.

        Args:
          id_of_code: int32[C], the label id of each code.
          vocabulary: is given the documents of the training part, in their order.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends whatever still reads or writes."""

    def count_lengths(self, shard_set: ShardSet, config: TokenizerConfig) -> np.ndarray:
        """int64[n], training documents by number of tokens, by the set's finished vocabulary."""
        from tfdata.vocab import count_lengths

        texts = (texts for texts, _ in read_batches(shard_set, "train"))
        return count_lengths(texts, config, shard_set.words)

    def settings(self) -> dict[str, Any]:
        """What made the data, for the manifest; file names without their folders."""
        ingest = dataclasses.asdict(self._config)
        for flag in ("valid", "test"):
            if self._config.share(flag) is None:
                ingest[flag] = Path(ingest[flag]).name
        return {"ingest": ingest, "sources": [source.path.name for source in self._sources]}

    def too_many_labels(self) -> str:
        return self._codes.too_many(self.counts)


class LocalPool(Pool):
    """A pool that this process fills and empties, through shuffle buckets."""

    def __init__(self, folder: Path, sources: Sequence[Source], config: IngestConfig):
        super().__init__(folder, sources, config)
        self._buckets = ShuffleBuckets(folder, self._num_bytes, config.split_seed)

    def fill(self, progress: bool) -> None:
        seed = self._config.split_seed
        with show_progress("reading", progress) as update:
            for source in self._sources:
                config = source.settings(self._config)
                batches = read_documents(source.path, config, self.counts)
                for batch in code_documents(batches, source.part, seed, self._codes, self.counts):
                    named = ("hash", "code", "time")
                    hashes, codes, times = (batch.column(c).to_numpy() for c in named)
                    self.take_in(batch.column("text"), hashes, codes, source.part, times)
                    self._buckets.add(batch)
                    update(self.counts.rows_kept, self.counts.bytes_read / self._disk_bytes)

    def write_shards(
        self,
        folder: Path,
        split: Split | TimeSplit,
        id_of_code: np.ndarray,
        vocabulary: VocabularyBuilder,
        progress: bool,
    ) -> dict[str, tuple[Shard, ...]]:
        done = 0
        with contextlib.ExitStack() as stack, show_progress("writing", progress) as update:
            writers = [stack.enter_context(ShardWriter(folder, part)) for part in PARTS]
            for batch in self._buckets.read():
                for part, texts, ids in split_batch(batch, split, id_of_code):
                    writers[part].write(texts, ids)
                    if part == TRAIN:
                        vocabulary.add(texts)
                done += len(batch)
                update(done, done / self.counts.rows_kept)
            return {part: writer.finish() for part, writer in zip(PARTS, writers, strict=True)}

    def close(self) -> None:
        self._buckets.close()
        self._splitter.close()


def split_batch(
    batch: pa.RecordBatch, split: Split | TimeSplit, id_of_code: np.ndarray
) -> Iterator[tuple[int, pa.Array, np.ndarray]]:
    """A batch of shuffle.DOCUMENTS by part: (part, string[n], label ids int32[n])."""
    codes, parts = batch.column("code").to_numpy(), find_parts(batch, split)
    for part in (TRAIN, VALID, TEST):
        rows = np.flatnonzero(parts == part)
        yield part, batch.column("text").take(rows), id_of_code[codes[rows]]


def find_parts(rows: pa.RecordBatch | pa.Table, split: Split | TimeSplit) -> np.ndarray:
    """uint8[n], of rows of shuffle.DOCUMENTS."""
    named = ("hash", "code", "source", "time")
    return split.parts(*(rows.column(name).to_numpy() for name in named))
