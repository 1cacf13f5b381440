"""What differs inside a template, by patterns: numbers, ids, dates, addresses, paths and the like.

The patterns are RE2's, which Arrow runs over whole columns; RE2 has no look-around, so where a
pattern needs to see the character before, it takes it and puts it back.
"""

from __future__ import annotations

from typing import NamedTuple

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?"
_CLOCK = r"\d{1,2}:\d{2}:\d{2}(?:[.,:]\d+)?"
_DATE = (
    rf"(?i)\b{_DAY}(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{4}}"
    rf"|{_MONTH}\s+\d{{1,2}}(?:,?\s+\d{{4}}\b)?|\d{{1,2}}\s+{_MONTH}(?:\s+\d{{4}})?)"
    rf"(?:[T ,]+{_CLOCK}(?:Z|[+-]\d{{2}}:?\d{{2}}\b)?)?(?:\s+\d{{4}})?\b"
)
_TOP_LEVEL = "com|net|org|edu|gov|mil|int|de|cn|jp|uk|hk|tw|kr|fr|br|ru|local"


class Mask(NamedTuple):
    """One pattern of a rule, and what takes its place."""

    pattern: str
    replacement: str


MASKS: dict[str, tuple[Mask, ...]] = {
    "urls": (Mask(r"(?i)\b(?:https?|ftp|file|s3|hdfs|jdbc|wss?)://[^\s\"'<>()\[\]{},]+", "<url>"),),
    "emails": (Mask(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b", "<email>"),),
    "uuids": (Mask(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b", "<uuid>"),),
    "addresses": (
        Mask(r"\b(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}\b", "<mac>"),
        Mask(r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b", "<ip>"),
    ),
    "dates": (Mask(_DATE, "<date>"), Mask(rf"\b{_CLOCK}\b", "<time>")),
    "paths": (
        Mask(r"\b[A-Za-z]:(?:\\[\w.$~ -]+)+\\?", "<path>"),
        Mask(
            r"(^|[\s\"'=(\[{:,;])(?:~|\.{1,2})?(?:/[\w.+@%:~-]+){2,}/?",
            r"\1<path>",
        ),
    ),
    "hosts": (
        Mask(
            rf"(?i)\b(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+(?:{_TOP_LEVEL})(?:\.[a-z]{{2}})?(?::\d+)?\b",
            "<host>",
        ),
    ),
    "hex": (
        Mask(r"\b0[xX][0-9a-fA-F]+\b", "<hex>"),
        Mask(r"\b(?:[a-fA-F]+[0-9]|[0-9]+[a-fA-F])[0-9a-fA-F]{6,}\b", "<hex>"),
    ),
    "ids": (Mask(r"\b(?:[A-Za-z_][\w-]*?\d|\d+[A-Za-z_])[\w-]*", "<id>"),),
    "numbers": (Mask(r"(^|[^\w>])[-+]?\d+(?:[.,]\d+)*\b%?", r"\1<num>"),),
}
"""The patterns of each rule, in the order in which the rules are applied: what is more specific
comes first."""
