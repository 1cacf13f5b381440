"""What a checkpoint was made from: data, settings and machine; a resumed run is held against it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from shortline import UserError, __version__, describe_value


def describe_origin(
    data: Mapping[str, Any], settings: Mapping[str, Any], device: str, num_replicas: int
) -> dict[str, Any]:
    """As a checkpoint holds it.

    Args:
      data: `fingerprint`, and counts to tell a difference by.
      settings: those that decide what is computed.
    """
    machine = {
        "shortline": __version__, "TensorFlow": tf.__version__, "device": device,
        "replicas": num_replicas, "CPU cores": os.cpu_count(),
    }  # fmt: skip
    return {"data": dict(data), "settings": dict(settings), "machine": machine}


def is_same(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether both are of the same data and settings, on whatever machine."""
    same_data = then["data"]["fingerprint"] == now["data"]["fingerprint"]
    return same_data and not _differences(then["settings"], now["settings"])


def compare(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Notes another machine, which rounds otherwise and keeps the documents and their order.

    Raises:
      UserError: naming how the data or a setting differs.
    """
    if then["data"]["fingerprint"] != now["data"]["fingerprint"]:
        counts = [
            f"{was:,} {name} then, {value:,} now"
            for name, was, value in _differences(then["data"], now["data"])
            if name != "fingerprint"
        ]
        how = "; ".join(counts) or "as many documents and classes, but not the same"
        raise UserError(
            f"--resume {folder}: the data is not what the run was started with ({how}); "
            "restore it, or start a new run"
        )
    for name, was, value in _differences(then["settings"], now["settings"]):
        raise UserError(
            f"--resume {folder}: --{name.replace('_', '-')} is {describe_value(value)} now, and "
            f"the checkpoint was made with {describe_value(was)}; put config.yaml right, or start "
            "a new run"
        )
    for name, was, value in _differences(then["machine"], now["machine"]):
        print(
            f"note: {name} was {was}, and is {value} now: the same documents in the same order, "
            "rounded otherwise"
        )


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What both have, with other values: name, then, now."""
    return [
        (name, was, now[name]) for name, was in then.items() if name in now and now[name] != was
    ]
