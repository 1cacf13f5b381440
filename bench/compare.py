"""What the records of several arms come to: time to a target, medians over turns, ratios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Record = Mapping[str, Any]
"""What bench.arms.run_arm returns, or of an arm that failed only `arm`, `seed` and `error`."""


def find_target(epochs: Sequence[Record], target: float) -> Record | None:
    """The first epoch after which the validation accuracy is at least `target`.

    >>> epochs = [{"epoch": 1, "accuracy": 0.9}, {"epoch": 2, "accuracy": 0.95}]
    >>> find_target(epochs, 0.95)["epoch"], find_target(epochs, 0.96)
    (2, None)
    """
    return next((epoch for epoch in epochs if epoch["accuracy"] >= target), None)


def summarise(records: Sequence[Record], target: float) -> dict[str, Any]:
    """The medians of one arm over its turns; a time to the target only where most reach it.

    epoch_seconds and docs_per_s are of steady epochs, train_seconds of all of them, target_seconds
    likewise up to the target, none with validation; target_wall_seconds, wall_seconds and joules
    have the start-up and the validation in them. Accuracy and macro-F1 are the last epoch's.
    """
    done = [record for record in records if "error" not in record]
    if not done:
        return {"error": records[0]["error"], "num_turns": 0}
    reached = [find_target(record["epochs"], target) for record in done]
    last = [max(record["epochs"], key=lambda epoch: epoch["epoch"]) for record in done]

    def over(values: Sequence[float | None]) -> float | None:
        middle = median(math.inf if value is None else value for value in values)
        return middle if math.isfinite(middle) else None

    return {
        "num_turns": len(done),
        "device": done[0]["device"],
        "versions": done[0]["versions"],
        "epoch_seconds": over([record["num_train"] / record["docs_per_s"] for record in done]),
        "docs_per_s": over([record["docs_per_s"] for record in done]),
        "train_seconds": over([epoch["train_seconds"] for epoch in last]),
        "target_epoch": over([epoch["epoch"] if epoch else None for epoch in reached]),
        "target_seconds": over([epoch["train_seconds"] if epoch else None for epoch in reached]),
        "target_wall_seconds": over(
            [epoch["wall_seconds"] if epoch else None for epoch in reached]
        ),
        "target_joules": over([epoch["joules"] if epoch else None for epoch in reached]),
        "startup_seconds": over([record["startup_seconds"] for record in done]),
        "wall_seconds": over([record["wall_seconds"] for record in done]),
        "joules": over([record["joules"] for record in done]),
        "accuracy": over([epoch["accuracy"] for epoch in last]),
        "macro_f1": over([epoch["macro_f1"] for epoch in last]),
    }


def compare(ours: Sequence[Record], theirs: Sequence[Record], target: float) -> dict[str, Any]:
    """How many times as fast ours is, turn by turn, then the median; None where it is not known.

    epoch: by steady epochs; wall: by the whole; target: by training seconds up to the target, where
    both reach it in every turn that neither failed.

    Args:
      ours, theirs: each in the order of its turns.
    """
    pairs = [
        (our, their)
        for our, their in zip(ours, theirs, strict=False)  # of one, a turn may be to come
        if "error" not in our and "error" not in their
    ]
    if not pairs:
        return {"epoch": None, "target": None, "wall": None}
    reached = [[find_target(record["epochs"], target) for record in pair] for pair in pairs]
    to_target = [
        their["train_seconds"] / our["train_seconds"]
        for our, their in reached
        if our is not None and their is not None
    ]
    return {
        "epoch": median(our["docs_per_s"] / their["docs_per_s"] for our, their in pairs),
        "target": median(to_target) if len(to_target) == len(pairs) else None,
        "wall": median(their["wall_seconds"] / our["wall_seconds"] for our, their in pairs),
    }


def order_turns(arms: Sequence[str], num_turns: int) -> list[tuple[int, str]]:
    """(turn, arm): forth and back, so that a drift of the machine hits all arms alike.

    >>> order_turns("ab", 3)
    [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')]
    """
    return [
        (turn, arm)
        for turn in range(num_turns)
        for arm in (reversed(arms) if turn % 2 else arms)
    ]  # fmt: skip
