"""A PyTorch DataLoader: strings in memory, tokenised in Python by one worker process a core."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from bench.peers.plain_tokenizer import PlainTokenizer, build_plain_tokenizer
from tfdata.shards import read_batches

if TYPE_CHECKING:  # the worker processes import this file, and need no TensorFlow
    from bench.census import RawBatch
    from bench.feed import Corpus
    from bench.input_arms import Arm

Row = tuple[str, int]


class Collate:
    """A batch of (text, label) rows as tensors: token_ids int32[B, T] and labels int32[B]."""

    def __init__(self, tokenize: PlainTokenizer):
        self._tokenize = tokenize

    def __call__(self, rows: Sequence[Row]) -> tuple[Any, Any]:
        import torch  # pyright: ignore[reportMissingImports]

        texts, labels = zip(*rows, strict=True)
        return torch.from_numpy(self._tokenize(texts)), torch.tensor(labels, dtype=torch.int32)


def read_rows(corpus: Corpus) -> list[Row]:
    """The training part as (text, label)."""
    return [
        row
        for texts, labels in read_batches(corpus.shard_set, "train")
        for row in zip(texts.to_pylist(), labels.tolist(), strict=True)
    ]


def build_torch(corpus: Corpus, batch_size: int) -> Arm:
    """A list is a map-style dataset. The workers live from epoch to epoch."""
    from torch.utils.data import DataLoader, Dataset  # pyright: ignore[reportMissingImports]

    from bench.input_arms import LOADED, Arm

    loader = DataLoader(
        cast(Dataset, read_rows(corpus)),
        batch_size=batch_size,
        collate_fn=Collate(build_plain_tokenizer(corpus)),
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
        multiprocessing_context="spawn",  # TensorFlow's threads do not survive a fork
    )

    def draw(num_epochs: int) -> int:
        return sum(len(labels) for _ in range(num_epochs) for _, labels in loader)

    def read() -> Iterator[RawBatch]:
        for token_ids, labels in loader:
            yield token_ids.numpy(), labels.numpy()

    return Arm(
        name=LOADED,
        clock="strings in memory to batches: tokenise each batch in Python on all cores, pad; "
        "no buckets, no shuffle",
        draw=draw,
        read=read,
    )
