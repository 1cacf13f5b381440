"""Step 1: repaired texts, and the points that are left of them when what varies is masked.

Legend: B documents of a batch, R of the input, P points.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labels.folder import DOCUMENTS, POINTS
from labels.masks import MASKS
from model.rows import RowOptions, read_columns, tell_open_quotes
from shortline import UserError
from tfdata.raw import ReadCounts
from tfdata.read import Format

_EXAMPLES = 5
_TAGS = (
    "a|abbr|b|big|blockquote|body|br|button|center|code|dd|div|dl|dt|em|font|form|h[1-6]|head|hr|"
    "html|i|iframe|img|input|label|li|link|meta|ol|option|p|pre|s|section|select|small|span|strike|"
    "strong|style|sub|sup|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul"
)
_TAG = (
    r"(?is)<!--.*?-->|<(?:script|style)\b[^>]*>.*?</(?:script|style)>"
    rf"|</?(?:{_TAGS})(?:\s[^<>]*)?/?>"
)
_ENTITY = r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6});"
_SUSPECT = r"[^\x09\x0a\x0d\x20-\x7e]"
_UNSEEN = "[\u200b\u2060\ufeff\u00ad\x00-\x08\x0e-\x1f\x7f]"


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """Rules of the clean step. The first three change the texts that come out; masks only decide
    which texts count as one, and what the encoder reads."""

    text: str | None = None
    """Column that holds the text (guessed where a name makes it plain)."""
    format: Format = "auto"
    """Format of the input; auto goes by the file's name, then by its first bytes."""
    delimiter: str | None = None
    """Field separator of a CSV file (guessed from the header line)."""
    unicode: bool = True
    """Repair mojibake and odd characters (ftfy), to NFC; take out what cannot be seen."""
    markup: bool = True
    """Take HTML's tags out, and turn its entities into what they stand for."""
    whitespace: bool = True
    """One space between words, none at the ends."""
    mask_urls: bool = True
    mask_emails: bool = True
    mask_uuids: bool = True
    mask_dates: bool = True
    """Dates and times of day."""
    mask_addresses: bool = True
    """IP and MAC addresses."""
    mask_paths: bool = True
    mask_hosts: bool = True
    mask_hex: bool = True
    """Hexadecimal numbers."""
    mask_ids: bool = True
    """Words with digits in them."""
    mask_numbers: bool = True
    fold_case: bool = False
    """Texts that differ in case alone count as one."""

    @property
    def masks(self) -> list[str]:
        """The mask rules that are on."""
        return [name for name in MASKS if getattr(self, f"mask_{name}")]


@dataclass
class RuleCount:
    """What one rule did."""

    documents: int = 0
    """Documents that it changed."""
    examples: list[tuple[str, str]] = field(default_factory=list)
    """Before and after, of the first different texts."""


class Cleaner:
    """The rules that are on, in their order, over batches of texts; counts what each does."""

    def __init__(self, config: CleanConfig):
        self._config = config
        rules = {"unicode": repair_unicode, "markup": strip_markup, "whitespace": join_whitespace}
        self._rules = {name: rule for name, rule in rules.items() if getattr(config, name)}
        self.counts = {name: RuleCount() for name in (*self._rules, *config.masks)}

    def clean(self, texts: pa.Array) -> pa.Array:
        """string[B] → string[B]: as they are to be read and learned from."""
        for name, rule in self._rules.items():
            texts = self._apply(name, rule, texts)
        return texts

    def mask(self, texts: pa.Array) -> pa.Array:
        """string[B] → string[B]: cleaned texts with what varies replaced."""
        for name in self._config.masks:
            texts = self._apply(name, lambda t, name=name: apply_masks(t, name), texts)
        return pc.utf8_lower(texts) if self._config.fold_case else texts

    def _apply(self, name: str, rule: Callable[[pa.Array], pa.Array], texts: pa.Array) -> pa.Array:
        after = rule(texts)
        changed = np.flatnonzero(pc.fill_null(pc.not_equal(texts, after), False).to_numpy(False))
        count = self.counts[name]
        count.documents += len(changed)
        for row in changed[: 50 * _EXAMPLES]:
            if len(count.examples) == _EXAMPLES:
                break
            pair = (texts[row].as_py(), after[row].as_py())
            if all(known[1] != pair[1] for known in count.examples):
                count.examples.append(pair)
        return after


