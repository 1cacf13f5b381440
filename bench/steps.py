"""Training steps on batches that are kept in memory, without the input pipeline.

Legend: B documents, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from model.classifier import Classifier
from model.flags import Flags
from model.lstm import choose_route, count_blocks
from model.optimizer import Adam, is_lazy_faster
from model.step import build_train_chunk
from shortline import UserError
from tfdata.pipeline import Batch

ROUTES = ("cudnn", "cudnn_v3", "block", "keras")
_NUM_STEPS = 1_000_000  # of the schedule: it must not end while we time


@dataclass
class Network:
    """Classifier and optimizer of one route, as train.py makes them."""

    classifier: Classifier
    optimizer: Adam
    flags: Flags
    step: int = 0
    """Steps that all runs have trained so far."""


def find_routes(asked: Sequence[str], has_gpu: bool, precision: str) -> list[str]:
    """The routes asked for, or else all that run here, the one that training takes first.

    Raises:
      UserError: one that does not run here.
    """
    found = {}
    for route in ROUTES:
        try:
            found[choose_route(route, has_gpu, precision)[0]] = True
        except ValueError as error:
            if route in asked:
                raise UserError(
                    f"--routes {route}: does not run here in {precision}; choose from "
                    + ", ".join(find_routes((), has_gpu, precision))
                ) from error
    return list(dict.fromkeys(asked)) or list(found)


def build_network(
    flags: Flags, route: str, precision: str, *, vocab_size: int, num_classes: int, unknown_id: int
) -> Network:
    """Call it under the strategy scope, like all of this file."""
    classifier = Classifier(
        flags.model, vocab_size=vocab_size, num_classes=num_classes, unknown_id=unknown_id,
        route=route, precision=precision, seed=flags.train.seed,
    )  # fmt: skip
    optimizer = Adam(
        classifier.weights_by_name, flags.train, _NUM_STEPS, scale_loss=precision == "mixed_float16"
    )
    return Network(classifier, optimizer, flags)


def build_run(
    network: Network, iterator: Iterator, num_rows: int, num_tokens: int
) -> Callable[[int], int]:
    """`run(num_steps)` trains on the iterator's next batches; returns their real documents.

    A replica's batch has `num_rows` rows of at most `num_tokens`.

    It calls model.step.build_train_chunk's function, which is what train.py calls. That one has an
    input signature and is traced here, so that no shape of batch makes TensorFlow trace it again.
    """
    config = network.flags.train
    route, vocab_size = network.classifier.route, network.classifier.vocab_size
    num_blocks = count_blocks(route, num_rows)
    on_cpu = not tf.config.list_logical_devices("GPU")
    is_lazy = on_cpu and is_lazy_faster(num_rows * num_tokens, vocab_size)
    network.optimizer.begin(network.step, is_lazy)
    train_chunk = build_train_chunk(
        network.classifier, network.optimizer, iterator,
        seed=config.seed, label_smoothing=config.label_smoothing, num_blocks=num_blocks,
    )  # fmt: skip

    def run(num_steps: int) -> int:
        sums = train_chunk(network.step, num_steps)
        network.step += num_steps
        if sums.num_bad_steps:
            raise ArithmeticError(f"the loss is not finite in {sums.num_bad_steps} timed steps")
        return sums.num_docs

    return run


def make_batch(num_docs: int, num_tokens: int, vocab_size: int, num_classes: int) -> Batch:
    """A made-up batch int32[B, T] of full-length texts whose words follow Zipf's law."""
    random = np.random.default_rng([num_docs, num_tokens])
    ranks = np.exp(random.random((num_docs, num_tokens)) * np.log(vocab_size - 1))
    return Batch(
        token_ids=tf.constant(ranks.astype(np.int32)),
        lengths=tf.fill([num_docs], num_tokens),
        labels=tf.constant(random.integers(0, num_classes, num_docs), tf.int32),
        weights=tf.ones([num_docs]),
        docs=tf.range(num_docs, dtype=tf.int64),
        scale=tf.ones([]),
    )


def repeat_batches(batches: Sequence[Batch]) -> Iterator:
    """An endless iterator over batches in memory, of the same element type as BatchFeed's.

    A replica takes the next batch, so that with several of them B is documents of a replica.
    """
    # The shape of an element is what its parts' have in common: the empty part, of which nothing is
    # taken, keeps the graph from knowing B and T, which it does not know in train.py either.
    dataset = tf.data.Dataset.from_tensors(make_batch(0, 0, 3, 2)).take(0)
    for batch in batches:
        dataset = dataset.concatenate(tf.data.Dataset.from_tensors(batch))
    strategy = tf.distribute.get_strategy()
    return iter(strategy.distribute_datasets_from_function(lambda _: dataset.repeat()))
