"""The split of a shard set as a peer reads it: texts and labels, or token ids.

Without `tfdata`, whose modules import TensorFlow: a peer's process holds its own framework and no
other, so that the two do not share a GPU's memory or load two versions of cuDNN. What
`python -m bench.epoch` hands over, it has opened with `tfdata.shards` before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from shortline import UserError

VOCAB_SIZE, MAX_LEN = 20_000, 40  # the seed's
_TO_SPACES = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n\r\v\f\0', " "))


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """Documents of the training and the validation part, in the order of the shards."""

    train_texts: list[str]
    train_labels: np.ndarray
    """int32[D]"""
    valid_texts: list[str]
    valid_labels: np.ndarray
    """int32[V]; num_classes and above are labels that training lacks."""
    num_classes: int

    @property
    def class_weights(self) -> np.ndarray:
        """float32[C], the seed's: ln(0.5 · total / count) where that is above 1, else 1."""
        counts = np.bincount(self.train_labels, minlength=self.num_classes)
        return np.maximum(1.0, np.log(0.5 * counts.sum() / counts)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of D documents."""

    ids: np.ndarray
    """int32[D, MAX_LEN], padded on the right with 0."""
    lengths: np.ndarray
    """int64[D], each from 1 to MAX_LEN; a text of no known word is one 0."""


def read_split(folder: Path) -> Split:
    """The train and valid parts of a shard set that tfdata.ingest wrote.

    Raises:
      UserError: it is none, or lacks one of the two.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: no shard set: it has no manifest.json") from None
    columns = {}
    for part in ("train", "valid"):
        files = [folder / shard["file"] for shard in manifest["parts"][part]["shards"]]
        if not files:
            raise UserError(f"{folder}: has no {part} part; ingest it with one")
        tables = [pq.read_table(file, columns=["text", "label"]) for file in files]
        columns[f"{part}_texts"] = [text for table in tables for text in table["text"].to_pylist()]
        columns[f"{part}_labels"] = np.concatenate([table["label"].to_numpy() for table in tables])
    return Split(**columns, num_classes=len(manifest["labels"]))


def split_words(text: str) -> list[str]:
    """What the Keras Tokenizer does, at every whitespace: lower case, punctuation to spaces.

    >>> split_words("Hello, world!")
    ['hello', 'world']
    """
    return [word for word in text.lower().translate(_TO_SPACES).split(" ") if word]


def encode(train_texts: Sequence[str], valid_texts: Sequence[str]) -> tuple[Tokens, Tokens]:
    """Ids by falling count in the training texts, from 1; words beyond VOCAB_SIZE are dropped.

    Of longer texts the last MAX_LEN tokens stay, as in the seed's script.
    """
    documents = [split_words(text) for text in train_texts]
    counts = Counter(word for words in documents for word in words)
    ranked = counts.most_common(VOCAB_SIZE - 1)
    id_of = {word: number for number, (word, _) in enumerate(ranked, start=1)}
    return _pack(documents, id_of), _pack(map(split_words, valid_texts), id_of)


def _pack(documents: Iterable[list[str]], id_of: dict[str, int]) -> Tokens:
    rows = [[id_of[word] for word in words if word in id_of][-MAX_LEN:] for words in documents]
    ids = np.zeros((len(rows), MAX_LEN), np.int32)
    lengths = np.array([max(1, len(row)) for row in rows], np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return Tokens(ids, lengths)
