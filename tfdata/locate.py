"""Which rows of which shards a batch was made of: for a person, when something is wrong with it."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tfdata.pipeline import plan_epochs
from tfdata.plan import FILLER, Buckets
from tfdata.shards import ShardSet
from tfdata.window import WindowSource

_MOST_ROWS = 256


def locate_batch(
    shard_set: ShardSet, source: WindowSource, buckets: Buckets, seed: int | None,
    place: tuple[int, int, int],
) -> str:  # fmt: skip
    """`train-00000.parquet rows 3, 17 ...` of the batch at (epoch, window, batch), counted from 0.

    Args:
      source: of the training part.
      seed: of the plan.

    Raises:
      UserError: a shard could not be read.
    """
    epochs = plan_epochs(source, buckets, seed, place)
    _, window, plan = next(epochs)
    epochs.close()
    docs = np.sort(plan.rows[0][plan.rows[0] != FILLER]) + window.first_doc
    shards = list(shard_set.parts["train"])
    order = source._shard_order(place[0]) if source.residency == "stream" else None
    if order is not None:
        shards = [shards[number] for number in order]
    ends = np.cumsum([shard.num_docs for shard in shards])
    rows: defaultdict[str, list[str]] = defaultdict(list)
    for doc in docs[:_MOST_ROWS]:
        number = int(np.searchsorted(ends, doc, side="right"))
        shard = shards[number]
        rows[shard.file].append(str(int(doc - ends[number]) + shard.num_docs))
    named = "; ".join(f"{file} rows {', '.join(numbers)}" for file, numbers in sorted(rows.items()))
    left = len(docs) - _MOST_ROWS
    return f"{named} and {left:,} more" if left > 0 else named
