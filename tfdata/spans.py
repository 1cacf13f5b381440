"""Where the words of a text are, for whoever points at them."""

from __future__ import annotations

import re
import unicodedata

from tfdata.config import TokenizerConfig
from tfdata.unspaced import ALONE, SPACE

_WORD, _ALONE, _BETWEEN = "w", ".", " "
_IDEOGRAPHS = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


def find_words(text: str, config: TokenizerConfig) -> list[tuple[int, int]]:
    """Begin and end, in characters, of the words that the tokenizer would see.

    They are the word tokenizer's tokens; wordpiece's pieces are taken together to words, and its
    punctuation marks and ideographs are words of their own. NFKC of several characters together is
    not looked at: with `nfkc`, what it composes (half-width kana) may be more words here.

    >>> find_words("Hello, world!", TokenizerConfig())
    [(0, 5), (7, 12)]
    """
    kinds = {c: _kind(c, config) for c in set(text)}
    shape = "".join(map(kinds.__getitem__, text))
    return [found.span() for found in re.finditer(r"w+|\.", shape)]


def _kind(character: str, config: TokenizerConfig) -> str:
    if config.nfkc:
        character = unicodedata.normalize("NFKC", character)
    if config.tokenizer == "wordpiece":
        if character.isspace():
            return _BETWEEN
        return _ALONE if all(map(_is_alone, character)) else _WORD
    if {*config.filters, " "}.issuperset(character):
        return _BETWEEN
    if config.unspaced == "split":
        if re.fullmatch(f"{ALONE}+", character):
            return _ALONE
        if re.fullmatch(f"{SPACE}+", character):
            return _BETWEEN
    return _WORD


def _is_alone(character: str) -> bool:
    code = ord(character)
    is_ascii_mark = code < 128 and not character.isalnum() and not character.isspace()
    is_ideograph = any(first <= code <= last for first, last in _IDEOGRAPHS)
    return is_ascii_mark or is_ideograph or unicodedata.category(character).startswith("P")
