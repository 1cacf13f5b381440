"""Batches gathered on the device from a window that lives in its memory.

The host sends token ids once, and the plan's rows once a window; a training step then waits for
nothing but two numbers of its batch, the width and the size, which decide shapes.
Legend: B documents of a replica's batch, D documents of a window, N their tokens, S batches.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfdata.pipeline import Batch, BatchFeed, WindowInfo, gather_batch, plan_epochs, take_share
from tfdata.plan import Buckets, Plan
from tfdata.window import Window, WindowSource

_MOST_BATCHES = 2**31 - 1  # of a plan; the queue grows as it is filled


class DeviceFeed:
    """The batches of `BatchFeed`, bitwise; its `iterator` is itself, for use in a tf.function.

    Every replica holds the whole window, as any of its documents may come to any replica.
    """

    def __init__(
        self,
        source: WindowSource,
        buckets: Buckets,
        *,
        seed: int | None,
        class_weights: np.ndarray,
        strategy: tf.distribute.Strategy | None = None,
        start: tuple[int, int, int] = (0, 0, 0),
    ):
        """As `BatchFeed`; a source of `stream` residency sends its windows one after the other."""
        self._strategy = strategy or tf.distribute.get_strategy()
        self._epochs = plan_epochs(source, buckets, seed, start)
        self._held: Window | None = None
        self._is_even = len(set(buckets.sizes)) == 1
        # A GPU has no int32 variables (TensorFlow takes them for shapes, on the host)
        with self._strategy.scope():
            self._ids = _make(np.uint16 if source.id_type == np.uint16 else np.uint32, 1)
            self._offsets, self._labels = _make(np.int64, 1), _make(np.int64, 1)
            self._first_doc, self._rows = _make(np.int64, 0), _make(np.int64, 2)
            self._weights = tf.Variable(np.append(class_weights, 0).astype(np.float32), False)
        self._steps = tf.queue.FIFOQueue(_MOST_BATCHES, [tf.int64, tf.int32, tf.int32], [[]] * 3)
        self._planned: queue.Queue[tuple[WindowInfo, Window, Plan] | BaseException]
        self._planned = queue.Queue(1)
        self._is_closed = False
        self.iterator: Iterator[Batch] = self
        self._thread = threading.Thread(target=self._produce, name="plan", daemon=True)
        self._thread.start()

    def next_window(self) -> WindowInfo:
        """Waits for the next window, and puts it on the device.

        Raises:
          UserError: a shard could not be read.
        """
        while True:
            info = self.poll_window(timeout=60)
            if info is not None:
                return info

    def poll_window(self, timeout: float) -> WindowInfo | None:
        """The same, or None if it takes longer than `timeout` seconds.

        Call it only when all batches of the window before were taken.

        Raises:
          UserError: a shard could not be read.
        """
        try:
            planned = self._planned.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(planned, BaseException):
            raise planned
        info, window, plan = planned
        if window is not self._held:
            self._ids.assign(window.ids.astype(self._ids.dtype.as_numpy_dtype, copy=False))
            self._offsets.assign(window.offsets)
            self._labels.assign(window.labels.astype(np.int64))
            self._first_doc.assign(window.first_doc)
            self._held = window
        self._rows.assign(plan.rows.astype(np.int64))
        with tf.device("CPU:0"):
            self._steps.enqueue_many([np.arange(len(plan)), plan.widths, plan.sizes])
        return info

    def close(self) -> None:
        """Ends the producer; the iterator is of no use afterwards."""
        self._is_closed = True
        self._thread.join(timeout=1.0)

    def __iter__(self) -> DeviceFeed:
        return self

    def __next__(self) -> Batch:
        """The next batch, for each replica its share: within a tf.function, across replicas."""
        with tf.device("CPU:0"):
            step, width, size = self._steps.dequeue()
        return self._strategy.run(self._gather, args=(step, width, size))

    def _gather(self, step: tf.Tensor, width: tf.Tensor, size: tf.Tensor) -> Batch:
        context = tf.distribute.get_replica_context()
        num_replicas = self._strategy.num_replicas_in_sync
        rows = tf.gather(self._rows, step)
        if not self._is_even:
            rows = rows[:size]
        share = context.replica_id_in_sync_group
        rows, scale = take_share(rows, size, share, num_replicas)
        return gather_batch(
            self._ids, self._offsets, self._labels, self._first_doc, self._weights, rows, scale,
            width,
        )  # fmt: skip

    def _produce(self) -> None:
        try:
            for planned in self._epochs:
                if not self._offer(planned):
                    return
        except BaseException as error:
            self._offer(error)
        finally:
            self._epochs.close()

    def _offer(self, item: tuple[WindowInfo, Window, Plan] | BaseException) -> bool:
        """Puts it into the queue as soon as there is room; False once the feed is closed."""
        while not self._is_closed:
            try:
                self._planned.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False


def build_feed(
    source: WindowSource,
    buckets: Buckets,
    *,
    seed: int | None,
    class_weights: np.ndarray,
    strategy: tf.distribute.Strategy,
    start: tuple[int, int, int] = (0, 0, 0),
) -> BatchFeed | DeviceFeed:
    """The feed that the source's residency asks for; arguments as of `BatchFeed`."""
    feed = DeviceFeed if source.residency == "device" else BatchFeed
    return feed(
        source, buckets, seed=seed, class_weights=class_weights, strategy=strategy, start=start
    )


def _make(dtype: type, rank: int) -> tf.Variable:
    """A variable of no elements yet, and of any size later."""
    empty = np.zeros([0] * rank, dtype)
    return tf.Variable(empty, False, shape=tf.TensorShape([None] * rank))
