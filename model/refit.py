"""The training anew with the validation documents, too, when they have said what they can say.

They choose the epoch, score, calibrate and mix what was trained without them; then they are worth
more as documents to learn from, most of all to classes that have but a few. So another network is
trained on both parts, from the start and by the same schedule, as many epochs as were best
(Goodfellow et al. 2016, "Deep Learning", algorithm 7.2), and the linear classifier anew. The first
network stays: the mean of two networks' logits is better than either.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from model.checkpoint import DamagedCheckpoint, load_best, restore, write_copied
from model.classifier import Classifier
from model.linear_stage import LinearStage
from model.opened import Run
from model.origin import is_same
from model.run import RunPaths
from model.state import State
from model.workers import Workers
from shortline import printable
from tfdata.shards import ShardSet

MOST_DOCS = 400_000
"""Of both parts: of more, a tenth is not worth the time of another training."""
_LEAST_SHARE = 1 / 50  # of the training documents

Final = tuple[dict[str, np.ndarray], dict[str, Any]]
"""Weights by name, and the fields of the State that they were reached in."""


def wants_refit(choice: str, shard_set: ShardSet) -> bool:
    """Whether the validation documents are to train, too, in the end.

    Args:
      choice: of `--refit`.
    """
    num_train, num_valid = (shard_set.num_docs(part) for part in ("train", "valid"))
    is_worth_it = _LEAST_SHARE * num_train <= num_valid <= num_train
    return choice == "auto" and is_worth_it and num_train + num_valid <= MOST_DOCS


def explain_none() -> str:
    """Why there is no other network, where `--refit` is auto."""
    return (
        f"no other network: that takes a validation part of a {1 / _LEAST_SHARE:.0f}th of the "
        f"training part or more, but no larger, and {MOST_DOCS:,} documents at most"
    )


def keep_final(
    paths: RunPaths, classifier: Classifier, state: State, origin: dict[str, Any]
) -> Final:  # fmt: skip
    """Writes what the other network's training has come to."""
    saved = {**dataclasses.asdict(state), "origin": origin}
    write_copied(paths.final, classifier.state_by_name, saved)
    return {name: value.numpy() for name, value in classifier.state_by_name.items()}, saved


def read_final(paths: RunPaths, num_epochs: int, origin: dict[str, Any]) -> Final | None:
    """What `keep_final` wrote; None where it is not there, or of another training, or damaged,
    which is said.

    Args:
      num_epochs, origin: that it is to have.
    """
    if not paths.final.exists():
        return None
    try:
        arrays, state = load_best(paths.final)
    except DamagedCheckpoint as error:
        print(f"note: {printable(str(error))}: it is made again")
        return None
    if state["epoch"] == num_epochs and is_same(state["origin"], origin):
        return arrays, state
    print(f"note: {printable(str(paths.final))}: is of another training: it is made again")
    return None


def take_over(
    run: Run | None, classifier: Classifier, workers: Workers, final: Final | None,
    linear: LinearStage,
) -> tuple[Run | None, dict[str, Any]]:  # fmt: skip
    """Adds what has learned from the validation documents, too, when they have been scored.

    All workers call it, under the strategy's scope. The chief's run with it, and facts for the
    summary; the classifier has it then.

    Args:
      final: of the chief; None where there is none, and of others.
    """
    facts = {}
    if workers.gather_values(final is not None)[0]:
        twin = classifier.add_twin()
        if run is not None and final is not None:
            arrays, state = final
            restore(twin.state_by_name, arrays, run.paths.final)
            run.shift(twin)
            run = dataclasses.replace(run, refit=arrays)
            seconds = round(sum(state["epoch_seconds"]), 3)
            facts["refit"] = {"epochs": state["epoch"], "seconds": seconds}
            print(
                "the other network's logits and the first one's are averaged from here on; the "
                "scores above are of before", flush=True,
            )  # fmt: skip
        workers.set_as_chief(twin.state_by_name)
    run, refitted = linear.refit(run)
    return run, facts | refitted
