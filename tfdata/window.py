"""Windows: token ids of many documents, flat, in host memory.

A window is the unit of tokenising, shuffling and bucketing. `host` residency holds the whole part
as one window, tokenised once; `stream` makes one window after the other, so memory stays flat.
Shapes: D documents of the window, N tokens of them all.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfdata.config import PipelineConfig
from tfdata.encode import Encoder, texts_to_tensor
from tfdata.shards import ShardSet, read_batches


@dataclass(frozen=True)
class Window:
    """Documents `first_doc` … `first_doc + D - 1` of a part, as token ids."""

    ids: np.ndarray
    """uint16[N] where the vocabulary allows, else int32[N]."""
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


def build_window(pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]], first_doc: int) -> Window:
    """One window of (ids[n], lengths[d], labels[d]) pieces, in order."""
    ids, lengths, labels = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Window(ids, offsets, labels, first_doc)


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
        self._encode_graph = encoder.in_graph
        self.id_type = np.uint16 if vocab_size <= 2**16 else np.int32
        self._window_docs = config.window_docs
        self._shuffle_seed = shuffle_seed
        self._held: Window | None = None
        self.num_docs = shard_set.num_docs(part)
        self.residency = config.residency
        if config.residency == "auto":
            self.residency = choose_residency(shard_set, part, vocab_size)

    @property
    def docs_of_windows(self) -> list[int]:
        """Documents of each window of an epoch."""
        if self.residency == "host":
            return [self.num_docs]
        full, rest = divmod(self.num_docs, self._window_docs)
        return [self._window_docs] * full + ([rest] if rest else [])

    def read(self, epoch: int, first_window: int = 0) -> Iterator[Window]:
        """The windows of an epoch from `first_window` on.

        Raises:
          UserError: a shard is missing, truncated or damaged.
        """
        if self.residency == "host":
            if self._held is None:
                self._held = build_window(list(self._encode(None, 0)), 0)
            yield self._held
            return
        order = None
        if self._shuffle_seed is not None:
            rng = np.random.default_rng([self._shuffle_seed, epoch, 2**31])
            order = rng.permutation(len(self._shard_set.parts[self._part])).tolist()
        first_doc = first_window * self._window_docs
        pieces, num_held = [], 0
        for ids, lengths, labels in self._encode(order, first_doc):
            while num_held + len(lengths) >= self._window_docs:
                cut = self._window_docs - num_held
                token_cut = int(lengths[:cut].sum())
                pieces.append((ids[:token_cut], lengths[:cut], labels[:cut]))
                yield build_window(pieces, first_doc)
                first_doc += self._window_docs
                ids, lengths, labels = ids[token_cut:], lengths[cut:], labels[cut:]
                pieces, num_held = [], 0
            if len(lengths):
                pieces.append((ids, lengths, labels))
                num_held += len(lengths)
        if pieces:
            yield build_window(pieces, first_doc)

    def _encode(
        self, order: list[int] | None, skip_docs: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Tokenises record batches on all cores, in order: ids[n], lengths[d], labels[d]."""
        batches = read_batches(self._shard_set, self._part, shard_order=order, skip_docs=skip_docs)

        def encode(texts: pa.Array, labels: np.ndarray):
            with tf.device("CPU"):  # strings are there; the GPU has a step to do
                ids, lengths = self._encode_graph(texts_to_tensor(texts))
            return ids.numpy().astype(self.id_type), lengths.numpy(), labels

        num_threads = os.cpu_count() or 1
        with ThreadPoolExecutor(num_threads, "encode") as pool:
            running: deque[Future] = deque()
            try:
                for batch in batches:
                    running.append(pool.submit(encode, *batch))
                    if len(running) > num_threads:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def choose_residency(shard_set: ShardSet, part: str, vocab_size: int) -> Literal["host", "stream"]:
    """host where the ids of a part fit in an eighth of the free memory: up to four copies live."""
    counts = np.asarray(shard_set.length_counts)
    mean_length = float(counts @ np.arange(len(counts))) / max(1, counts.sum())
    num_bytes = shard_set.num_docs(part) * (mean_length * (2 if vocab_size <= 2**16 else 4) + 12)
    return "host" if num_bytes < _available_bytes() / 8 else "stream"


def _available_bytes() -> int:
    """Free memory of this machine, or of the container (cgroup v2) we are in."""
    available = 4 * 2**30
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):  # ValueError: no limit, "max"
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        available = min(available, max(0, limit - used))
    return available
