"""The network and its optimizer, by the best route there is here."""

from __future__ import annotations

import contextlib

import tensorflow as tf

from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.lstm import choose_route
from model.optimizer import Adam
from model.words import WordParts
from shortline import UserError

_ROUTES = ("cudnn", "block", "keras")


def find_routes(has_gpu: bool, precision: str) -> list[str]:
    """The LSTM's routes that run here, the one that training takes first.

    >>> find_routes(False, "float32")
    ['block', 'keras']
    """
    found: dict[str, None] = {}
    for route in _ROUTES:
        with contextlib.suppress(ValueError):
            found[choose_route(route, has_gpu, precision)[0]] = None
    return list(found)


def settle_precision(config: ModelConfig) -> str:
    return "float32" if config.precision == "auto" else config.precision


def settle_route(config: ModelConfig, has_gpu: bool) -> tuple[str, str]:
    """The route to take and, in words, why.

    Raises:
      UserError: the one asked for does not run here.
    """
    precision = settle_precision(config)
    try:
        return choose_route(config.route, has_gpu, precision)
    except ValueError as error:
        where = "on a GPU" if has_gpu else "without a GPU"
        *others, last = "auto", *find_routes(has_gpu, precision)
        raise UserError(
            f"--route {config.route}: does not run {where} in {precision}; choose "
            f"{', '.join(others)} or {last}"
        ) from error


def make_deterministic(has_gpu: bool) -> None:
    """Has TensorFlow take kernels that round the same way every time; says what that costs."""
    tf.config.experimental.enable_op_determinism()
    if has_gpu:
        print("deterministic: slower kernels on the GPU: preset seed took 1.7 times as long on one")
    else:
        print("deterministic: a CPU repeats bitwise without it, by kernels that round otherwise")


def build_network(
    config: ModelConfig, training: TrainConfig, route: str, precision: str, *, vocab_size: int,
    num_classes: int, unknown_id: int, num_steps: int, parts: WordParts | None = None,
) -> tuple[Classifier, Adam]:  # fmt: skip
    """Call it under the strategy scope.

    Args:
      num_steps: of all epochs, for the schedule of the learning rate.
    """
    classifier = Classifier(
        config, vocab_size=vocab_size, num_classes=num_classes, unknown_id=unknown_id,
        route=route, precision=precision, seed=training.seed, parts=parts,
    )  # fmt: skip
    scale_loss = precision == "mixed_float16"
    optimizer = Adam(classifier.weights_by_name, training, num_steps, scale_loss=scale_loss)
    return classifier, optimizer
