"""Windows and plans to padded batches, prefetched, for one replica or many.

A producer thread reads and plans one window ahead; everything after that is tf.data in C++.
Legend: B documents of a replica's batch, T tokens, D documents of a window, S batches of its plan.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdata.plan import FILLER, Buckets, Plan, plan_batches
from tfdata.window import Window, WindowSource


class Batch(NamedTuple):
    """What the model sees. Fillers have weight 0, length 1 and number -1."""

    token_ids: tf.Tensor
    """int32[B, T], padded on the right with 0."""
    lengths: tf.Tensor
    """int32[B], 1 or more."""
    labels: tf.Tensor
    """int32[B]; num_classes or more where training lacks the label."""
    weights: tf.Tensor
    """float32[B]: class weights."""
    docs: tf.Tensor
    """int64[B]: number of the document in its part, as this epoch reads it."""
    scale: tf.Tensor
    """float32[]: size of the global batch / its real documents, for the mean of the losses."""


class WindowInfo(NamedTuple):
    """One window as the loop sees it: so many batches are to come."""

    epoch: int
    window: int
    first_batch: int
    """Batches of the plan that were skipped because a resumed run has done them."""
    num_batches: int
    num_docs: int
    num_tokens: int
    """Tokens of the texts themselves."""
    num_padded: int
    """Tokens with the padding, fillers included."""
    is_last: bool
    """No window of this epoch comes after."""


_WINDOW_TYPES = (tf.int64, tf.int32, tf.int64, tf.int32, tf.int32, tf.int32)
_WINDOW_RANKS = (1, 1, 1, 0, 2, 1, 1)
"""ids (of a type that the vocabulary decides), offsets, labels, first_doc, rows, widths, sizes."""


class BatchFeed:
    """An endless run of batches, window after window, epoch after epoch.

    >>> feed = BatchFeed(source, buckets, seed=0, class_weights=w)   # doctest: +SKIP
    >>> info = feed.next_window()                                    # doctest: +SKIP
    >>> for _ in range(info.num_batches): batch = next(feed.iterator)  # doctest: +SKIP
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
        """Starts at (epoch, window, batch) `start`; `seed` None keeps the documents' order.

        Args:
          class_weights: float32[C]; labels beyond C weigh nothing in the loss.
        """
        under = strategy or tf.distribute.get_strategy()
        self._epochs = plan_epochs(source, buckets, seed, start)
        self._infos: queue.Queue[WindowInfo | BaseException] = queue.Queue()
        self._types = (tf.as_dtype(source.id_type), *_WINDOW_TYPES)
        self._windows = tf.queue.FIFOQueue(1, self._types)
        num_replicas = under.num_replicas_in_sync
        dataset = under.distribute_datasets_from_function(
            lambda _: self._dataset(class_weights, num_replicas)
        )
        self.iterator = iter(dataset)
        self._thread = threading.Thread(target=self._produce, name="plan", daemon=True)
        self._thread.start()

    def next_window(self) -> WindowInfo:
        """Waits for the next window.

        Raises:
          UserError: a shard could not be read.
        """
        while True:
            info = self.poll_window(timeout=60)
            if info is not None:
                return info

    def poll_window(self, timeout: float) -> WindowInfo | None:
        """The next window, or None if it takes longer than `timeout` seconds.

        Raises:
          UserError: a shard could not be read.
        """
        try:
            info = self._infos.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(info, BaseException):
            raise info
        return info

    def close(self) -> None:
        """Ends the producer; the iterator is of no use afterwards."""
        self._windows.close(cancel_pending_enqueues=True)
        self._thread.join(timeout=1.0)  # a window in the making is not worth waiting for

    def _produce(self) -> None:
        try:
            for info, window, plan in self._epochs:
                self._infos.put(info)
                self._windows.enqueue(
                    (
                        *window.tensors, np.int64(window.first_doc),
                        plan.rows, plan.widths, plan.sizes,
                    )
                )  # fmt: skip
        except tf.errors.CancelledError:  # closed
            return
        except BaseException as error:
            self._infos.put(error)
        finally:
            self._epochs.close()  # the source lets go of what it reads, and of what it writes

    def _take_window(self) -> tuple[tf.Tensor, ...]:
        tensors = self._windows.dequeue()
        for tensor, rank in zip(tensors, _WINDOW_RANKS, strict=True):
            tensor.set_shape([None] * rank)
        return tuple(tensors)

    def _dataset(self, class_weights: np.ndarray, num_replicas: int) -> tf.data.Dataset:
        """Batches for `num_replicas` replicas in turn, all of a step from one global batch."""
        # A queue and not `from_generator`: no Python runs in the pipeline's threads, where it
        # could block the end of the process.
        windows = tf.data.Dataset.counter().map(lambda _: self._take_window())
        weights = tf.constant(np.append(class_weights, 0), tf.float32)

        def batches_of(ids, offsets, labels, first_doc, rows, widths, sizes):
            steps = tf.data.Dataset.from_tensor_slices((rows, widths, sizes))
            steps = steps.map(
                lambda rows, width, size: (tf.cast(rows[:size], tf.int64), width, size)
            )
            if num_replicas > 1:
                shares = tf.data.Dataset.range(num_replicas)
                steps = steps.flat_map(
                    lambda rows, width, size: shares.map(
                        lambda share: (
                            *take_share(rows, size, tf.cast(share, tf.int32), num_replicas), width
                        )
                    )
                )  # fmt: skip
            else:
                steps = steps.map(lambda rows, width, size: (*take_share(rows, size, 0, 1), width))
            return steps.map(
                lambda rows, scale, width: gather_batch(
                    ids, offsets, labels, first_doc, weights, rows, scale, width
                ),
                num_parallel_calls=2,
            )

        return windows.flat_map(batches_of).prefetch(8)


def plan_epochs(
    source: WindowSource, buckets: Buckets, seed: int | None, start: tuple[int, int, int]
) -> Generator[tuple[WindowInfo, Window, Plan], None, None]:
    """Every window with its batches, epoch after epoch, from (epoch, window, batch) `start` on."""
    epoch, first_window, first_batch = start
    while True:
        num_windows = len(source.docs_of_windows(epoch))
        for number, window in enumerate(source.read(epoch, first_window), first_window):
            key = None if seed is None else (seed, epoch, number)
            plan = plan_batches(window.lengths, buckets, key)
            info = WindowInfo(
                epoch, number, first_batch, len(plan) - first_batch, len(window),
                int(window.offsets[-1]), int((plan.widths.astype(np.int64) * plan.sizes).sum()),
                number == num_windows - 1,
            )  # fmt: skip
            plan = Plan(
                plan.rows[first_batch:], plan.widths[first_batch:], plan.sizes[first_batch:]
            )
            first_batch = 0
            yield info, window, plan
        epoch, first_window = epoch + 1, 0


def take_share(
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
      ids, offsets, labels, first_doc: the fields of `Window`; ids of any integer type.
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
    token_ids = tf.where(inside, tf.cast(tf.gather(ids, where), tf.int64), 0)
    labels = tf.where(real, tf.cast(tf.gather(labels, safe), tf.int64), 0)
    last = tf.size(class_weights, tf.int64) - 1
    weights = tf.where(real, tf.gather(class_weights, tf.minimum(labels, last)), 0.0)
    docs = tf.where(real, first_doc + rows, -1)
    return Batch(
        tf.cast(token_ids, tf.int32), tf.cast(lengths, tf.int32), tf.cast(labels, tf.int32),
        weights, docs, scale,
    )  # fmt: skip
