"""Step 6: near copies inside each class are removed; the most typical of them is kept.

Legend: R documents, P points.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labels.config import DedupeConfig
from labels.folder import DUPLICATES
from labels.near import find_copies

_NONE = -1


def dedupe(
    texts: pa.ChunkedArray, classes: np.ndarray, similar: np.ndarray, out: Path,
    config: DedupeConfig,
) -> dict[str, Any]:  # fmt: skip
    """Writes documents.parquet.

    Args:
      texts: cleaned, string[R].
      classes: int32[R], -1 for documents without a label.
      similar: float32[R], how typical each is of its cluster.
    """
    of, distance = find_duplicates(texts, classes, similar, config.near)
    columns = [
        pa.array(of, pa.int64(), mask=of == _NONE),
        pa.array(distance, pa.int32(), mask=of == _NONE),
    ]
    table = pa.table(columns, schema=DUPLICATES)
    pq.write_table(table, out / "documents.parquet", compression="zstd")
    exact, near = int(((of >= 0) & (distance == 0)).sum()), int((distance > 0).sum())
    labelled = int((classes >= 0).sum())
    return {
        "labelled": labelled, "exact_duplicates": exact, "near_duplicates": near,
        "kept": labelled - exact - near,
    }  # fmt: skip


def find_duplicates(
    texts: pa.ChunkedArray, classes: np.ndarray, similar: np.ndarray, near: float
) -> tuple[np.ndarray, np.ndarray]:
    """What is kept in each document's place, int64[R], -1 for itself; edits int32[R]."""
    of = np.full(len(classes), _NONE, np.int64)
    distance = np.zeros(len(classes), np.int32)
    order = np.lexsort((np.arange(len(classes)), classes))
    order = order[classes[order] >= 0]
    starts = np.append(np.flatnonzero(np.diff(classes[order], prepend=-1)), len(order))
    for start, stop in itertools.pairwise(starts.tolist()):
        rows = order[start:stop]
        coded = _as_array(texts.take(pa.array(rows))).dictionary_encode()
        text_of = coded.indices.to_numpy()
        ranked, firsts = _rank_texts(text_of, rows, similar)
        of[rows] = np.where(firsts[text_of] == rows, _NONE, firsts[text_of])
        if near > 0 and len(ranked) > 1:
            distinct = coded.dictionary.take(pa.array(ranked)).to_pylist()
            copies = find_copies(distinct, near)
            moved = np.flatnonzero(copies.of != np.arange(len(ranked)))
            kept_row = firsts[ranked][copies.of]
            place = np.empty(len(ranked), np.int64)  # of each text in the order of preference
            place[ranked] = np.arange(len(ranked))
            is_moved = np.zeros(len(ranked), bool)
            is_moved[moved] = True
            here = is_moved[place[text_of]]
            of[rows[here]] = kept_row[place[text_of[here]]]
            distance[rows[here]] = copies.distance[place[text_of[here]]]
    return of, distance


def _rank_texts(
    text_of: np.ndarray, rows: np.ndarray, similar: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct texts, the most typical first: that most documents have, then nearest to the mean.

    Args:
      text_of: int32[n], the text of each of `rows` int64[n].

    Returns:
      the texts int64[T] in that order, and the first row int64[T] of each text.
    """
    _, first, counts = np.unique(text_of, return_index=True, return_counts=True)
    firsts = rows[first]
    return np.lexsort((firsts, -np.round(similar[firsts], 5), -counts)), firsts


def _as_array(texts: pa.ChunkedArray) -> pa.Array:
    joined = texts.combine_chunks()
    if isinstance(joined, pa.ChunkedArray):
        joined = joined.chunk(0) if joined.num_chunks == 1 else pa.concat_arrays(joined.chunks)
    return pc.fill_null(joined, "")
