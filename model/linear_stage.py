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

from model.classifier import Classifier
from model.examination import ask
from model.infer import build_infer
from model.linear import LinearPath, LinearWeights, from_arrays, to_arrays
from model.linear_fit import choose_num_pairs, fit_linear, most_docs
from model.mixture import LEAST_DOCS, Mixture, choose_weight
from model.opened import Run
from model.workers import Workers
from tfdata.config import PipelineConfig
from tfdata.shards import ShardSet
from tfdata.subwords import hash_pieces
from tfdata.window import Window, WindowSource

T = TypeVar("T")

_REACH = 3
"""Words of a pair are so far apart, at most."""
_MOST_TOKENS_WITH_PIECES = 1 << 20
"""Pieces help where there are few words to learn from; where there are many, they take long."""


class LinearStage:
    """What a run's end has to do with it; nothing is written.

    All workers call `attach`, then `refit`, under the strategy's scope; the chief calls `add`
    before, if there is to be one.
    """

    def __init__(
        self, classifier: Classifier, workers: Workers, shard_set: ShardSet,
        config: PipelineConfig, seed: int, *, may_refit: bool, weighs_rare: bool,
    ):  # fmt: skip
        """Args:
        may_refit: with the validation documents.
        weighs_rare: documents of small classes cost more.
        """
        self._classifier, self._workers, self._may_refit = classifier, workers, may_refit
        self._shard_set, self._config, self._seed = shard_set, config, seed
        self._weighs_rare = weighs_rare
        self._weight, self._is_attached = 0.0, False

    def add(self, run: Run) -> tuple[Run, dict[str, Any]]:
        """The run with one that is trained on the training part, as far as it helps; and what came
        of it, for the summary."""
        if self._shard_set.num_docs("valid") < LEAST_DOCS or len(self._shard_set.labels) < 2:
            print(f"no linear classifier: that takes a validation part of {LEAST_DOCS} or more")
            return run, {}
        started = time.perf_counter()
        linear, found = _call_outside(partial(self._add, run))
        if found is None:
            return run, {}
        seconds = time.perf_counter() - started
        print(_describe(found, seconds), flush=True)
        self._weight = found.weight
        facts = {"linear": dataclasses.asdict(found) | {"seconds": round(seconds, 3)}}
        return dataclasses.replace(run, linear=linear), facts

    def attach(self, run: Run | None) -> bool:
        """Gives the classifier what the chief's run has; whether that is one."""
        linear = None if run is None else run.linear
        arrays = None if linear is None else to_arrays(linear)
        arrays = self._workers.take_chiefs(arrays)
        self._is_attached = arrays is not None
        if arrays is not None:
            self._classifier.linear = LinearPath(from_arrays(arrays))
        return self._is_attached

    def refit(self, run: Run | None) -> tuple[Run | None, dict[str, Any]]:
        """Trains it on the validation part, too, which has been scored and has chosen its weight.

        The chief's run with it, and facts for the summary; the classifier has it then.
        """
        if not self._is_attached or not self._wants_refit():
            return run, {}
        facts: dict[str, Any] = {}
        if run is not None:
            started = time.perf_counter()
            linear = _call_outside(partial(self._fit, run, ("train", "valid")))
            if linear is not None:
                run = dataclasses.replace(run, linear=_as_kept(linear.scaled(self._weight)))
                seconds = time.perf_counter() - started
                print(
                    f"linear classifier, {seconds:.1f} s: fitted anew, to the validation "
                    "documents, too; the scores above are of before", flush=True,
                )  # fmt: skip
                facts = {"linear_refit": {"seconds": round(seconds, 3)}}
        self.attach(run)
        return run, facts

    def _wants_refit(self) -> bool:
        """Whether a part of the documents more may be learned from, and has room."""
        num_docs = self._shard_set.num_docs("train") + self._shard_set.num_docs("valid")
        return self._may_refit and num_docs <= most_docs(len(self._shard_set.labels))

    def _add(
        self, run: Run, is_stopped: threading.Event
    ) -> tuple[LinearWeights | None, Mixture | None]:  # fmt: skip
        linear = self._fit(run, ("train",), is_stopped)
        if linear is None:
            return None, None
        has_gpu = bool(tf.config.list_logical_devices("GPU"))
        logits, labels = ask(build_infer(run, has_gpu), run, self._shard_set, "valid")
        both = dataclasses.replace(run, linear=linear)
        mixed, _ = ask(build_infer(both, has_gpu), both, self._shard_set, "valid")
        found = choose_weight(logits, mixed - logits, labels)
        if found is None or not found.weight:
            return None, found
        return _as_kept(linear.scaled(found.weight)), found

    def _fit(
        self, run: Run, parts: Sequence[str], is_stopped: threading.Event
    ) -> LinearWeights | None:
        residency = "stream" if self._config.residency == "stream" else "host"
        config = dataclasses.replace(self._config, residency=residency)
        encoder, shard_set, words = run.build_encoder(), self._shard_set, run.vocabulary
        sources = [
            WindowSource(
                shard_set, part, encoder, vocab_size=len(words), config=config, shuffle_seed=None
            ) for part in parts
        ]  # fmt: skip
        num_tokens = int(shard_set.length_counts @ np.arange(len(shard_set.length_counts)))
        # of both parts, whichever are fitted: they are to have the same features
        num_tokens += num_tokens * shard_set.num_docs("valid") // shard_set.num_docs("train")
        pieces = np.zeros((len(words), 0), np.int32)
        has_words = run.tokenizer.tokenizer == "word"
        if has_words and run.model.pieces and num_tokens <= _MOST_TOKENS_WITH_PIECES:
            pieces = hash_pieces(
                words.entries, words.first_word_id, run.model.pieces, run.tokenizer.unspaced
            )
        with tf.device("CPU:0") if is_op_determinism_enabled() else contextlib.nullcontext():
            return fit_linear(
                _Joined(sources), len(words), len(run.labels),
                num_pairs=choose_num_pairs(_REACH * num_tokens), pieces=pieces, reach=_REACH,
                weighs_rare=self._weighs_rare, seed=self._seed, is_stopped=is_stopped,
            )  # fmt: skip


def _as_kept(linear: LinearWeights) -> LinearWeights:
    """With weights as a file keeps them: what is scored now is what answers later."""
    return from_arrays(to_arrays(linear))


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
    what = f"linear classifier, {seconds:.1f} s: accuracy {alone[0]:.4f}, macro-F1 {alone[1]:.4f}"
    if not found.weight:
        return f"{what}; left out, the network has {accuracy_before:.4f}, {f1_before:.4f}"
    return (
        f"{what}; the network with {found.weight:g} times its values: accuracy "
        f"{accuracy_before:.4f} → {accuracy:.4f}, macro-F1 {f1_before:.4f} → {f1:.4f}, each half "
        "of the validation part by what the other chose (--linear none: without)"
    )
