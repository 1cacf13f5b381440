"""After the network's training: the linear classifier that is to answer along with it."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # not public as yet

from model.calibration import Calibration, read_calibration
from model.classifier import Classifier
from model.examination import ask
from model.infer import build_infer
from model.linear import (
    LinearPath,
    LinearWeights,
    from_arrays,
    read_linear,
    to_arrays,
    write_linear,
)
from model.linear_fit import choose_num_pairs, fit_linear
from model.mixture import LEAST_DOCS, Mixture, choose_weight
from model.opened import Run, open_run
from model.run import RunPaths
from model.workers import Workers
from tfdata.config import PipelineConfig
from tfdata.shards import ShardSet
from tfdata.subwords import hash_pieces
from tfdata.window import Window, WindowSource

T = TypeVar("T")

_MOST_REFIT_DOCS = 200_000
_MOST_TOKENS_WITH_PIECES = 1 << 21
"""Of more words there are enough to learn from, and their pieces would take ten times as long."""


def add_linear(
    paths: RunPaths, shard_set: ShardSet, config: PipelineConfig, seed: int
) -> dict[str, Any]:
    """Trains it on the training part and writes it to the run, as far as it helps; what came of it,
    for the summary.

    It may be called under a strategy's scope.
    """
    if shard_set.num_docs("valid") < LEAST_DOCS or len(shard_set.labels) < 2:
        return {}
    started = time.perf_counter()
    found = _call_outside(partial(_add, paths, shard_set, config, seed))
    if found is None or not found.weight:  # one of a finish before stays until here
        remove_linear(paths)
    if found is None:
        return {}
    seconds = time.perf_counter() - started
    print(_describe(found, seconds), flush=True)
    return {"linear": dataclasses.asdict(found) | {"seconds": round(seconds, 3)}}


def remove_linear(paths: RunPaths) -> None:
    """Of a finish before; and what was calibrated with it, which the finish makes anew."""
    if paths.linear.exists() or read_calibration(paths.calibration).has_linear:
        paths.calibration.unlink(missing_ok=True)
        paths.linear.unlink(missing_ok=True)


def refit_linear(
    paths: RunPaths, shard_set: ShardSet, config: PipelineConfig, seed: int, weight: float
) -> dict[str, Any]:
    """Trains it on the validation part too, where that part has been scored and has chosen the
    weight, and writes it to the run; facts for the summary.

    It may be called under a strategy's scope.
    """
    started = time.perf_counter()
    if not _call_outside(partial(_refit, paths, shard_set, config, seed, weight)):
        return {}
    seconds = time.perf_counter() - started
    print(
        f"linear classifier, {seconds:.1f} s: fitted again, to the validation documents too; what "
        "is said above of them is without that", flush=True,
    )  # fmt: skip
    return {"linear_refit": {"seconds": round(seconds, 3)}}


def wants_refit(shard_set: ShardSet) -> bool:
    """Whether there are so few documents that a part of them more is worth the time."""
    return shard_set.num_docs("train") <= _MOST_REFIT_DOCS


def _call_outside(function: Callable[[threading.Event], T]) -> T:
    """In a thread of its own, which has no strategy scope: there, variables would be mirrored.

    It is passed what is set when it is to give up.
    """
    is_stopped = threading.Event()
    with ThreadPoolExecutor(1) as outside:
        future = outside.submit(function, is_stopped)
        try:
            return future.result()
        except BaseException:
            is_stopped.set()
            raise


def _add(
    paths: RunPaths, shard_set: ShardSet, config: PipelineConfig, seed: int,
    is_stopped: threading.Event,
) -> Mixture | None:  # fmt: skip
    run = open_run(paths.folder, is_calibrated=False, has_linear=False)
    linear = _fit(run, shard_set, ("train",), config, seed, is_stopped)
    if linear is None:
        return None
    has_gpu = bool(tf.config.list_logical_devices("GPU"))
    logits, labels = ask(build_infer(run, has_gpu), run, shard_set, "valid")
    both = dataclasses.replace(run, linear=linear, calibration=Calibration())
    mixed, _ = ask(build_infer(both, has_gpu), both, shard_set, "valid")
    found = choose_weight(logits, mixed - logits, labels)
    if found is not None and found.weight and not is_stopped.is_set():
        write_linear(paths.linear, linear.scaled(found.weight))
    return found


def _refit(
    paths: RunPaths, shard_set: ShardSet, config: PipelineConfig, seed: int, weight: float,
    is_stopped: threading.Event,
) -> bool:  # fmt: skip
    run = open_run(paths.folder, is_calibrated=False, has_linear=False)
    linear = _fit(run, shard_set, ("train", "valid"), config, seed, is_stopped)
    if linear is not None and not is_stopped.is_set():
        write_linear(paths.linear, linear.scaled(weight))
    return linear is not None


def _fit(
    run: Run, shard_set: ShardSet, parts: Sequence[str], config: PipelineConfig, seed: int,
    is_stopped: threading.Event,
) -> LinearWeights | None:  # fmt: skip
    residency = "stream" if config.residency == "stream" else "host"
    config, encoder = dataclasses.replace(config, residency=residency), run.build_encoder()
    sources = [
        WindowSource(
            shard_set, part, encoder, vocab_size=len(run.vocabulary), config=config,
            shuffle_seed=None,
        ) for part in parts
    ]  # fmt: skip
    num_tokens = int(shard_set.length_counts @ np.arange(len(shard_set.length_counts)))
    pieces = np.zeros((len(run.vocabulary), 0), np.int32)
    has_words = run.tokenizer.tokenizer == "word"
    if has_words and run.model.pieces and num_tokens <= _MOST_TOKENS_WITH_PIECES:
        words = run.vocabulary
        pieces = hash_pieces(words.entries, words.first_word_id, run.model.pieces)
    with tf.device("CPU:0") if is_op_determinism_enabled() else contextlib.nullcontext():
        return fit_linear(
            _Joined(sources), len(run.vocabulary), len(run.labels),
            num_pairs=choose_num_pairs(num_tokens), pieces=pieces, seed=seed,
            is_stopped=is_stopped,
        )  # fmt: skip


class _Joined:
    """Sources one after the other."""

    def __init__(self, sources: Sequence[WindowSource]):
        self._sources = sources
        self.num_docs = sum(source.num_docs for source in sources)

    def read(self, epoch: int) -> Iterator[Window]:
        first_doc = 0
        for source in self._sources:
            for window in source.read(epoch):
                yield dataclasses.replace(window, first_doc=first_doc + window.first_doc)
            first_doc += source.num_docs


def _describe(found: Mixture, seconds: float) -> str:
    alone, (accuracy_before, f1_before), (accuracy, f1) = found.alone, found.before, found.after
    what = f"linear classifier, {seconds:.1f} s: accuracy {alone[0]:.4f}, macro-F1 {alone[1]:.4f}; "
    if not found.weight:
        return f"{what}it would spoil the network's {accuracy_before:.4f}, {f1_before:.4f}"
    return (
        f"{what}added to the network's logits {found.weight:g} times, as halves of the validation "
        f"part chose for each other: accuracy {accuracy_before:.4f} → {accuracy:.4f}, macro-F1 "
        f"{f1_before:.4f} → {f1:.4f} (--linear none: the network alone)"
    )


def attach_linear(paths: RunPaths, classifier: Classifier, workers: Workers) -> bool:
    """Gives the classifier what the chief has written, if it has; whether it had.

    All workers call it, under the strategy's scope.
    """
    found = None
    if workers.is_chief:
        found = read_linear(paths.linear, classifier.num_classes, classifier.vocab_size)
    arrays = workers.take_chiefs(None if found is None else to_arrays(found))
    if arrays is None:
        return False
    classifier.linear = LinearPath(from_arrays(arrays))
    return True
