"""Data sets as bench.quality trains and scores on them: Parquet files in the cache, made once.

A set is a folder of train.parquet, test.parquet and perhaps valid.parquet, or of all.parquet
alone, with string columns `text` and `label`. Where there is no official part, its rows are found
by a hash of the text, so that figures compare and equal texts stay on one side, or at random.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shortline import UserError

OUT_OF_SCOPE = "oos"
_PARTS = ("train", "valid", "test", "all")
_SCHEMA = 3  # of the files in the cache
_TEST_OF, _VALID_OF = 5, 10  # a fifth tests; of what is left a tenth validates in development


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which rows train, validate and are scored."""

    development: bool
    """Score a validation part, and leave the test part out of everything."""
    validation: str
    """file: an official valid part validates; share: it trains, and train.py sets a share aside. In
    development train.py always does: the rows that are scored do nothing else."""
    random: tuple[str, ...]
    """Sets that are split at random where there is no official split."""


class QualitySet(NamedTuple):
    """A set, ready."""

    name: str
    data: Path
    """Rows to train on, columns `text` and `label`."""
    valid: Path | None
    """Rows to validate on; None: train.py takes a share of `data`."""
    scored: Path
    """Rows to score, columns `text` and `truth`."""
    baseline: tuple[Path, ...]
    """What trains a baseline, which needs no validation; its counts order the classes by size."""

    def count_labels(self) -> Counter[str]:
        """Training rows by label."""
        counts: Counter[str] = Counter()
        for file in self.baseline:
            counts.update(pq.read_table(file, columns=["label"])["label"].to_pylist())
        return counts

    def read_truth(self) -> list[str]:
        """Labels of the rows to score."""
        return pq.read_table(self.scored, columns=["truth"])["truth"].to_pylist()


def find_sets(folder: Path, names: Sequence[str]) -> list[Path]:
    """Folders of the sets, the largest first; all that `folder` holds where no names are given.

    Raises:
      UserError: there is none, or none of that name.
    """
    if not folder.is_dir():
        raise UserError(f"--data {folder}: is no folder of data sets")
    found = {path.name: path for path in sorted(folder.iterdir()) if _list_parts(path)}
    for name in names or found:
        if name not in found:
            have = ", ".join(found) or "none"
            raise UserError(f"--sets {name}: is not in {folder}; there: {have}")
    if not found:
        raise UserError(f"--data {folder}: holds no folder with train.parquet or all.parquet")
    return sorted((found[name] for name in names or found), key=_size, reverse=True)


def _list_parts(folder: Path) -> dict[str, Path]:
    files = {part: folder / f"{part}.parquet" for part in _PARTS}
    files = {part: file for part, file in files.items() if file.is_file()}
    return files if "all" in files or {"train", "test"} <= set(files) else {}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in _list_parts(folder).values())


def prepare_set(folder: Path, rules: Rules, cache: Path) -> QualitySet:
    """The set's files in `cache`, made where they are not there.

    Raises:
      UserError: a file lacks `text` or `label`, or a part comes out without rows.
    """
    files = _list_parts(folder)
    digests = {part: _sha256(file) for part, file in files.items()}
    random = folder.name in rules.random
    settings = [_SCHEMA, digests, rules.development, rules.validation, random]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    made = cache / f"{folder.name}-{key}"
    if not made.is_dir():
        parts = _split(folder.name, {part: _read(file) for part, file in files.items()}, random)
        tables = choose_rows(folder.name, parts, rules, random)
        for name, table in tables.items():
            if not len(table):
                raise UserError(f"{folder}: leaves no rows for {name}; leave it out by --sets")
        _write_folder(made, tables)
    valid = made / "valid.parquet"
    valid = valid if valid.exists() else None
    data = made / "data.parquet"
    baseline = (data,) if valid is None else (data, valid)  # a valid part trains baselines, too
    return QualitySet(folder.name, data, valid, made / "scored.parquet", baseline)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(file: Path) -> pa.Table:
    """Columns `text` and `label` as strings, of the rows that have both."""
    try:
        table = pq.read_table(file, columns=["text", "label"])
    except (pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{file}: is not Parquet with columns text and label: {error}") from None
    table = pa.table({name: pc.cast(table[name], pa.string()) for name in ("text", "label")})
    return table.filter(pc.and_(pc.is_valid(table["text"]), pc.is_valid(table["label"])))


def _split(name: str, parts: dict[str, pa.Table], random: bool) -> dict[str, pa.Table]:
    """With train and test, whatever there was."""
    if "all" not in parts:
        return parts
    rows = parts.pop("all")
    choose = _random_rows(0, _TEST_OF) if random else _hashed_rows("", _TEST_OF)
    is_test = choose(rows)
    return {"train": rows.filter(pc.invert(is_test)), "test": rows.filter(is_test)}


def choose_rows(
    name: str, parts: dict[str, pa.Table], rules: Rules, random: bool
) -> dict[str, pa.Table]:
    """data, valid (perhaps) and scored of a set that has train, test and perhaps valid."""
    train, valid = parts["train"], parts.get("valid")
    if rules.development:
        if valid is None:
            choose = _random_rows(1, _VALID_OF) if random else _hashed_rows("valid ", _VALID_OF)
            is_valid = choose(train)
            train, valid = train.filter(pc.invert(is_valid)), train.filter(is_valid)
        return {"data": train, "scored": _hide(valid)}
    scored = _hide(parts["test"])
    if valid is None:
        return {"data": train, "scored": scored}
    if rules.validation == "share":
        return {"data": pa.concat_tables([train, valid]), "scored": scored}
    return {"data": train, "valid": valid, "scored": scored}


def _hide(table: pa.Table) -> pa.Table:
    """Under a name that a prediction's own `label` leaves alone."""
    return table.rename_columns(["text", "truth"])


def _hashed_rows(prefix: str, one_of: int) -> Callable[[pa.Table], pa.Array]:
    """Rows whose text has an md5 that `one_of` divides."""

    def choose(rows: pa.Table) -> pa.Array:
        texts = rows["text"].to_pylist()
        digests = (hashlib.md5((prefix + text).encode()).hexdigest() for text in texts)
        return pa.array([int(digest, 16) % one_of == 0 for digest in digests], pa.bool_())

    return choose


def _random_rows(seed: int, one_of: int) -> Callable[[pa.Table], pa.Array]:
    def choose(rows: pa.Table) -> pa.Array:
        chosen = np.zeros(len(rows), bool)
        order = np.random.default_rng(seed).permutation(len(rows))
        chosen[order[: len(rows) // one_of]] = True
        return pa.array(chosen)

    return choose


def _write_folder(folder: Path, tables: dict[str, pa.Table]) -> None:
    """Whole or not at all; the same of another process may take its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        for name, table in tables.items():
            pq.write_table(table, made / f"{name}.parquet", compression="zstd")
        if not folder.is_dir():
            os.replace(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
