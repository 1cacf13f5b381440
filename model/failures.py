"""What can go wrong with a training that is nobody's bug, in words."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from shortline import UserError, printable


@contextlib.contextmanager
def tell_refit(folder: Path) -> Iterator[None]:
    """What fails within the block is said to be of the other network (model.refit)."""
    hint = (
        "that was the other network, the first is whole: to end the run with it alone: "
        f"python train.py --resume {printable(str(folder))} --refit none"
    )
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; {hint}") from error
    except (MemoryError, tf.errors.ResourceExhaustedError):
        print(hint, file=sys.stderr)
        raise


@contextlib.contextmanager
def tell_memory() -> Iterator[None]:
    """Running out of memory becomes a UserError; on a disk, TensorFlow's words are an OSError's."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        if "No space left" in str(error):
            raise UserError(f"no space left on the disk: {error}") from error
        raise UserError(
            "out of memory; what has been saved is kept, and --resume goes on from it where there "
            "is more; a new run takes less with a smaller --batch-size, --max-len or --vocab-size, "
            f"or with --residency stream ({_first_line(error)})"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def describe_bad_step(step: int, epoch: int, rows: str) -> str:
    """Of the first step of which the loss or the gradient was not finite.

    Args:
      step, epoch: counted from 0.
      rows: of its batch, in words.
    """
    return (
        f"the loss or its gradient is not finite at step {step}, in epoch {epoch + 1}; its batch "
        f"is made of {rows}; what was saved before is kept; try a smaller --learning-rate, a "
        "--clip-norm, or --precision float32; or leave out such steps, with --skip-nonfinite"
    )
