"""Trouble with characters: mojibake, replacement characters, controls, entities, odd forms."""

from __future__ import annotations

import re

import numpy as np
import pyarrow.compute as pc

from tfdata.checkup.corpus import Corpus
from tfdata.checkup.finding import Finding, grade, show
from tfdata.raw import ReadCounts

_HIGH_1252 = "\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d"
_HIGH_1252 += "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178"
_FOLLOWS = "\u0080-\u00bf" + _HIGH_1252
_MOJIBAKE = re.compile(
    f"[\u00c2-\u00df][{_FOLLOWS}]|[\u00e0-\u00ef][{_FOLLOWS}]{{2}}|[\u00f0-\u00f4][{_FOLLOWS}]{{3}}"
)
"""What UTF-8 of two, three and four bytes looks like when read as Windows-1252."""
_CONTROLS = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|[\u0080-\u009f]"
_INVISIBLE = "[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]"
_ENTITIES = "&(amp|lt|gt|quot|apos|nbsp|#[0-9]+|#x[0-9a-fA-F]+);"


def check_encoding(corpus: Corpus, counts: ReadCounts | None = None) -> list[Finding]:
    """The findings `mojibake`, `replaced`, `controls`, `tabs`, `invisible`, `entities`."""
    replaced = "they were in the file" if counts is None or not counts.invalid_utf8 else (
        f"{counts.invalid_utf8:,} rows were not valid UTF-8"
    )  # fmt: skip
    kinds = [
        ("mojibake", find_mojibake(corpus), "hold mojibake: UTF-8 once read as Windows-1252",
         "convert the file where it was first read wrongly (`ftfy` mends texts afterwards)"),
        ("replaced", _matching(corpus, "\ufffd"), f"hold U+FFFD, a lost character: {replaced}",
         "convert the file to UTF-8 from what it really is (iconv); --strict stops at the first"),
        ("controls", _matching(corpus, _CONTROLS), "hold control characters",
         "take them out; --filters turns characters into spaces"),
        ("tabs", _matching(corpus, "\t"), "hold tabs",
         "nothing to do: the word tokenizer takes them for spaces; in a TSV file, look whether "
         "columns have run together"),
        ("invisible", _matching(corpus, _INVISIBLE), "hold invisible characters",
         "take them out, or turn them into spaces with --filters"),
        ("entities", _matching(corpus, _ENTITIES), "hold HTML entities like &amp;",
         "unescape the texts, unless they speak of HTML"),
    ]  # fmt: skip
    effect = "Words with such characters are other words to the model than those meant."
    return [
        Finding(
            name=name, severity=grade(len(rows) / len(corpus), 0.05, 0.005),
            title=f"{len(rows):,} texts {said}", count=len(rows), of=len(corpus),
            examples=tuple(_around(corpus, row, name) for row in rows[:2]),
            effect=effect, mend=mend,
        )
        for name, rows, said, mend in kinds
        if len(rows)
    ]  # fmt: skip


def find_mojibake(corpus: Corpus) -> np.ndarray:
    """int64[n]: documents with two or more characters that are UTF-8 read as Windows-1252.

    Of "caf\u00c3\u00a9" and "caf\u00e9" it is the first.
    """
    rows = _matching(corpus, f"[\u00c2-\u00f4][{_FOLLOWS}]")
    texts = corpus.texts.take(rows).to_pylist()
    return rows[[any(map(_decodes, _MOJIBAKE.findall(text))) for text in texts]]


def _decodes(text: str) -> bool:
    """Do the Windows-1252 bytes of the text make a character in UTF-8?"""
    pieces = (c.encode("latin-1") if c < "\u0100" else c.encode("cp1252") for c in text)
    try:
        return bool(b"".join(pieces).decode())
    except UnicodeDecodeError:
        return False


def _matching(corpus: Corpus, pattern: str) -> np.ndarray:
    found = pc.match_substring_regex(corpus.texts, pattern)
    return np.flatnonzero(found.to_numpy())


_PATTERNS = {
    "mojibake": _MOJIBAKE, "replaced": re.compile("\ufffd"), "controls": re.compile(_CONTROLS),
    "tabs": re.compile("\t"), "invisible": re.compile(_INVISIBLE),
    "entities": re.compile(_ENTITIES),
}  # fmt: skip


def _around(corpus: Corpus, row: int, name: str) -> str:
    """The text around what was found."""
    text = corpus.text(row)
    match = _PATTERNS[name].search(text)
    start = max(0, match.start() - 40) if match else 0
    return f"{show(corpus.label(row), 30)}: {'…' * (start > 0)}{show(text[start : start + 90])}"
