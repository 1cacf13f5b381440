"""What the tests of the doctor share: corpora made by hand, and one with nothing wrong."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tfdata.checkup.corpus import Corpus

CLASSES = ("red", "green", "blue", "grey")


def make_corpus(rows, parts=None, sources=None):
    """A corpus of (text, label) pairs, in two chunks."""
    texts, labels = zip(*rows, strict=True)
    coded = pa.array(labels, pa.string()).dictionary_encode()
    parts = np.zeros(len(rows), np.uint8) if parts is None else np.array(parts, np.uint8)
    sources = np.zeros(len(rows), np.uint8) if sources is None else np.array(sources, np.uint8)
    half = len(rows) // 2
    chunks = [pa.array(texts[:half], pa.string()), pa.array(texts[half:], pa.string())]
    names = tuple(coded.dictionary.to_pylist())
    codes = coded.indices.to_numpy().astype(np.int32)
    return Corpus(pa.chunked_array(chunks), codes, names, sources, parts)


def clean_rows(num_docs=2_000, seed=0):
    """(text, label) pairs in random order: four classes of the same size that words tell apart."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(num_docs):
        code = i % len(CLASSES)
        own = random.integers(0, 100, 4) * len(CLASSES) + code
        common = random.integers(400, 800, 8)
        words = random.permutation(np.concatenate([own, common]))
        rows.append((" ".join(f"w{word}" for word in words), CLASSES[code]))
    return [rows[i] for i in random.permutation(num_docs)]


def clean_parts(num_docs):
    """Every tenth row validates."""
    return [int(i % 10 == 0) for i in range(num_docs)]
