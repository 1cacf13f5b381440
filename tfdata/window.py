"""Windows: token ids of many documents, flat, in host memory.

A window is the unit of tokenising, shuffling and bucketing. `host` residency trains its first epoch
window after window, as they may have to be tokenised, and then holds the whole part as one;
`stream` makes one window after the other in every epoch, so memory stays flat. Where ids come from,
the texts or the cache on disk, changes nothing in the windows.
Shapes: D documents of the window, N tokens of them all.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfdata.config import PipelineConfig
from tfdata.encode import Encoder
from tfdata.encode_ahead import encode_ahead
from tfdata.id_cache import CachedIds, IdCache
from tfdata.id_writer import Piece
from tfdata.residency import choose_residency, estimate_bytes, mean_length
from tfdata.shards import ShardSet, read_batches, verify_part

_LEAST_FIRST_DOCS = 16_384  # of a window of the first epoch: less is a poor sample to shuffle
# encoded at a time: the more, the rarer is each distinct word among them
_ENCODE_DOCS, _ENCODE_TOKENS = 16_384, 2**20


@dataclass(frozen=True)
class Window:
    """Documents `first_doc` … `first_doc + D - 1` of a part, as token ids."""

    ids: np.ndarray
    """uint16[N] where the vocabulary allows, else int32[N]; may be memory-mapped."""
    offsets: np.ndarray
    """int64[D + 1]: document d is ids[offsets[d] : offsets[d + 1]]."""
    labels: np.ndarray
    """int32[D]; a label that training lacks is num_classes or more."""
    first_doc: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """int32[D], each 1 or more."""
        return np.diff(self.offsets).astype(np.int32)

    def __len__(self) -> int:
        return len(self.labels)


def build_window(pieces: list[Piece], first_doc: int) -> Window:
    """One window of (ids[n], lengths[d], labels[d]) pieces; a single piece is not copied."""
    ids, lengths, labels = (
        arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        for arrays in zip(*pieces, strict=True)
    )
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Window(ids, offsets, labels, first_doc)


def cut_windows(
    pieces: Iterable[Piece], window_docs: int, first_doc: int = 0
) -> Generator[Window, None, None]:
    """Windows of `window_docs` documents, the last of what is left, from pieces of any size."""
    held, num_held = [], 0
    for ids, lengths, labels in pieces:
        while num_held + len(lengths) >= window_docs:
            cut = window_docs - num_held
            token_cut = int(lengths[:cut].sum())
            held.append((ids[:token_cut], lengths[:cut], labels[:cut]))
            yield build_window(held, first_doc)
            first_doc += window_docs
            ids, lengths, labels = ids[token_cut:], lengths[cut:], labels[cut:]
            held, num_held = [], 0
        if len(lengths):
            held.append((ids, lengths, labels))
            num_held += len(lengths)
    if held:
        yield build_window(held, first_doc)


class Gather(Protocol):
    """The processes that train together."""

    num: int
    index: int
    """Of this one."""

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """Everybody's one-dimensional arrays, of one type and any length."""
        ...


