"""What a trained run is asked when all is done: how honest it is, and which words decide.

It is asked as model.predict asks it, from texts, in float32. Legend: D documents, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from model.attribution import attribute
from model.calibration import (
    Calibration,
    CalibrationCheck,
    calibrate,
    quantiles,
    sample_size,
)
from model.confidence import bin_reliability, chance_error
from model.infer import build_infer, docs_per_call
from model.longtail import Adjustment, choose_power, find_shift
from model.opened import Run
from model.report_words import Explained
from model.scope import energy
from tfdata.shards import ShardSet, read_batches
from tfdata.spans import find_words

Infer = Callable[[pa.Array], tf.Tensor]

_CALL_DOCS = 4096


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What came of it."""

    calibration: Calibration
    check: CalibrationCheck | None
    """None without a validation part that is large enough."""
    explained: list[Explained]
    """In the order asked for."""

    def summary(self) -> dict[str, Any]:
        """For summary.json."""
        found: dict[str, Any] = {"temperature": self.calibration.temperature}
        if self.check is not None:
            found["calibration"] = self.check.summary()
        return found


def examine(
    run: Run, shard_set: ShardSet, questions: Sequence[tuple[str, int, int]] = ()
) -> Examination:
    """Finds the temperature; explains the answers to some texts.

    To be called outside of any strategy's scope. Of a large part only some documents are asked for
    their probabilities, evenly spread over it.

    Args:
      questions: (text, label, predicted) of the documents to explain.
    """
    infer = build_infer(run, has_gpu=bool(tf.config.list_logical_devices("GPU")))
    calibration, check = Calibration(logit_shift=run.calibration.logit_shift), None
    if shard_set.num_docs("valid"):
        logits, labels = ask(infer, run, shard_set, "valid")
        if (found := calibrate(logits, labels)) is not None:
            temperature, check = found
            energies = energy(tf.constant(logits), temperature).numpy()
            calibration = dataclasses.replace(
                calibration, temperature=temperature, num_docs=len(labels),
                energies=quantiles(energies),
            )  # fmt: skip
    run = dataclasses.replace(run, calibration=calibration)
    labels = [*run.labels, *shard_set.unseen_labels]
    explained = _explain(infer, run, labels, questions)
    return Examination(calibration=calibration, check=check, explained=explained)


def adjust_long_tail(run: Run, shard_set: ShardSet) -> tuple[Run, Adjustment | None]:
    """The run with what model.longtail makes of the validation part, and what that was; None where
    it has too few documents, or there is none.

    To be called outside of any strategy's scope, before `examine`.
    """
    run = dataclasses.replace(run, calibration=Calibration())
    found = None
    if shard_set.num_docs("valid"):
        infer = build_infer(run, has_gpu=bool(tf.config.list_logical_devices("GPU")))
        found = choose_power(*ask(infer, run, shard_set, "valid"), shard_set.label_counts)
    if found is not None and found.power:
        shift = tuple(find_shift(shard_set.label_counts, found.power).tolist())
        run = dataclasses.replace(run, calibration=Calibration(logit_shift=shift))
    return run, found


def check_test(run: Run, shard_set: ShardSet) -> dict[str, Any]:
    """num_docs, ece_before, ece_after and ece_by_chance on the test part, for summary.json.

    To be called outside of any strategy's scope.
    """
    infer = build_infer(run, has_gpu=bool(tf.config.list_logical_devices("GPU")))
    logits, labels = ask(infer, run, shard_set, "test")
    right = logits.argmax(axis=1) == labels
    before, after = (
        tf.reduce_max(tf.nn.softmax(logits / np.float32(t)), axis=1).numpy()
        for t in (1.0, run.calibration.temperature)
    )
    return {
        "num_docs": len(labels),
        "ece_before": bin_reliability(before, right).error,
        "ece_after": bin_reliability(after, right).error,
        "ece_by_chance": chance_error(after),
    }


def _explain(
    infer: Infer, run: Run, labels: Sequence[str], questions: Sequence[tuple[str, int, int]]
) -> list[Explained]:  # fmt: skip
    """What the words of a text have to do with its prediction, and with its label if it is another
    that the run knows."""
    if not questions:
        return []
    num_classes, temperature = len(run.labels), run.calibration.temperature
    scaled = infer(pa.array([text for text, _, _ in questions])) / temperature
    probabilities = tf.nn.softmax(scaled).numpy()
    asked = [(text, predicted) for text, _, predicted in questions]
    wrong = {n for n, (_, label, answer) in enumerate(questions) if answer != label < num_classes}
    asked += [questions[n][:2] for n in sorted(wrong)]
    found = attribute(
        infer, [text for text, _ in asked], [find_words(text, run.tokenizer) for text, _ in asked],
        [number for _, number in asked], num_classes=num_classes, temperature=temperature,
    )  # fmt: skip
    by_label = dict(zip(sorted(wrong), found[len(questions) :], strict=True))
    return [
        Explained(
            labels[label], labels[predicted], float(probabilities[n, predicted]), found[n],
            by_label.get(n),
        )
        for n, (_, label, predicted) in enumerate(questions)
    ]  # fmt: skip


def ask(
    infer: Infer, run: Run, shard_set: ShardSet, part: str
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Logits float32[D, C] and labels int32[D] of documents of a part."""
    stride = -(-shard_set.num_docs(part) // sample_size(len(run.labels)))
    size = docs_per_call(run, _CALL_DOCS)
    logits, labels, first = [], [], 0
    for texts, numbers in read_batches(shard_set, part):
        chosen = np.arange(-first % stride, len(texts), stride)
        first += len(texts)
        texts = texts.take(pa.array(chosen))
        logits += [infer(texts.slice(i, size)).numpy() for i in range(0, len(texts), size)]
        labels.append(numbers[chosen])
    return np.concatenate(logits), np.concatenate(labels)
