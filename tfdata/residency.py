"""Where the token ids of a part are kept, by what they take and what is free."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import numpy as np

from tfdata.shards import ShardSet


def choose_residency(
    shard_set: ShardSet, part: str, vocab_size: int, device_bytes: int = 0
) -> Literal["device", "host", "stream"]:
    """Where the ids of a part fit: a quarter of a GPU's `device_bytes`, an eighth of free memory.

    Up to four copies live on the host, and on a GPU the old and the new for a moment.
    """
    num_bytes = estimate_bytes(shard_set, part, vocab_size)
    if num_bytes >= _available_bytes() / 8:
        return "stream"
    return "device" if num_bytes < device_bytes / 4 else "host"


def estimate_bytes(shard_set: ShardSet, part: str, vocab_size: int) -> int:
    """Of ids, offsets and labels, if texts are as long as those of the training part."""
    id_bytes = 2 if vocab_size <= 2**16 else 4
    return round(shard_set.num_docs(part) * (mean_length(shard_set) * id_bytes + 12))


def mean_length(shard_set: ShardSet) -> float:
    """Tokens of a text of the training part; 1 or more."""
    counts = np.asarray(shard_set.length_counts)
    return max(1.0, float(counts @ np.arange(len(counts))) / max(1, counts.sum()))


def _available_bytes() -> int:
    """Free memory of this machine, or of the container (cgroup v2) we are in."""
    available = 4 * 2**30
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):  # ValueError: no limit, "max"
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        available = min(available, max(0, limit - used))
    return available
