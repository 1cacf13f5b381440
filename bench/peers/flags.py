"""The flags that all peers have, and the import of a framework that may be missing."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from shortline import UserError


@dataclass(frozen=True, kw_only=True)
class PeerFlags:
    """What a peer trains on, and how long."""

    shards: tyro.conf.Positional[Path]
    """Shard set that tfdata.ingest wrote."""
    epochs: int = 20
    """Passes over the training part."""
    batch_size: int = 128
    """Documents in a batch."""
    learning_rate: float = 1e-3
    """Of Adam; fastText has a rate of its own."""
    seed: int = 0
    """Of weights, order and dropout."""

    def __post_init__(self) -> None:
        for flag in ("epochs", "batch_size"):
            if getattr(self, flag) < 1:
                name = flag.replace("_", "-")
                raise ValueError(f"--{name} {getattr(self, flag)}: must be 1 or more")


Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


def import_peer(module: str) -> Any:
    """A framework of the extra `[peers]`.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UserError(f"{module} is not installed: {INSTALL}") from None


INSTALL = "pip install -e '.[peers]'"
