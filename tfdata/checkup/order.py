"""Does the order of the rows tell their labels, and what would it cost who does not shuffle?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfdata.checkup.classifier import build_features, fit
from tfdata.checkup.corpus import Corpus, own_rows
from tfdata.checkup.finding import Finding, grade, show
from tfdata.checkup.network import fit_buffered
from tfdata.label_order import Drift

_BLOCKS = 20
_SHUFFLES = 10
_MOST_DOCS = 40_000
_TAIL = 0.1
_BUFFER = 1_000
_LEAST_DOCS = 2 * _BUFFER
_LEAST_LOSS = 0.03


def measure_drift(codes: np.ndarray) -> Drift:
    """The drift of classes int32[n] in the order of the file."""
    random = np.random.default_rng(0)
    shuffled = [_distance(random.permutation(codes)) for _ in range(_SHUFFLES)]
    shares = np.bincount(codes) / len(codes)
    return Drift(
        distance=_distance(codes),
        shuffled=float(np.mean(shuffled)),
        spread=float(np.std(shuffled)),
        classes=int((shares > 0).sum()),
        runs=1 + int((codes[1:] != codes[:-1]).sum()),
        runs_shuffled=1 + (len(codes) - 1) * float(1 - np.square(shares).sum()),
    )


def _distance(codes: np.ndarray) -> float:
    num_classes = int(codes.max()) + 1
    blocks = np.arange(len(codes)) * _BLOCKS // len(codes)
    cells = np.bincount(blocks * num_classes + codes, minlength=_BLOCKS * num_classes)
    counts = cells.reshape(_BLOCKS, num_classes)
    counts = counts[counts.sum(axis=1) > 0]
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(np.abs(shares - counts.sum(axis=0) / len(codes)).sum(axis=1).mean() / 2)


@dataclass(frozen=True)
class OrderCost:
    """Accuracies on a tenth of the documents, of models trained on the others."""

    shuffled: float
    """The light classifier, trained and validated on documents from everywhere."""
    tail: float
    """The same, trained on the first nine tenths of the file, shuffled; validated on the last."""
    network: float
    """A small network, trained and validated as `shuffled`."""
    unshuffled: float
    """The network, trained in the order of the file; at most the share of the commonest class where
    the rows are sorted by class."""
    buffered: float
    """The network, trained in the order of the file through a small shuffle buffer.

    It averages word vectors and so forgets less than an LSTM does: the least that it costs.
    """
    buffer: int
    """Documents of that buffer."""
    unseen: float
    """Share of the last tenth whose class the first nine tenths do not have."""
    sample: int
    num_tail: int


def measure_cost(corpus: Corpus, most: int = _MOST_DOCS) -> OrderCost:
    """Trains five times on a sample of at most `most` documents that keeps their order."""
    rows = own_rows(corpus)
    random = np.random.default_rng(0)
    num_rows = len(rows)
    if num_rows > most:
        rows = np.sort(random.choice(rows, most, replace=False))
    features = build_features(corpus.words, len(corpus.labels))[rows]
    codes, num_classes = corpus.codes[rows], len(corpus.labels)
    num_tail = max(1, round(_TAIL * len(rows)))
    places = np.arange(len(rows))
    held = np.zeros(len(rows), bool)
    held[random.permutation(len(rows))[:num_tail]] = True
    head, tail = places[:-num_tail], places[-num_tail:]

    def score(model, tested: np.ndarray) -> float:
        return float((model.predict(features[tested]) == codes[tested]).mean())

    waiting = _BUFFER * len(rows) // num_rows  # as large a part of the sample as of the file
    train, tested = places[~held], places[held]
    unshuffled = score(fit_buffered(features, codes, train, num_classes, 0), tested)
    if measure_drift(codes).kind == "sorted":
        # One class after the other leaves a recurrent network, which shares all its weights, with
        # one answer; the bag of words keeps what the words of each class are its own.
        unshuffled = min(unshuffled, float(np.bincount(codes[tested]).max() / len(tested)))
    return OrderCost(
        shuffled=score(fit(features, codes, train, num_classes), tested),
        tail=score(fit(features, codes, head, num_classes), tail),
        network=score(fit_buffered(features, codes, train, num_classes, 100 * num_rows), tested),
        unshuffled=unshuffled,
        buffered=score(fit_buffered(features, codes, train, num_classes, waiting), tested),
        buffer=_BUFFER,
        unseen=float((~np.isin(codes[tail], codes[head])).mean()),
        sample=len(rows),
        num_tail=num_tail,
    )


TITLES = {
    "sorted": "the rows are sorted by class: {runs:,} stretches of one label for {classes:,} "
    "classes, shuffled {runs_shuffled:,.0f}",
    "clumped": "rows of a class stand together: {runs:,} stretches of one label, shuffled "
    "{runs_shuffled:,.0f}",
    "drifting": "labels drift along the file: a twentieth of it differs from the whole by "
    "{distance:.0%} of its labels, shuffled {shuffled:.0%}",
    None: "texts drift along the file, though labels hardly do",
}


def check_order(corpus: Corpus, cost: OrderCost | None) -> list[Finding]:
    """The finding `order`; without a `cost`, what the labels alone tell."""
    rows = own_rows(corpus)
    if len(rows) < 2 * _BLOCKS:
        return []
    codes = corpus.codes[rows]
    drift = measure_drift(codes)
    loss, noise = 0.0, 0.0
    if cost is not None:
        loss = max(cost.shuffled - cost.tail, cost.network - cost.unshuffled)
        noise = 3 * np.sqrt(0.5 / cost.num_tail)
    if drift.kind is None and loss <= max(_LEAST_LOSS, noise):
        return []
    figures = {
        "label_distance": drift.distance, "label_distance_shuffled": drift.shuffled,
        "runs": drift.runs, "runs_shuffled": drift.runs_shuffled,
    }  # fmt: skip
    effect = "A split that takes the last rows, or a shuffle buffer, sees other classes in each."
    severity = "high" if drift.kind == "sorted" else "medium"
    if cost is not None:
        figures |= {
            "accuracy_shuffled": cost.shuffled, "accuracy_tail": cost.tail,
            "accuracy_network": cost.network, "accuracy_unshuffled": cost.unshuffled,
            "accuracy_buffer": cost.buffered, "buffer": cost.buffer, "unseen_in_tail": cost.unseen,
        }  # fmt: skip
        severity = grade(loss, 0.1, _LEAST_LOSS)
        effect = (
            f"A light classifier scores {cost.shuffled:.2f} shuffled, {cost.tail:.2f} when the "
            f"last tenth validates ({cost.unseen:.0%} of it of classes never seen before); a small "
            f"network of averaged word vectors {cost.network:.2f} shuffled, {cost.unshuffled:.2f} "
            f"when it trains in this order, {cost.buffered:.2f} at most through a shuffle buffer "
            f"of {cost.buffer:,}, since an LSTM forgets more."
        )
    return [
        Finding(
            name="order",
            severity=severity,
            title=TITLES[drift.kind].format(**vars(drift)),
            count=len(rows),
            of=len(rows),
            examples=(
                f"first tenth: {_commonest(corpus, codes[: len(codes) // 10])}",
                f"last tenth: {_commonest(corpus, codes[-(len(codes) // 10) :])}",
            ),
            effect=effect,
            figures=figures,
            mend="nothing to do here: train.py and tfdata.ingest shuffle globally; elsewhere, "
            "shuffle the file before splitting it. If rows stand in order of time, --split time "
            "--time COL gives the figure to expect of new texts",
            sample=cost.sample if cost is not None and cost.sample < len(rows) else None,
        )
    ]


def _commonest(corpus: Corpus, codes: np.ndarray) -> str:
    counts = np.bincount(codes, minlength=len(corpus.labels))
    best = np.argsort(-counts, kind="stable")[:3]
    return ", ".join(
        f"{show(corpus.labels[code], 30)} {counts[code] / len(codes):.0%}"
        for code in best
        if counts[code]
    )


def may_measure(corpus: Corpus) -> bool:
    """Are there documents and classes enough for `measure_cost`?"""
    codes = corpus.codes[own_rows(corpus)]
    return len(codes) >= _LEAST_DOCS and len(np.unique(codes)) > 1