class WindowSource:
    """The windows of one part of a shard set, epoch after epoch."""

    def __init__(
        self,
        shard_set: ShardSet,
        part: str,
        encoder: Encoder,
        *,
        vocab_size: int,
        config: PipelineConfig,
        shuffle_seed: int | None,
    ):
        """`shuffle_seed` None keeps the order of the shards in every epoch."""
        self._shard_set, self._part = shard_set, part
        self._is_stopped = threading.Event()
        self._encode_texts = encoder.encode
        self.id_type = np.uint16 if vocab_size <= 2**16 else np.int32
        self._window_docs = config.window_docs
        self._shuffle_seed = shuffle_seed
        self._held: Window | None = None
        self._cached: CachedIds | None = None
        self._cache: IdCache | None = None
        self.num_docs = shard_set.num_docs(part)
        if config.id_cache and self.num_docs:
            num_bytes = estimate_bytes(shard_set, part, vocab_size)
            self._cache = IdCache(shard_set, part, encoder, self.id_type, num_bytes)
        self.residency = config.residency
        if config.residency == "auto":
            self.residency = choose_residency(shard_set, part, vocab_size)

    @property
    def has_cached_ids(self) -> bool:
        """Whether the ids are on disk already."""
        return self._cache is not None and self._cache.folder.exists()

    def start(self) -> None:
        """After a `stop`: somebody else wants the windows."""
        self._is_stopped.clear()

    def stop(self) -> None:
        """From any thread: whoever tokenises for this source gives up with `Stopped`, soon."""
        self._is_stopped.set()

    def docs_of_windows(self, epoch: int) -> list[int]:
        """Documents of each window of an epoch; all epochs after the first are alike."""
        size = self._docs_of_a_window(epoch)
        full, rest = divmod(self.num_docs, size)
        return [size] * full + ([rest] if rest else [])

    def _docs_of_a_window(self, epoch: int) -> int:
        if self.residency == "stream":
            return self._window_docs
        whole = max(1, self.num_docs)
        if epoch == 0 and self._shuffle_seed is not None:
            return min(whole, self._window_docs, max(_LEAST_FIRST_DOCS, -(-whole // 4)))
        return whole

    def share(self, workers: Gather) -> None:
        """Several processes tokenise a part of the documents each, and then hold them all.

        All call it, before anything is read. With `stream` residency nothing is held, and each
        process tokenises every window.

        Raises:
          UserError: a shard is missing, truncated or damaged.
        """
        if workers.num == 1 or self.residency == "stream" or not self.num_docs:
            return
        self._held = self._open_whole()
        if all(have[0] for have in workers.gather(np.array([self._held is not None]))):
            return
        shard_docs = [shard.num_docs for shard in self._shard_set.parts[self._part]]
        piece = self._encode_some(*choose_docs(shard_docs, workers.num, workers.index))
        ids, lengths, labels = (np.concatenate(workers.gather(array)) for array in piece)
        if self._held is None:
            self._held = build_window([(ids, lengths, labels)], 0)
            self._keep(self._held)

    def _encode_some(self, first: int, last: int) -> Piece:
        """The documents `first` … `last - 1` of the part; no shard without one of them is read."""
        if self._held is not None:
            tokens = slice(self._held.offsets[first], self._held.offsets[last])
            docs = slice(first, last)
            return self._held.ids[tokens], self._held.lengths[docs], self._held.labels[docs]
        if first == last:
            return np.empty(0, self.id_type), np.empty(0, np.int32), np.empty(0, np.int32)
        ends = np.cumsum([shard.num_docs for shard in self._shard_set.parts[self._part]])
        first_shard, last_shard = np.searchsorted(ends, [first, last - 1], side="right").tolist()
        order = list(range(first_shard, last_shard + 1))
        pieces = self._encode(order, first - int(ends[first_shard - 1] if first_shard else 0))
        with contextlib.closing(cut_windows(pieces, last - first)) as windows:
            window = next(windows)
        return window.ids, window.lengths, window.labels

    def _keep(self, window: Window) -> None:
        """Writes the whole part to the cache on disk, if there is to be one."""
        if self._cache is None:
            return
        ends = np.cumsum(self._cache.shard_docs)
        docs = [
            slice(end - size, end) for size, end in zip(self._cache.shard_docs, ends, strict=True)
        ]
        offsets, lengths, labels = window.offsets, window.lengths, window.labels
        pieces = (
            (window.ids[offsets[shard.start] : offsets[shard.stop]], lengths[shard], labels[shard])
            for shard in docs
        )
        for _ in self._cache.keep(pieces, None):
            pass

    def read(self, epoch: int, first_window: int = 0) -> Iterator[Window]:
        """The windows of an epoch from `first_window` on.

        Raises:
          UserError: a shard is missing, truncated or damaged.
        """
        size = self._docs_of_a_window(epoch)
        if self.residency == "stream":
            first_doc = first_window * size
            pieces = self._read_pieces(self._shard_order(epoch), first_doc)
            yield from cut_windows(pieces, size, first_doc)
            return
        if self._held is None:
            self._held = self._open_whole()
        if self._held is not None and size == self.num_docs:
            yield self._held
            return
        windows = []
        for window in cut_windows(self._read_pieces(None, 0), size):
            windows.append(window)
            if len(windows) > first_window:
                yield window
        if len(windows) == 1:
            self._held = windows[0]
        elif self._held is None and windows:
            self._held = self._open_whole() or _join_windows(windows)

    def _shard_order(self, epoch: int) -> list[int] | None:
        if self._shuffle_seed is None:
            return None
        rng = np.random.default_rng([self._shuffle_seed, epoch, 2**31])
        return rng.permutation(len(self._shard_set.parts[self._part])).tolist()

    def _open_cached(self) -> CachedIds | None:
        if self._cached is None and self._cache is not None:
            self._cached = self._cache.open()
        return self._cached

    def _open_whole(self) -> Window | None:
        """The whole part, memory-mapped from the cache, if that holds it."""
        cached = self._open_cached()
        if cached is None:
            return None
        verify_part(self._shard_set, self._part)  # the report will want the texts
        return build_window(list(cached.read(None)), 0)

    def _read_pieces(self, order: list[int] | None, skip_docs: int) -> Iterator[Piece]:
        """Ids of the part, from the cache or encoded; those of the whole part are then kept."""
        if self._held is not None:
            return iter([(self._held.ids, self._held.lengths, self._held.labels)])
        cached = self._open_cached()
        if cached is not None:
            return cached.read(order, skip_docs)
        pieces = self._encode(order, skip_docs)
        if self._cache is None or skip_docs:
            return pieces
        return self._cache.keep(pieces, order)

    def _encode(self, order: list[int] | None, skip_docs: int) -> Iterator[Piece]:
        """Tokenises record batches on all cores, in order: ids[n], lengths[d], labels[d]."""
        most_docs = max(1, int(_ENCODE_TOKENS / mean_length(self._shard_set)))
        batches = read_batches(
            self._shard_set, self._part, shard_order=order, skip_docs=skip_docs,
            batch_docs=min(_ENCODE_DOCS, most_docs),
        )  # fmt: skip

        def encode(texts: pa.Array, labels: np.ndarray):
            with tf.device("CPU"):  # strings are there; the GPU has a step to do
                ids, lengths = self._encode_texts(texts)
            return ids.astype(self.id_type), lengths, labels

        return encode_ahead(encode, batches, self._is_stopped)


def choose_docs(shard_docs: Sequence[int], num_workers: int, index: int) -> tuple[int, int]:
    """The first document that a worker tokenises, and the one after its last.

    Workers read whole shards, unless there are fewer of them.

    >>> choose_docs([5, 5, 5, 5], 2, 1)
    (10, 20)
    >>> choose_docs([10], 2, 1)
    (5, 10)
    """
    ends = np.append(0, np.cumsum(shard_docs))
    wanted = ends[-1] * np.arange(num_workers + 1) // num_workers
    if len(shard_docs) >= num_workers:
        wanted = ends[np.abs(ends[:, np.newaxis] - wanted).argmin(axis=0)]
    return int(wanted[index]), int(wanted[index + 1])


def _join_windows(windows: list[Window]) -> Window:
    return build_window([(w.ids, w.lengths, w.labels) for w in windows], 0)
