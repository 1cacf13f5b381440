"""Networks to time, and the running of their training steps."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf

from model.classifier import Classifier
from model.config import ModelConfig
from model.flags import Flags
from model.lstm import count_blocks
from model.network import find_routes
from model.optimizer import Adam, choose_lazy
from model.step import build_train_chunk
from model.words import WordParts
from shortline import UserError

VARIANTS: dict[str, float | None] = {
    "keras_cudnn": None, "two_calls": 0.0, "no_dropout": 0.0, "dropout_0.2": 0.2,
}  # fmt: skip
"""Networks that differ from the preset's in one thing, and their dropout (None: the preset's).

keras_cudnn is keras.layers.LSTM with `use_cudnn=True`. Without dropout between them, cuDNN takes
all layers in one call (no_dropout), or each in one (two_calls); dropout that is not zero is outside
of cuDNN and parts them too.
"""
_NUM_STEPS = 1_000_000  # of the schedule: it must not end while we time


@dataclass
class Network:
    """Classifier and optimizer of one route, as train.py makes them."""

    classifier: Classifier
    optimizer: Adam
    flags: Flags
    step: int = 0
    """Steps that all runs have trained so far."""


class TwoCalls(Classifier):
    """A call of cuDNN for each layer, also where nothing is between them."""

    def _is_one_call(self, is_dropping: bool) -> bool:
        return False


def choose_routes(asked: Sequence[str], has_gpu: bool, precision: str) -> list[str]:
    """The routes asked for, or else all that run here, the one that training takes first.

    Raises:
      UserError: one that does not run here.
    """
    found = find_routes(has_gpu, precision)
    for route in asked:
        if route not in found:
            raise UserError(
                f"--routes {route}: does not run here in {precision}; choose from "
                + ", ".join(found)
            )
    return list(dict.fromkeys(asked)) or found


def choose_variants(asked: Sequence[str], has_gpu: bool, config: ModelConfig) -> list[str]:
    """The variants asked for, or else on a GPU all that differ from the preset's network.

    Raises:
      UserError: one that does not run here.
    """
    if "keras_cudnn" in asked and not has_gpu:
        raise UserError("--variants keras_cudnn: needs a GPU and none is in use; leave it out")
    if asked or not has_gpu:
        return list(dict.fromkeys(asked))
    is_stack = config.num_layers > 1 and not config.bidirectional
    return list(VARIANTS) if is_stack else ["keras_cudnn"]


def build_network(
    flags: Flags, route: str, precision: str, variant: str | None = None, *, vocab_size: int,
    num_classes: int, unknown_id: int, parts: WordParts | None = None,
) -> Network:  # fmt: skip
    """Call it under the strategy scope, like all of this file.

    Args:
      variant: of `VARIANTS`; None is the preset's network.
    """
    dropout = flags.model.dropout if variant is None else VARIANTS[variant]
    config = flags.model if dropout is None else dataclasses.replace(flags.model, dropout=dropout)
    kind = TwoCalls if variant == "two_calls" else Classifier
    classifier = kind(
        config, vocab_size=vocab_size, num_classes=num_classes, unknown_id=unknown_id,
        route="keras" if variant == "keras_cudnn" else route, precision=precision,
        seed=flags.train.seed, parts=parts,
    )  # fmt: skip
    if variant == "keras_cudnn":
        for layer in itertools.chain(*classifier.lstms):
            layer.use_cudnn = True
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
    classifier = network.classifier
    num_blocks = count_blocks(classifier.route, num_rows)
    on_cpu = not tf.config.list_logical_devices("GPU")
    lazy = choose_lazy(num_rows * num_tokens, classifier.weights_by_name) if on_cpu else ()
    network.optimizer.begin(network.step, lazy)
    train_chunk = build_train_chunk(
        network.classifier, network.optimizer, iterator,
        seed=config.seed, label_smoothing=config.label_smoothing or 0.0, num_blocks=num_blocks,
    )  # fmt: skip

    def run(num_steps: int) -> int:
        sums = train_chunk(network.step, num_steps)
        network.step += num_steps
        if sums.num_bad_steps:
            raise ArithmeticError(f"the loss is not finite in {sums.num_bad_steps} timed steps")
        return sums.num_docs

    return run
