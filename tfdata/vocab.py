"""The vocabulary: counted on the training part, through the tokenizer that trains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from shortline import UserError, write_whole
from tfdata.config import TokenizerConfig
from tfdata.encode import Encoder, build_tokenize, fold, texts_to_tensor
from tfdata.subwords import list_stems

PAD, UNKNOWN = "[PAD]", "[UNK]"
_MOST_COUNTED = 4_000_000  # distinct words held while counting, some 500 MB
_MOST_LEARNED = 30_000  # distinct words that wordpieces are learned from
_LONGEST_PIECE = 24  # characters


@dataclass(frozen=True)
class Vocabulary:
    """What each token id stands for.

    Id 0 pads, and padding never reaches a result. With unknown words dropped, [UNK] only stands
    for an otherwise empty text and shares id 0, so that words have the ids of a Keras Tokenizer
    without `oov_token`; else [UNK] is 1, as with one.
    """

    entries: tuple[str, ...]
    unknown_id: int
    first_word_id: int

    @classmethod
    def build(cls, words: Sequence[str], config: TokenizerConfig) -> Vocabulary:
        """Words, most frequent first, cut to `config.vocab_size` with the special entries; then
        their stems."""
        if config.tokenizer == "wordpiece":  # its specials are among its pieces
            return cls(tuple(words), words.index(UNKNOWN), 0)
        specials = (UNKNOWN,) if config.unknown == "drop" else (PAD, UNKNOWN)
        kept = words[: config.vocab_size - len(specials)]
        stems = list_stems(kept, config.stem_characters) if config.stem_characters else ()
        return cls((*specials, *kept, *stems), specials.index(UNKNOWN), len(specials))

    def __len__(self) -> int:
        return len(self.entries)

    def words(self) -> tuple[Sequence[str], np.ndarray]:
        """The words and stems, without the special entries, and their ids int32[n]."""
        first = self.first_word_id
        return self.entries[first:], np.arange(first, len(self.entries), dtype=np.int32)

    def save(self, path: Path) -> None:
        """Writes vocab.txt: line i is the entry of id i."""
        write_lines(path, self.entries)

    @classmethod
    def load(cls, path: Path, config: TokenizerConfig) -> Vocabulary:
        entries = tuple(read_lines(path))
        if UNKNOWN not in entries[:4]:
            raise UserError(f"{path}: not a vocabulary: its first lines lack {UNKNOWN}")
        first = 0 if config.tokenizer == "wordpiece" else entries.index(UNKNOWN) + 1
        return cls(entries, entries.index(UNKNOWN), first)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    r"""One string a line, with `\`, newline and carriage return escaped."""
    with write_whole(path) as file:
        for line in lines:
            line = line.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
            file.write(line + "\n")


def read_lines(path: Path) -> list[str]:
    """The strings that `write_lines` wrote.

    Raises:
      UserError: the file is missing or not UTF-8.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    meant = {"\\": "\\", "n": "\n", "r": "\r"}
    return [re.sub(r"\\([\\nr])", lambda m: meant[m[1]], line) for line in text.split("\n")[:-1]]


class VocabularyBuilder:
    """Counts the words, and the lengths, of the texts that `add` is given."""

    def __init__(self, config: TokenizerConfig):
        self.config = config
        self._counts: dict[bytes, int] = {}
        self._least = 1
        self._lengths = np.zeros(1, np.int64)
        tokenize = (
            _basic_tokenize(config) if config.tokenizer == "wordpiece" else build_tokenize(config)
        )

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def count(texts):
            with tf.device("CPU:0"):
                words = tokenize(texts)
                distinct, _, counts = tf.unique_with_counts(words.flat_values, tf.int64)
                return distinct, counts, words.row_lengths()

        self._count = count

    def add(self, texts: pa.Array) -> None:
        """Counts one batch of training texts (a string array without nulls)."""
        self.merge(*self.count(texts))

    def count(self, texts: pa.Array) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """What `merge` takes of a batch: words by first sight, int64[n] of each; documents by
        number of tokens."""
        distinct, counts, lengths = self._count(texts_to_tensor(texts))
        return distinct.numpy().tolist(), counts.numpy(), np.bincount(lengths.numpy())

    def merge(self, words: list[bytes], counts: np.ndarray, lengths: np.ndarray) -> None:
        """Takes in the counts of one batch; batch after batch as they stand in the data."""
        get = self._counts.get
        for word, count in zip(words, counts.tolist(), strict=True):
            self._counts[word] = get(word, 0) + count
        self._lengths = add_counts(self._lengths, lengths)
        while len(self._counts) > _MOST_COUNTED:  # the rarest go, as in fastText's reduction
            self._counts = {w: c for w, c in self._counts.items() if c > self._least}
            self._least += 1

    def build(self) -> list[str]:
        """Words by falling count, ties by first sight; pieces with their specials for wordpiece."""
        ranked = sorted(self._counts.items(), key=lambda item: -item[1])
        if self.config.tokenizer == "wordpiece":
            return _learn_pieces(ranked, self.config)
        return [word.decode("utf-8", "replace") for word, _ in ranked[: self.config.vocab_size]]

    @property
    def length_counts(self) -> np.ndarray | None:
        """int64[n], documents by number of tokens; None: needs the finished vocabulary."""
        return None if self.config.tokenizer == "wordpiece" else self._lengths


def count_lengths(
    batches: Iterable[pa.Array], config: TokenizerConfig, words: Sequence[str]
) -> np.ndarray:
    """int64[n], documents by number of tokens under a finished vocabulary."""
    encode = Encoder(config, Vocabulary.build(words, config), max_len=2**30)
    total = np.zeros(1, np.int64)
    for texts in batches:
        _, lengths = encode.in_graph(texts_to_tensor(texts))
        total = add_counts(total, np.bincount(lengths.numpy()))
    return total


def add_counts(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """int64 sums of two arrays of counts, of which one may be longer."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total = longer.astype(np.int64)
    total[: len(shorter)] += shorter
    return total


def _basic_tokenize(config: TokenizerConfig):
    """Words and single punctuation marks: the units that wordpiece splits further."""
    import tensorflow_text as tf_text

    alone = r"[!-/:-@\[-`{-~]|\p{P}|\p{Han}"
    return lambda texts: tf_text.regex_split(fold(texts, config), rf"\s+|{alone}", alone)


def _learn_pieces(ranked: list[tuple[bytes, int]], config: TokenizerConfig) -> list[str]:
    from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner

    words = [(w.decode("utf-8", "replace"), n) for w, n in ranked[:_MOST_LEARNED]]
    words = [(word, count) for word, count in words if len(word) <= _LONGEST_PIECE]
    # The learner searches a least frequency from 10 to 10,000,000, four times over: 47 s on 30,000
    # words. The count at this rank bounds it well, and one search is near enough: 4 s.
    likely_bound = words[min(len(words) - 1, config.vocab_size // 8)][1] if words else 0
    pieces = learner.learn(
        words,
        vocab_size=config.vocab_size,
        reserved_tokens=[PAD, UNKNOWN],
        upper_thresh=max(20, likely_bound),
        lower_thresh=2,
        num_iterations=1,
        max_token_length=_LONGEST_PIECE,
    )
    return list(dict.fromkeys([PAD, UNKNOWN, *pieces]))[: config.vocab_size]
