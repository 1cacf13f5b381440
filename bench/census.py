"""What the batches of an epoch hold: that every document came exactly once, as it should be.

Legend: B documents of a batch, T tokens, D documents of the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

RawBatch = tuple[np.ndarray, np.ndarray]
"""token_ids int32[B, T], padded on the right with 0, and labels int32[B]; no fillers."""


class Census(NamedTuple):
    """Of one epoch."""

    num_batches: int
    num_tokens: int
    num_padded: int
    """Tokens with the padding."""
    digests: np.ndarray
    """uint64[D], sorted: one number for each document, made of its label and its token ids."""


def take_census(batches: Iterable[RawBatch], max_len: int) -> Census:
    """Counts; documents of the same label and token ids have the same digest.

    Args:
      max_len: most tokens of a text.

    Raises:
      AssertionError: a text is longer.
    """
    random = np.random.default_rng(0)
    factors = random.integers(1, 2**64, max_len + 1, np.uint64, endpoint=False)
    num_batches = num_tokens = num_padded = 0
    digests = [np.zeros(0, np.uint64)]
    for token_ids, labels in batches:
        if token_ids[:, max_len:].any():
            raise AssertionError(f"a text of more than {max_len} tokens")
        num_batches += 1
        num_tokens += int(np.count_nonzero(token_ids))
        num_padded += token_ids.size
        # modulo 2**64, as unsigned numbers wrap around; id 0 pads and adds nothing
        ids = token_ids[:, :max_len].astype(np.uint64)
        label_part = (labels.astype(np.uint64) + np.uint64(1)) * factors[-1]
        digests.append(ids @ factors[: ids.shape[1]] + label_part)
    return Census(num_batches, num_tokens, num_padded, np.sort(np.concatenate(digests)))


def check_census(name: str, census: Census, wanted: np.ndarray) -> None:
    """That every document came exactly once, with its label and its token ids.

    Args:
      wanted: uint64[D], sorted digests.

    Raises:
      AssertionError: a document is missing, came twice, or is another.
    """
    if np.array_equal(census.digests, wanted):
        return
    found, distinct = np.unique(census.digests), np.unique(wanted)
    both = np.intersect1d(found, distinct, assume_unique=True).size
    raise AssertionError(
        f"{name}: {len(census.digests):,} documents came in an epoch of {len(wanted):,}; of "
        f"{distinct.size:,} different ones {distinct.size - both:,} are missing, and "
        f"{found.size - both:,} are not of this corpus"
    )
