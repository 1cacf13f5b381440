"""What the workers of a training tell each other, beside their gradients.

The same calls, in the same order, on all of them; alone, a worker hears itself.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_GROUP = 2**30  # far from the numbers that tf.distribute counts its groups by
_PIECE_BYTES = 64 << 20
_operations = itertools.count(1)  # of this process; a number belongs to one operation on all


class Workers:
    """The processes that train under a strategy."""

    def __init__(self, strategy: tf.distribute.Strategy):
        resolver = strategy.cluster_resolver
        is_several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.num: int = resolver.cluster_spec().num_tasks("worker") if is_several else 1
        self.index: int = resolver.task_id if is_several else 0

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes what is to be written."""
        return self.index == 0

    def gather(self, array: np.ndarray) -> list[np.ndarray]:
        """The workers' one-dimensional arrays, of one type and any length, in their order."""
        if self.num == 1:
            return [array]
        data = np.ascontiguousarray(array).view(np.uint8)
        sizes = self._collect(np.array([len(data)], np.int64))[:, 0]
        most = -(-int(sizes.max()) // 8) * 8
        gathered = np.empty((self.num, most), np.uint8)
        for first in range(0, most, _PIECE_BYTES):
            last = min(first + _PIECE_BYTES, most)
            piece = np.zeros(last - first, np.uint8)
            piece[: max(0, len(data) - first)] = data[first:last]
            gathered[:, first:last] = self._collect(piece.view(np.int64)).view(np.uint8)
        return [row[:size].view(array.dtype) for row, size in zip(gathered, sizes, strict=True)]

    def gather_values(self, value: Any) -> list[Any]:
        """Of each worker a value that JSON can hold."""
        data = np.frombuffer(json.dumps(value).encode(), np.uint8)
        return [json.loads(encoded.tobytes()) for encoded in self.gather(data)]

    def set_as_chief(self, variables: Mapping[str, tf.Variable]) -> None:
        """Sets the variables to those of worker 0, bitwise."""
        if self.num == 1:
            return
        for variable in variables.values():
            data = variable.numpy() if self.is_chief else np.empty(0)
            data = np.ravel(data).astype(variable.dtype.as_numpy_dtype)
            theirs = self.gather(data)[0]
            if not self.is_chief:
                variable.assign(theirs.reshape(variable.shape))

    def take_chiefs(self, arrays: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
        """The named arrays that worker 0 has, or None if it has none; those of others are not
        looked at."""
        if self.num == 1:
            return None if arrays is None else dict(arrays)
        arrays = arrays if self.is_chief else None
        kinds = None
        if arrays is not None:
            kinds = [[name, one.dtype.str, list(one.shape)] for name, one in arrays.items()]
        kinds = self.gather_values(kinds)[0]
        if kinds is None:
            return None
        taken = {}
        for name, kind, shape in kinds:
            own = np.empty(0, kind) if arrays is None else np.ravel(arrays[name])
            taken[name] = self.gather(own)[0].reshape(shape)
        return taken

    def wait(self) -> None:
        """Until all workers have come this far."""
        self.gather(np.empty(0, np.uint8))

    def _collect(self, array: np.ndarray) -> np.ndarray:
        """int64[n] of each worker: int64[workers, n]."""
        if not len(array):
            return np.empty((self.num, 0), np.int64)
        with tf.device("CPU:0"):
            gathered = tf.raw_ops.CollectiveGatherV2(
                input=tf.constant(array), group_size=self.num, group_key=_GROUP,
                instance_key=next(_operations), ordering_token=[], communication_hint="ring",
            )  # fmt: skip
        return gathered.numpy().reshape(self.num, -1)
