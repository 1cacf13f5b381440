"""Scripts that have no spaces between words: there, each character is a word.

The pattern holds the characters themselves, so that TensorFlow, Arrow (both RE2) and Python read
it alike. Blocks after Unicode 16.0, `Blocks.txt`.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_RANGES = (
    (0x3001, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF),  # marks, Hiragana, Katakana, Bopomofo
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),  # Chinese characters
    (0xFE30, 0xFE4F), (0xFF01, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF9F),
    (0x0E01, 0x0E3A), (0x0E40, 0x0E4F), (0x0E5A, 0x0E5B),  # Thai
    (0x0E81, 0x0ECD), (0x0EDC, 0x0EDF),  # Lao
    (0x1000, 0x103F), (0x104A, 0x109F), (0xA9E0, 0xA9EF), (0xAA60, 0xAA7F),  # Burmese
    (0x1780, 0x17DD),  # Khmer
)  # fmt: skip
IDEOGRAPHIC_SPACE = "\u3000"
ALONE = "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _RANGES) + "]"
"""Pattern of a character that is a word of its own, a mark of punctuation too: there, they tell
much. Digits are not, wide Latin letters neither: numbers and names stay whole."""
PATTERN, APART = f"({ALONE})|{IDEOGRAPHIC_SPACE}", r" \1 "
"""What to replace, and by what, so that words can be split at spaces."""


def spread(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """string[B] with such characters set apart by spaces; chunks of ASCII are as they were."""
    chunks = [
        chunk if pc.all(pc.string_is_ascii(chunk)).as_py()
        else pc.replace_substring_regex(chunk, PATTERN, APART)
        for chunk in texts.chunks
    ]  # fmt: skip
    return pa.chunked_array(chunks, texts.type)