def apply_masks(texts: pa.Array, rule: str) -> pa.Array:
    """string[B] with one rule's patterns masked.

    >>> apply_masks(pa.array(["port 80, -1.5 %"]), "numbers").to_pylist()
    ['port <num>, <num> %']
    """
    for mask in MASKS[rule]:
        texts = pc.replace_substring_regex(texts, mask.pattern, mask.replacement)
    return texts


def repair_unicode(texts: pa.Array) -> pa.Array:
    """ftfy over the texts that are not plain ASCII, the only ones it could change."""
    import ftfy

    config = ftfy.TextFixerConfig(unescape_html=False, normalization="NFC")

    def repair(text: str) -> str:
        return re.sub(_UNSEEN, "", ftfy.fix_text(text, config))

    return _change_some(texts, _SUSPECT, repair)


def strip_markup(texts: pa.Array) -> pa.Array:
    """Without the tags of HTML; words that stood between tags stay apart."""
    texts = pc.replace_substring_regex(texts, _TAG, " ")
    return _change_some(texts, _ENTITY, html.unescape)


def join_whitespace(texts: pa.Array) -> pa.Array:
    r"""Runs of whitespace, also Unicode's, as one space.

    >>> join_whitespace(pa.array([" a\t\n b\u00a0"])).to_pylist()
    ['a b']
    """
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"[\s\p{Z}\v\x85]+", " "))


def _change_some(texts: pa.Array, pattern: str, change: Callable[[str], str]) -> pa.Array:
    """`change` of each distinct text that holds the pattern."""
    found = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
    coded = texts.filter(found).dictionary_encode()
    if not len(coded):
        return texts
    changed = pa.array([change(text) for text in coded.dictionary.to_pylist()], pa.string())
    return pc.replace_with_mask(texts, found, changed.take(coded.indices))


def clean(source: Path, out: Path, config: CleanConfig) -> dict[str, Any]:
    """Writes documents.parquet and points.parquet; gives counts and examples.

    Raises:
      UserError: the input cannot be read, or holds no text.
    """
    cleaner = Cleaner(config)
    masked: list[pa.Array] = []
    with pq.ParquetWriter(out / "texts.parquet", pa.schema([DOCUMENTS.field("text")])) as writer:
        for texts in read_texts(source, config):
            texts = cleaner.clean(texts)
            texts = pc.if_else(pc.equal(pc.binary_length(texts), 0), None, texts)
            masked.append(cleaner.mask(texts))
            writer.write_batch(pa.record_batch([texts], ["text"]))
    points, of_row = collect_points(masked)
    if not len(points):
        raise UserError(f"{source}: no row has a text")
    pq.write_table(points, out / "points.parquet", compression="zstd")
    texts = pq.read_table(out / "texts.parquet")["text"]
    documents = pa.table([texts, of_row], schema=DOCUMENTS)
    pq.write_table(documents, out / "documents.parquet", compression="zstd")
    (out / "texts.parquet").unlink()
    return {
        "source": str(source.absolute()), "documents": len(of_row),
        "without_text": of_row.null_count, "points": len(points),
        "rules": {
            name: {"documents": count.documents, "examples": count.examples}
            for name, count in cleaner.counts.items()
        },
    }  # fmt: skip


def read_texts(source: Path, config: CleanConfig) -> Iterator[pa.Array]:
    """The input's texts, string[B], null where there is none; then warns of what was lost."""
    options = RowOptions(format=config.format, delimiter=config.delimiter, text=config.text)
    counts = ReadCounts()
    for rows in read_columns(source, options, counts):
        yield rows.texts
    tell_open_quotes(counts)


def collect_points(masked: list[pa.Array]) -> tuple[pa.Table, pa.Array]:
    """The points of masked texts string[R], by first sight, and each document's int32[R]."""
    from tfdata.split import hash_texts

    coded = pa.chunked_array(masked, pa.string()).combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # more than 2 GiB of texts
        coded = coded.cast(pa.large_string()).combine_chunks()
    coded = coded.dictionary_encode()
    texts = coded.dictionary.cast(pa.string())
    of_row = coded.indices.cast(pa.int32())
    known = of_row.drop_null().to_numpy()
    rows = np.flatnonzero(of_row.is_valid().to_numpy(False))
    firsts = rows[np.unique(known, return_index=True)[1]] if len(known) else rows
    weights = np.bincount(known, minlength=len(texts)).astype(np.int32)
    keys = hash_texts(texts, 0) if len(texts) else np.empty(0, np.uint64)
    return pa.table([texts, keys, weights, firsts], schema=POINTS), of_row
