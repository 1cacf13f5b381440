"""Windows and plans to padded batches, prefetched, for one replica or many.

A producer thread reads and plans one window ahead; everything after that is tf.data in C++.
Legend: B documents of a replica's batch, T tokens, D documents of a window, S batches of its plan.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Generator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdata.plan import FILLER, Buckets, Plan, plan_batches
from tfdata.window import Stopped, Window, WindowSource

CLOSE_SECONDS = 10.0  # most to wait for a record batch in the making


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


class _Columns(NamedTuple):
    """The batches of a window, but for their token ids: what numpy does for all of them at once.

    Fillers fill up the rows of a batch, so that replicas can share them evenly.
    """

    starts: np.ndarray
    """int64[S, B]: where a document's ids begin in the window, like the next five."""
    ends: np.ndarray
    """int64[S, B]; a filler's is its start."""
    lengths: np.ndarray
    """int32[S, B]."""
    labels: np.ndarray
    """int32[S, B]."""
    weights: np.ndarray
    """float32[S, B]."""
    docs: np.ndarray
    """int64[S, B]."""
    scales: np.ndarray
    """float32[S]."""
    widths: np.ndarray
    """int32[S]."""
    sizes: np.ndarray
    """int32[S]: rows of a replica's batch."""


_TYPES = tuple(map(tf.as_dtype, ("int64", "int64", "int32", "int32", "float32", "int64")))
_TYPES += (tf.float32, tf.int32, tf.int32)
_RANKS = (2, 2, 2, 2, 2, 2, 1, 1, 1)


def _fill_columns(
    window: Window, plan: Plan, class_weights: np.ndarray, num_replicas: int
) -> _Columns:
    """Args:
    class_weights: float32[C + 1], the last for labels that training lacks.
    """
    sizes = -(-plan.sizes // num_replicas)
    more = int(sizes.max(initial=0)) * num_replicas - plan.rows.shape[1]
    rows = np.pad(plan.rows, [(0, 0), (0, more)], constant_values=FILLER)
    real = rows >= 0
    safe = np.maximum(rows, 0)
    starts = window.offsets[safe]
    ends = np.where(real, window.offsets[safe + 1], starts)
    labels = np.where(real, window.labels[safe], 0)
    weights = class_weights[np.minimum(labels, len(class_weights) - 1)]
    num_real = real.sum(axis=1, dtype=np.float32)
    return _Columns(
        starts, ends, np.where(real, ends - starts, 1).astype(np.int32), labels,
        np.where(real, weights, np.float32(0)), np.where(real, window.first_doc + rows, -1),
        (sizes * num_replicas).astype(np.float32) / num_real, plan.widths, sizes.astype(np.int32),
    )  # fmt: skip


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
        self._source = source
        source.start()
        self._epochs = plan_epochs(source, buckets, seed, start)
        self._infos: queue.Queue[WindowInfo | BaseException] = queue.Queue()
        self._windows = tf.queue.FIFOQueue(1, (tf.as_dtype(source.id_type), *_TYPES))
        self._num_replicas = under.num_replicas_in_sync
        self._is_even = len(set(buckets.sizes)) == 1
        self._class_weights = np.append(class_weights, 0).astype(np.float32)
        dataset = under.distribute_datasets_from_function(lambda _: self._dataset())
        self.iterator = iter(dataset)
        self._thread = threading.Thread(target=self._produce, name="plan", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread within TensorFlow would crash the process's end

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
        atexit.unregister(self.close)
        self._source.stop()
        self._windows.close(cancel_pending_enqueues=True)
        self._thread.join(timeout=CLOSE_SECONDS)

    def _produce(self) -> None:
        try:
            for info, window, plan in self._epochs:
                columns = _fill_columns(window, plan, self._class_weights, self._num_replicas)
                self._infos.put(info)
                self._windows.enqueue((window.id_tensor, *columns))
        except (tf.errors.CancelledError, Stopped):  # closed
            return
        except BaseException as error:
            self._infos.put(error)
        finally:
            self._epochs.close()  # the source lets go of what it reads, and of what it writes

    def _dataset(self) -> tf.data.Dataset:
        """Batches for the replicas in turn, all of a step from one global batch."""
        # A queue and not `from_generator`: no Python runs in the pipeline's threads, where it
        # could block the end of the process.
        windows = tf.data.Dataset.counter().map(lambda _: self._take_window())
        shares = tf.data.Dataset.range(self._num_replicas, output_type=tf.int32)

        def batches_of(ids, *columns):
            steps = tf.data.Dataset.from_tensor_slices(columns)
            if self._num_replicas == 1:
                # where all batches are whole, there is nothing to cut off, and no op to find out
                cut = (lambda *step: step[:-1]) if self._is_even else (lambda *s: _take_share(s, 0))
                return steps.map(lambda *s: _gather(ids, *cut(*s)), num_parallel_calls=2)
            return steps.flat_map(
                lambda *step: shares.map(lambda share: _gather(ids, *_take_share(step, share)))
            )

        return windows.flat_map(batches_of).prefetch(8)

    def _take_window(self) -> tuple[tf.Tensor, ...]:
        tensors = self._windows.dequeue()
        for tensor, rank in zip(tensors, (1, *_RANKS), strict=True):
            tensor.set_shape([None] * rank)
        return tuple(tensors)


def _take_share(step: tuple[tf.Tensor, ...], share: tf.Tensor | int) -> tuple[tf.Tensor, ...]:
    """One replica's rows of a step, whose fields are those of `_Columns`, but for the sizes."""
    *columns, scale, width, size = step
    first, last = share * size, (share + 1) * size
    return (*(column[first:last] for column in columns), scale, width)


def _gather(ids, starts, ends, lengths, labels, weights, docs, scale, width) -> Batch:
    """The batch of one replica; arguments of the fields of `_Columns`, for one step.

    Few ops: at a few hundred documents a batch their number is what takes the time.
    """
    where = starts[:, tf.newaxis] + tf.range(tf.cast(width, tf.int64))
    inside = where < ends[:, tf.newaxis]
    last = tf.size(ids, tf.int64) - 1
    token_ids = tf.where(inside, tf.cast(tf.gather(ids, tf.minimum(where, last)), tf.int32), 0)
    return Batch(token_ids, lengths, labels, weights, docs, scale)


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
