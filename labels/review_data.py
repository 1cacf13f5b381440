"""What a review reads of a labelling's folder.

Legend: P points, H numbers of a code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labels.review_state import NOISE
from labels.step import read_record
from shortline import UserError


@dataclass(frozen=True, kw_only=True)
class ReviewData:
    """The points, and the clusters that were made of them; nothing of it changes."""

    keys: np.ndarray
    """uint64[P]"""
    weights: np.ndarray
    """int64[P], documents"""
    texts: pa.LargeStringArray
    """large_string[P]: of each point its first document, cleaned"""
    masked: pa.LargeStringArray
    """large_string[P]"""
    units: np.ndarray
    """float32[P, H]: codes of length 1 (or 0)"""
    merged: np.ndarray
    """int32[P]: the cluster, or NOISE"""
    unmerged: np.ndarray
    """int32[P]: the cluster before clusters were merged, or NOISE"""
    names: dict[int, str]
    """of the clusters"""
    key: str
    """of the step merge, as it was when this was read"""


def read_review_data(folder: Path) -> ReviewData:
    """Reads what the steps up to merging have written.

    Raises:
      UserError: a file is not there, or they are not of one run.
    """
    points = _read(folder, "clean/points.parquet", ["key", "weight", "masked", "first_row"])
    documents = _read(folder, "clean/documents.parquet", ["text"])
    key = read_record(folder, "merge")["key"]  # before its files: newer ones have another
    merged = _read(folder, "merge/points.parquet", ["cluster"])
    unmerged = _read(folder, "cluster/points.parquet", ["cluster"])
    clusters = _read(folder, "merge/clusters.parquet", ["cluster", "label"])
    try:
        codes = np.load(folder / "encode" / "codes.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _missing(folder, "encode/codes.npy", error) from error
    if not len(points) == len(merged) == len(unmerged) == len(codes):
        raise UserError(
            f"{folder}: its files are not of one run; run `python -m labels run` on it again"
        )
    names = dict(zip(*(clusters[name].to_pylist() for name in ("cluster", "label")), strict=True))
    assigned = _assigned(merged)
    if not set(np.unique(assigned).tolist()) - {NOISE} <= names.keys():
        raise UserError(f"{folder}/merge: its files are not of one run; run that step again")
    return ReviewData(
        keys=points["key"].to_numpy(),
        weights=points["weight"].to_numpy().astype(np.int64),
        texts=_strings(documents["text"]).take(points["first_row"].combine_chunks()),
        masked=_strings(points["masked"]),
        units=_unit(codes),
        merged=assigned,
        unmerged=_assigned(unmerged),
        names=names,
        key=key,
    )


def _read(folder: Path, name: str, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(folder / name, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise _missing(folder, name, error) from error


def _missing(folder: Path, name: str, error: Exception) -> UserError:
    why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
    return UserError(
        f"{folder / name}: {why}; `python -m labels run INPUT --out {folder}` makes it"
    )


def _strings(column: pa.ChunkedArray) -> pa.LargeStringArray:
    return column.cast(pa.large_string()).combine_chunks()  # large: they may be above 2 GiB


def _assigned(table: pa.Table) -> np.ndarray:
    return pc.fill_null(table["cluster"], NOISE).to_numpy().astype(np.int32)


def _unit(codes: np.ndarray) -> np.ndarray:
    """Rows of length 1, a part at a time: the codes may be memory-mapped."""
    units = np.empty(codes.shape, np.float32)
    for start in range(0, len(codes), 1 << 16):
        part = np.asarray(codes[start : start + (1 << 16)], np.float32)
        length = np.linalg.norm(part, axis=1, keepdims=True)
        units[start : start + (1 << 16)] = part / np.where(length > 0, length, 1)
    return units
