"""Step 7, its first half: labelled.parquet, and the documents to learn from.

Legend: R documents, P points.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labels.clean import CleanConfig
from labels.cluster import NOISE, read_assigned
from labels.folder import RESULT_NAMES
from labels.step import RESULTS
from model.rows import RowOptions, read_columns
from shortline import UserError, write_whole
from tfdata.raw import ReadCounts

TRAINING = pa.schema([("text", pa.string()), ("label", pa.string())])
_NONE = -1


class Labelled(NamedTuple):
    """What each document has got."""

    clusters: np.ndarray
    """int32[R], NOISE where it has none."""
    classes: np.ndarray
    """int32[R], -1 where it has no label."""
    labels: pa.Array
    """The label of each class, string."""


def read_labelled(folder: Path) -> Labelled:
    """Clusters and classes of the documents, after the decide step."""
    point = pq.read_table(folder / "clean" / "documents.parquet", columns=["point"])["point"]
    point = point.fill_null(_NONE).to_numpy()
    of_point = np.append(read_assigned(folder / "decide" / "points.parquet"), np.int32(NOISE))
    clusters = of_point[point]
    decided = pq.read_table(folder / "decide" / "clusters.parquet")
    coded = decided["label"].combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    numbers = decided["cluster"].to_numpy()
    class_of = np.full(int(numbers.max(initial=-1)) + 2, _NONE, np.int32)  # the last is NOISE's
    dropped = decided["dropped"].to_numpy(zero_copy_only=False)
    class_of[numbers] = np.where(dropped, _NONE, coded.indices.to_numpy())
    return Labelled(clusters, class_of[clusters], coded.dictionary)


def label(folder: Path, source: Path, out: Path, config: CleanConfig) -> dict[str, Any]:
    """Writes labelled.parquet and training.parquet.

    Raises:
      UserError: the input cannot be read any more, or there is no cluster.
    """
    labelled = read_labelled(folder)
    if not (labelled.classes >= 0).any():
        raise UserError(
            f"{folder}: no cluster was found, or all were dropped: nothing has a label; again: "
            f"python -m labels cluster {folder}, with a smaller --min-docs or a larger --eps"
        )
    names = labelled.labels.take(
        pa.array(labelled.classes, pa.int32(), mask=labelled.classes == _NONE)
    )
    duplicates = pq.read_table(folder / "dedupe" / "documents.parquet")["duplicate_of"]
    result = pa.table(
        [
            pa.array(labelled.clusters, pa.int32(), mask=labelled.clusters == NOISE),
            names,
            duplicates.combine_chunks(),
        ],
        names=list(RESULT_NAMES),
    )
    _write_result(out / RESULTS["label"], source, config, result)
    is_kept = (labelled.classes >= 0) & duplicates.is_null().to_numpy()
    kept = pa.array(np.flatnonzero(is_kept))
    texts = pq.read_table(folder / "clean" / "documents.parquet", columns=["text"])["text"]
    training = pa.table([texts.take(kept), names.take(kept)], schema=TRAINING)
    pq.write_table(training, out / "training.parquet", compression="zstd")
    return {
        "documents": len(result), "with_a_cluster": int((labelled.clusters >= 0).sum()),
        "with_a_label": int((labelled.classes >= 0).sum()), "to_learn_from": len(training),
        "labels": len(set(labelled.classes[labelled.classes >= 0].tolist())),
    }  # fmt: skip


def _write_result(path: Path, source: Path, config: CleanConfig, result: pa.Table) -> None:
    """The input's columns, then the result's, a piece at a time."""
    options = RowOptions(
        format=config.format, delimiter=config.delimiter, text=config.text, added=RESULT_NAMES
    )
    start, writer = 0, None
    with write_whole(path, "wb") as file:
        for rows in read_columns(source, options, ReadCounts()):  # `clean` has told of them
            assert rows.columns is not None
            part = result.slice(start, len(rows.texts)).combine_chunks()
            start += len(rows.texts)
            columns = [*rows.columns.columns, *(column.combine_chunks() for column in part.columns)]
            columns = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in columns]
            table = pa.table(columns, names=[*rows.columns.schema.names, *RESULT_NAMES])
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
        assert writer is not None  # at least one piece, if an empty one
        assert start == len(result), (start, len(result))
        writer.close()
