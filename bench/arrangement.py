"""Documents for a training whose order and split are chosen: to show what a wrong one does.

Legend: D documents, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tfdata.checkup.corpus import Corpus, read_corpus, split_corpus
from tfdata.config import IngestConfig
from tfdata.split import TRAIN

VOCAB_SIZE, MAX_LEN = 20_000, 40  # the seed's
_HELD = 0.1
SplitBy = Literal["row", "text", "group", "tail"]


@dataclass(frozen=True)
class Documents:
    """A corpus, or a sample of it that keeps its order."""

    corpus: Corpus
    rows: np.ndarray
    """int64[D] of the corpus, ascending."""

    @property
    def labels(self) -> np.ndarray:
        """int32[D]"""
        return self.corpus.codes[self.rows]

    @property
    def num_classes(self) -> int:
        return len(self.corpus.labels)

    def held_out(self, split: SplitBy) -> np.ndarray:
        """bool[D]: a tenth of the rows by chance, by text, by group of near copies; or the last."""
        held = np.zeros(len(self.rows), bool)
        if split == "tail":
            held[-round(_HELD * len(held)) :] = True
        elif split == "row":
            random = np.random.default_rng(0)
            held[random.permutation(len(held))[: round(_HELD * len(held))]] = True
        else:
            config = IngestConfig(valid=str(_HELD), split="group" if split == "group" else "random")
            texts, none = self.corpus.texts.take(self.rows), np.zeros(len(self.rows), np.uint8)
            times = np.full(len(self.rows), np.nan)
            held = split_corpus(texts, self.labels, none, times, self.num_classes, config) != TRAIN
        return held

    def encode(self, trained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int32[D, T], padded on the right, and lengths int32[D], 1 or more.

        Ids go by rank in the documents `trained` bool[D], from 2; 1 is any other word. The last
        40 words of a text stay, as in the seed's script.
        """
        words = self.corpus.words
        starts, lengths = words.offsets[self.rows], words.lengths[self.rows]
        kept = np.minimum(lengths, MAX_LEN)
        columns = np.arange(MAX_LEN)
        places = (starts + lengths - kept)[:, None] + columns
        real = columns < kept[:, None]
        found = words.ids[np.minimum(places, len(words.ids) - 1)]
        counts = np.bincount(found[real & trained[:, None]], minlength=len(words.names))
        id_of_word = np.ones(len(counts), np.int32)
        common = np.argsort(-counts, kind="stable")[: VOCAB_SIZE - 2]
        common = common[counts[common] > 0]
        id_of_word[common] = np.arange(2, 2 + len(common))
        return np.where(real, id_of_word[found], 0), np.maximum(kept, 1).astype(np.int32)


def read_documents(inputs: Sequence[Path], config: IngestConfig, most: int) -> Documents:
    """At most `most` documents of the files, by chance, in their order.

    Raises:
      UserError: a file cannot be read.
    """
    corpus, _ = read_corpus(inputs, config)
    rows = np.sort(np.random.default_rng(0).permutation(len(corpus))[:most])
    return Documents(corpus, rows)


def arrange(rows: np.ndarray, buffer: int | None, epochs: int, batch_size: int) -> np.ndarray:
    """The rows int64[epochs, steps, B] of each batch; what fills no batch is left out.

    Args:
      rows: in the order of the file.
      buffer: documents of a shuffle buffer like tf.data's: 0: the order of the file; None: a global
        shuffle in every epoch.
    """
    random = np.random.default_rng(0)
    orders = []
    for _ in range(epochs):
        keys = np.arange(len(rows), dtype=np.float64)
        if buffer is None:
            keys = random.random(len(rows))
        elif buffer:  # each document of the buffer is as likely to be drawn next
            keys += random.geometric(1 / buffer, len(rows))
        order = rows[np.argsort(keys, kind="stable")]
        orders.append(order[: len(order) // batch_size * batch_size].reshape(-1, batch_size))
    return np.stack(orders)
