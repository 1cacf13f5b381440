"""`--split`: the rule by which documents validate and test, made from all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from shortline import UserError, printable
from tfdata.config import IngestConfig
from tfdata.near_groups import NearGroupFinder
from tfdata.split import Split, SplitBuilder, SplitCounts
from tfdata.time_split import TimeSplit, TimeSplitBuilder


class Splitter:
    """Sees every document once through `add`, then `build` gives the rule that was asked for."""

    def __init__(self, folder: Path, config: IngestConfig):
        """Raises a UserError where --split group lacks a package."""
        valid, test = config.share("valid") or 0.0, config.share("test") or 0.0
        self._config = config
        kind = TimeSplitBuilder if config.split == "time" else SplitBuilder
        self._builder = kind(folder, valid=valid, test=test)
        is_by_group = config.split == "group" and valid + test > 0
        self._near = NearGroupFinder(folder / "near") if is_by_group else None

    def add(
        self,
        texts: pa.Array | None,
        hashes: np.ndarray,
        codes: np.ndarray,
        source: int,
        times: np.ndarray,
    ) -> None:
        """Takes in string[n], which only --split group needs, and what `Split.parts` is given."""
        self._builder.add(hashes, codes, source, times)
        if self._near is not None:
            assert texts is not None
            self._near.add(texts, hashes)

    def build(self, num_classes: int) -> tuple[Split | TimeSplit, SplitCounts]:
        """The rule, and what becomes of the documents under it.

        Raises:
          UserError: no row has a time to split by.
        """
        if isinstance(self._builder, TimeSplitBuilder) and not self._builder.num_timed:
            name = printable(self._config.time or "", 60)
            raise UserError(f"--time {name}: no row has a value in this column")
        if isinstance(self._builder, SplitBuilder) and self._near is not None:
            return self._builder.build_by_group(num_classes, self._near.find())
        return self._builder.build(num_classes)

    def close(self) -> None:
        """Closes the files."""
        if self._near is not None:
            self._near.close()
