"""Batches gathered on the device from a window that lives in its memory.

The host sends token ids once, and the plan's rows once a window; a training step then waits for
nothing but two numbers of its batch, the width and the size, which decide shapes.
Legend: B documents of a replica's batch, D documents of a window, N their tokens, S batches.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfdata.encode_ahead import Stopped
from tfdata.pipeline import CLOSE_SECONDS, Batch, BatchFeed, WindowFeed, WindowInfo, plan_epochs
from tfdata.plan import FILLER, Buckets, Plan
from tfdata.window import Window, WindowSource

_MOST_BATCHES = 2**31 - 1  # of a plan; the queue grows as it is filled


class DeviceFeed(WindowFeed):
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
        self._source = source
        source.start()
        self._epochs = plan_epochs(source, buckets, seed, start)
        self._held: Window | None = None
        self._is_even = len(set(buckets.sizes)) == 1
        # A GPU has no int32 variables (TensorFlow takes them for shapes, on the host)
        with self._strategy.scope():
            # under several processes TensorFlow makes no variables of unsigned integers
            self._ids = _make(np.float16 if source.id_type == np.uint16 else np.float32, 1)
            self._stored_type = np.uint16 if source.id_type == np.uint16 else np.uint32
            self._offsets, self._labels = _make(np.int64, 1), _make(np.int64, 1)
            self._first_doc, self._rows = _make(np.int64, 0), _make(np.int64, 2)
            self._weights = tf.Variable(np.append(class_weights, 0).astype(np.float32), False)
        with tf.device("CPU:0"):
            types = [tf.int64, tf.int32, tf.int32]
            self._steps = tf.queue.FIFOQueue(_MOST_BATCHES, types, [[]] * 3)
        self._planned: queue.Queue[tuple[WindowInfo, Window, Plan] | BaseException]
        self._planned = queue.Queue(1)
        self._is_closed = False
        self.iterator: Iterator[Batch] = self
        self._thread = threading.Thread(target=self._produce, name="plan", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread within TensorFlow would crash the process's end

    def poll_window(self, timeout: float) -> WindowInfo | None:
        """As `WindowFeed`; the window is then on the device."""
        try:
            planned = self._planned.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(planned, BaseException):
            raise planned
        info, window, plan = planned
        if window is not self._held:
            stored = window.ids.astype(self._stored_type, copy=False)
            self._ids.assign(stored.view(self._ids.dtype.as_numpy_dtype))
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
        atexit.unregister(self.close)
        self._is_closed = True
        self._source.stop()
        self._thread.join(timeout=CLOSE_SECONDS)

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
        rows, scale = _take_share(rows, size, share, num_replicas)
        return gather_batch(
            self._ids, self._offsets, self._labels, self._first_doc, self._weights, rows, scale,
            width,
        )  # fmt: skip

    def _produce(self) -> None:
        try:
            for planned in self._epochs:
                if not self._offer(planned):
                    return
        except Stopped:  # closed
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
    """A variable of one element as yet, and of any size later.

    With none, TensorFlow 2.21 crashes where it sends them to other processes.
    """
    least = np.zeros([1] * rank, dtype)
    return tf.Variable(least, False, shape=tf.TensorShape([None] * rank))


def _take_share(
    rows: tf.Tensor, size: tf.Tensor, share: tf.Tensor | int, num_replicas: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """One replica's rows of a global batch, and what makes up for the fillers of all of it.

    A batch that the replicas cannot share evenly is filled up, so that what is in a batch does not
    depend on how many they are. Sizes are int32, which TensorFlow keeps on the host.

    Args:
      rows: int64[size], on any device.
      size, share: int32[].
    """
    each = (size + num_replicas - 1) // num_replicas
    num_real = tf.reduce_sum(tf.cast(rows >= 0, tf.float32))
    scale = tf.cast(each * num_replicas, tf.float32) / num_real
    if num_replicas > 1:
        rows = tf.pad(rows, [[0, each * num_replicas - size]], constant_values=FILLER)
        rows = rows[share * each : (share + 1) * each]
    return rows, scale


def gather_batch(
    ids, offsets, labels, first_doc, class_weights, rows, scale, width
) -> Batch:  # fmt: skip
    """The documents `rows` int64[B] of a window, padded to `width` int32[].

    It works in int64, as a GPU has next to no int32 kernels: TensorFlow would fetch the numbers.

    Args:
      ids, offsets, labels, first_doc: the fields of `Window`; ids, or their bits in a float type.
      class_weights: float32[C + 1], the last for labels that training lacks.
      scale: float32[], passed on.
    """
    real = rows >= 0
    safe = tf.maximum(rows, 0)
    starts = tf.gather(offsets, safe)
    lengths = tf.where(real, tf.gather(offsets, safe + 1) - starts, 1)
    with tf.device("CPU:0"):  # a range begins and ends on the host
        positions = tf.range(tf.cast(width, tf.int64))
    inside = positions < tf.where(real, lengths, 0)[:, tf.newaxis]
    where = tf.where(inside, starts[:, tf.newaxis] + positions, 0)
    token_ids = tf.bitcast(tf.gather(ids, where), tf.uint16 if ids.dtype.size == 2 else tf.uint32)
    token_ids = tf.where(inside, tf.cast(token_ids, tf.int64), 0)
    labels = tf.where(real, tf.cast(tf.gather(labels, safe), tf.int64), 0)
    last = tf.size(class_weights, tf.int64) - 1
    weights = tf.where(real, tf.gather(class_weights, tf.minimum(labels, last)), 0.0)
    docs = tf.where(real, first_doc + rows, -1)
    return Batch(
        tf.cast(token_ids, tf.int32), tf.cast(lengths, tf.int32), tf.cast(labels, tf.int32),
        weights, docs, scale,
    )  # fmt: skip
