"""The column of times: numbers, or dates as ISO 8601 writes them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_FRACTION = r"(\.\d{6})\d+"
_ZONED = r"(Z|[+-]\d{2}:?\d{2})$"


def parse_times(texts: pa.Array) -> tuple[np.ndarray, str]:
    """string[n] → (float64[n], `numbers` or `dates`, or nothing where all are empty).

    Dates count microseconds of UTC; a date without a zone is taken for one of UTC. Empty is NaN.

    >>> parse_times(pa.array(["2021-03-04", "2021-03-04T10:00:00+01:00", None]))[1]
    'dates'

    Raises:
      ValueError: a text is neither; it says which, by place and content.
    """
    trimmed = pc.utf8_trim_whitespace(texts)
    trimmed = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
    if trimmed.null_count == len(trimmed):
        return np.full(len(texts), np.nan), ""
    try:
        return _as_floats(trimmed.cast(pa.float64())), "numbers"
    except pa.ArrowInvalid:
        pass
    try:
        return _parse_dates(trimmed), "dates"
    except pa.ArrowInvalid:
        raise ValueError(*_find_bad(trimmed)) from None


def _as_floats(values: pa.Array) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False).astype(np.float64)


def _parse_dates(texts: pa.Array) -> np.ndarray:
    texts = pc.replace_substring_regex(texts, _FRACTION, r"\1")
    zoned = pc.match_substring_regex(texts, _ZONED)
    utc = pc.if_else(zoned, texts, None).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    plain = pc.if_else(zoned, None, texts).cast(pa.timestamp("us")).cast(pa.int64())
    return _as_floats(pc.coalesce(utc, plain).cast(pa.float64(), safe=False))


def _find_bad(texts: pa.Array) -> tuple[int, str]:
    """The first text that is no date."""
    for place, text in enumerate(texts.to_pylist()):
        try:
            _parse_dates(pa.array([text], pa.string()))
        except pa.ArrowInvalid:
            return place, text
    raise AssertionError("all of them parse one by one")
