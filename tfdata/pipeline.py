"""Windows and plans to padded batches, prefetched, for one replica or many.

A producer thread reads and plans one window ahead, and gathers its batches a few at a time into a
TensorFlow queue, from which the compiled loop takes them one by one.
Legend: B documents of a replica's batch, T tokens, D documents of a window, S batches of its plan.
"""

from __future__ import annotations

import abc
import atexit
import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdata.encode_ahead import Stopped
from tfdata.gather import Steps, gather_steps
from tfdata.plan import Buckets, Plan, plan_batches
from tfdata.window import Window, WindowSource

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


_TYPES = (tf.int32, tf.int32, tf.float32, tf.int64, tf.float32, tf.int32, tf.int32)
_RANKS = (2, 1, 1, 1, 1, 0, 0, 0)  # of one step's fields
_AHEAD = 64  # batches


class WindowFeed(abc.ABC):
    """Tells of the windows whose batches come next."""

    @abc.abstractmethod
    def poll_window(self, timeout: float) -> WindowInfo | None:
        """The next window, or None if it takes longer than `timeout` seconds.

        Call it only when all batches of the window before were taken.

        Raises:
          UserError: a shard could not be read.
        """

    def next_window(self) -> WindowInfo:
        """Waits for the next window.

        Raises:
          UserError: a shard could not be read.
        """
        while True:
            info = self.poll_window(timeout=60)
            if info is not None:
                return info

    @contextlib.contextmanager
    def tell_end(self) -> Iterator[None]:
        """Around what takes batches: if none is to come any more, raises what ended the producer.

        Raises:
          UserError: a shard could not be read.
        """
        try:
            yield
        except tf.errors.OutOfRangeError:
            self.poll_window(timeout=0.1)
            raise


class BatchFeed(WindowFeed):
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
        self._strategy = strategy or tf.distribute.get_strategy()
        self._num_replicas = self._strategy.num_replicas_in_sync
        self._replicas = find_replicas(self._strategy)
        self._source = source
        source.start()
        self._epochs = plan_epochs(source, buckets, seed, start)
        self._infos: queue.Queue[WindowInfo | BaseException] = queue.Queue()
        with tf.device("CPU:0"):
            self._steps = tf.queue.FIFOQueue(_AHEAD, (tf.as_dtype(source.id_type), *_TYPES))
        self._is_even = len(set(buckets.sizes)) == 1
        self._class_weights = np.append(class_weights, 0).astype(np.float32)
        self.iterator: Iterator[Batch] = self
        self._thread = threading.Thread(target=self._produce, name="plan", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread within TensorFlow would crash the process's end

    def poll_window(self, timeout: float) -> WindowInfo | None:
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
        self._steps.close(cancel_pending_enqueues=True)
        self._thread.join(timeout=CLOSE_SECONDS)

    def _produce(self) -> None:
        try:
            for info, window, plan in self._epochs:
                self._infos.put(info)
                gathered = gather_steps(
                    window, plan, self._class_weights, self._num_replicas, self._replicas
                )
                for steps in gathered:
                    self._steps.enqueue_many(steps)
        except (tf.errors.CancelledError, Stopped):  # closed
            return
        except BaseException as error:
            self._infos.put(error)
            with contextlib.suppress(tf.errors.CancelledError):  # closed meanwhile
                self._steps.close()  # what is in it can still be taken; nobody waits for more
        finally:
            self._epochs.close()  # the source lets go of what it reads, and of what it writes

    def as_dataset(self) -> tf.data.Dataset:
        """The batches as an endless `tf.data.Dataset`, for Keras's `fit` or another loop than ours.

        Of an epoch, `next_window` tells how many there are. For a single replica.
        """
        return tf.data.Dataset.counter().map(lambda _: next(self)).prefetch(8)

    def __iter__(self) -> BatchFeed:
        return self

    def __next__(self) -> Batch:
        """The next batch, for each replica its share: within a tf.function, across replicas."""
        with tf.device("CPU:0"):
            tensors = self._steps.dequeue()
        for tensor, rank in zip(tensors, _RANKS, strict=True):
            tensor.set_shape([None] * rank)
        return self._strategy.run(self._take_share, args=tuple(tensors))

    def _take_share(self, *fields: tf.Tensor) -> Batch:
        """The rows of this replica, of a step's `Steps`."""
        step = Steps(*fields)
        with tf.device("CPU:0"):  # where it is: half of it may be for another device
            token_ids, lengths, labels, weights, docs, scale = step[:6]
            # where all batches are whole, there is nothing to cut off, and no op to find out
            if self._num_replicas > 1 or not self._is_even:
                share = tf.distribute.get_replica_context().replica_id_in_sync_group
                share -= self._replicas.start
                rows = slice(share * step.sizes, (share + 1) * step.sizes)
                token_ids, lengths, labels = token_ids[rows], lengths[rows], labels[rows]
                weights, docs, scale = weights[rows], docs[rows], tf.identity(scale)
            token_ids = tf.cast(token_ids[:, : step.widths], tf.int32)
        return Batch(token_ids, lengths, labels, weights, docs, scale)


def find_replicas(strategy: tf.distribute.Strategy) -> range:
    """Numbers of this process's replicas among all that train together."""
    numbers: list[int] = []

    def note(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        numbers.append(int(context.replica_id_in_sync_group))
        return tf.zeros([])

    strategy.experimental_distribute_values_from_function(note)
    return range(numbers[0], numbers[-1] + 1)


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
