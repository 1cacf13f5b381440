"""Settings of ingest, tokenizer and input pipeline; each checks itself when it is made."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from shortline import UserError

if TYPE_CHECKING:  # train.py settles `auto` before anything else looks: all others see a number
    BatchSize = int
else:
    BatchSize = int | Literal["auto"]

BASE_BATCH_SIZE = 128
"""What the learning rates of the presets are for, and the smallest that `auto` takes."""
KERAS_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
"""What `tf.keras.preprocessing.text.Tokenizer` turns into spaces by default."""
_SHOWN_AS_TYPED = tyro.conf.arg(
    help_behavior_hint=lambda default: f"(default: {default.encode('unicode_escape').decode()})"
)
"""In --help, without the line breaks that a default has."""


def require(condition: bool, flag: str, value: object, allowed: str) -> None:
    """Raises a ValueError that names the flag, the value and what is allowed."""
    if not condition:
        raise ValueError(f"--{flag} {value}: must be {allowed}")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How raw files become a shard set."""

    text: str | None = None
    """Column that holds the text (guessed where a name makes it plain)."""
    label: str | None = None
    """Column that holds the label (guessed likewise)."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "fasttext"] = "auto"
    """Format of the input files; auto goes by the file's name, then by its first bytes."""
    delimiter: str | None = None
    """Field separator of CSV files (guessed from the header line)."""
    valid: str = "0.1"
    """Share of the documents to validate on, or a file that holds them."""
    test: str = "0"
    """Share of the documents to set aside for one last test, or a file that holds them."""
    split: Literal["random", "group", "time"] = "random"
    """What validates and tests: random: texts drawn by class; group: the same, with near copies on
    one side (pip install -e '.[doctor]'); time: the newest rows by --time."""
    time: str | None = None
    """Column to split by with --split time: numbers, or dates like 2024-12-31 or
    2024-12-31T23:59:59Z."""
    split_seed: int = 0
    """Seed of the split and of the global shuffle."""
    strict: bool = False
    """Refuse invalid UTF-8 instead of replacing it (U+FFFD) and counting."""
    skip_bad_rows: bool = False
    """Skip and count rows that do not parse, instead of stopping at the first."""

    def __post_init__(self) -> None:
        for flag in ("valid", "test"):
            require(getattr(self, flag) != "", flag, "''", "a share from 0 up to 1, or a file")
            share = self.share(flag)
            if share is not None:
                require(0 <= share < 1, flag, share, "a share from 0 up to 1, or a file")
        total = (self.share("valid") or 0) + (self.share("test") or 0)
        require(total < 1, "valid/--test", total, "less than 1 together")
        if self.split == "time" and self.time is None:
            raise ValueError("--split time: name the column of times with --time")
        if self.split != "time" and self.time is not None:
            raise ValueError(f"--time {self.time}: needs --split time")
        if self.delimiter is not None:
            require(len(self.delimiter) == 1, "delimiter", repr(self.delimiter), "one character")

    def check_split(self) -> None:
        """For what is new: a run of before may have been made with it, and goes on.

        Raises:
          UserError: `split` says how, and there is nothing to split.
        """
        if self.split != "random" and not self.has_shares:
            raise UserError(
                f"--split {self.split}: there is nothing to split; --valid or --test must be a "
                "share like 0.1 (files that they name stay whole)"
            )

    def given(self) -> list[str]:
        """The flags that say how this differs from the default, in the words of a command line."""
        words = []
        for setting in dataclasses.fields(self):
            value, flag = getattr(self, setting.name), setting.name.replace("_", "-")
            if value != setting.default:
                words += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
        return words

    @property
    def has_shares(self) -> bool:
        """Whether a share of the documents is to be split off."""
        return any(self.share(flag) for flag in ("valid", "test"))

    @property
    def has_files(self) -> bool:
        """Whether a file is a part already."""
        return any(self.share(flag) is None for flag in ("valid", "test"))

    def share(self, part: str) -> float | None:
        """`--valid` or `--test` as a share, or None where it names a file."""
        try:
            return float(getattr(self, part))
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How texts become token ids. The vocabulary comes from the training part alone."""

    tokenizer: Literal["word", "wordpiece"] = "word"
    """word: lower-case, punctuation to spaces, split at spaces (core TensorFlow ops);
    wordpiece: tensorflow-text's FastWordpieceTokenizer."""
    vocab_size: int = 40_000
    """Most token ids, the special ones included."""
    filters: Annotated[str, _SHOWN_AS_TYPED] = KERAS_FILTERS + "\r\v\f"
    """Characters that the word tokenizer turns into spaces."""
    nfkc: bool = False
    """Normalise Unicode to NFKC first (full-width letters, ligatures, ...)."""
    unspaced: Literal["split", "keep"] = "split"
    """Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer), for the
    word tokenizer: split: each of their characters and marks is a word; keep: as any other."""
    unknown: Literal["map", "drop"] = "map"
    """What becomes of a word outside the vocabulary: the id of [UNK], or nothing."""
    stems: int = 4
    """First characters of a word that stand for it where the vocabulary lacks it, digits as 0; the
    vocabulary has those of its words on top of --vocab-size (0: such words are all alike; only with
    --tokenizer word and --unknown map)."""
    truncate: Literal["right", "left"] = "right"
    """The end at which texts longer than --max-len lose tokens."""
    max_len: int | None = None
    """Most tokens kept of a text (default: enough for 99 % of the training texts, at most 128)."""

    def __post_init__(self) -> None:
        require(self.vocab_size >= 3, "vocab-size", self.vocab_size, "3 or more")
        require(self.vocab_size <= 2**24, "vocab-size", self.vocab_size, "16777216 or less")
        require(0 <= self.stems <= 24, "stems", self.stems, "from 0 to 24")
        if self.max_len is not None:
            require(1 <= self.max_len <= 100_000, "max-len", self.max_len, "from 1 to 100000")

    @property
    def stem_characters(self) -> int:
        """`stems`, where there can be any."""
        return self.stems if self.tokenizer == "word" and self.unknown == "map" else 0


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """How shards become batches."""

    batch_size: BatchSize = BASE_BATCH_SIZE
    """Documents in a batch, over all replicas; auto: 128 or the doubling of it that is fastest here
    and leaves enough steps to learn, with --learning-rate, given or not, times the root of the
    doubling."""
    batch_tokens: int | None = None
    """Token budget of a batch instead: longer texts come in smaller batches."""
    num_buckets: int | None = None
    """Length buckets, and so batch shapes (default: as few as keep padding below a quarter, at most
    6: where length tells the class, narrow buckets make batches of few classes, which learn
    slowly)."""
    residency: Literal["auto", "device", "host", "stream"] = "auto"
    """device: all token ids in the GPU's memory, batches gathered there; host: in main memory;
    stream: window after window, flat memory; auto: the first that they fit in (an eighth of main
    memory, a quarter of the GPU's)."""
    window_docs: int = 100_000
    """Documents in a window, the unit of shuffling and bucketing: of `stream`, and of `host` in the
    first epoch, where a small corpus has smaller ones."""
    id_cache: bool = True
    """Keep token ids on disk, beside ingested data, so that they are made once and not again."""

    def __post_init__(self) -> None:
        if self.batch_size != "auto":
            require(self.batch_size >= 1, "batch-size", self.batch_size, "1 or more, or auto")
        elif self.batch_tokens is not None:
            raise ValueError("--batch-size auto: give no --batch-tokens, which sets it by tokens")
        if self.batch_tokens is not None:
            require(self.batch_tokens >= 1, "batch-tokens", self.batch_tokens, "1 or more")
        if self.num_buckets is not None:
            require(1 <= self.num_buckets <= 64, "num-buckets", self.num_buckets, "from 1 to 64")
        require(self.window_docs >= 1, "window-docs", self.window_docs, "1 or more")
