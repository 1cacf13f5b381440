"""Scripts that have no spaces between words: there, each character is a word.

The patterns hold the characters themselves, so that TensorFlow, Arrow (both RE2) and Python read
them alike. Letters and marks by the blocks of Unicode 16.0 (`Blocks.txt`); the quotation marks,
dashes and ellipses that Latin texts have, too, stay with their neighbours, as there.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_RANGES = (
    (0x3001, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF),  # marks, Hiragana, Katakana, Bopomofo
    (0x1B000, 0x1B16F), (0x3200, 0x33FF),  # more of Katakana; enclosed and squared ones
    (0x2E80, 0x2FDF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),
    (0xFE10, 0xFE19), (0xFE30, 0xFE4F),  # marks of vertical and of full width, half-width Katakana
    (0xFF01, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF9F),
    (0x0E01, 0x0E3A), (0x0E40, 0x0E4F), (0x0E5A, 0x0E5B),  # Thai
    (0x0E81, 0x0ECE), (0x0EDC, 0x0EDF),  # Lao
    (0x1000, 0x103F), (0x104A, 0x108F), (0x109A, 0x109F),  # Burmese
    (0xA9E0, 0xA9EF), (0xA9FA, 0xA9FE), (0xAA60, 0xAA7F),
    (0x1780, 0x17DD),  # Khmer
)  # fmt: skip
SPACE = "[\u3000\u200b]"
"""Pattern of what separates words: the ideographic space, and that of no width."""
ALONE = "[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _RANGES) + "]"
"""Pattern of a character that is a word of its own, these scripts' marks of punctuation too: there,
they tell much. Digits and wide Latin letters are not: most numbers and names stay whole."""
PATTERN, APART = f"({ALONE})|{SPACE}", r" \1 "
"""What to replace, and by what, so that words can be split at spaces."""


def spread(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """string[B] with such characters set apart by spaces; chunks of ASCII are as they were."""
    chunks = [
        chunk if pc.all(pc.string_is_ascii(chunk)).as_py()
        else pc.replace_substring_regex(chunk, PATTERN, APART)
        for chunk in texts.chunks
    ]  # fmt: skip
    return pa.chunked_array(chunks, texts.type)
