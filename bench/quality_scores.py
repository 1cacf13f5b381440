"""The scores of predicted labels, the same for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from bench.quality_sets import OUT_OF_SCOPE, QualitySet


def score_rows(data: QualitySet, predicted: Path) -> dict[str, dict[str, Any]]:
    """Scores by the rows they are of: `all rows`, and `in scope` where some rows are out of it.

    Args:
      predicted: Parquet with a column `label`, a row for each of `data.scored`, in order.
    """
    truth = np.array(data.read_truth(), object)
    labels = np.array(pq.read_table(predicted, columns=["label"])["label"].to_pylist(), object)
    counts = data.count_labels()
    scores = {"all rows": score_labels(truth, labels, counts)}
    in_scope = truth != OUT_OF_SCOPE
    if in_scope.any() and not in_scope.all():
        scores["in scope"] = score_labels(truth[in_scope], labels[in_scope], counts)
    return scores


def score_labels(
    truth: Sequence[str] | np.ndarray, predicted: Sequence[str] | np.ndarray, counts: dict[str, int]
) -> dict[str, Any]:
    """accuracy, macro_f1, weighted_f1, num_docs, and the macro-F1 of head, mid and tail.

    Args:
      counts: training rows by label; thirds go by it, among equals by name.
    """
    from model.scores import score
    from model.step import Predictions

    by_size = sorted(counts, key=lambda label: (-counts[label], label))
    id_of = {label: number for number, label in enumerate(by_size)}
    ids = [
        np.array([id_of.setdefault(label, len(id_of)) for label in labels], np.int32)
        for labels in (predicted, truth)
    ]
    none = np.zeros(len(ids[0]), np.float32)  # labels alone are scored
    scores = score(
        Predictions(ids[1], ids[0], none, none), np.array([counts[label] for label in by_size])
    )
    names = ("num_docs", "accuracy", "macro_f1", "weighted_f1")
    thirds = {name: third["macro_f1"] for name, third in scores.thirds.items()}
    return {name: getattr(scores, name) for name in names} | {"thirds": thirds}
