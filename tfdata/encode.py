"""Texts to token ids inside the TensorFlow graph, a whole record batch at a time.

Shapes: B documents, N tokens of all B documents one after the other.
The same functions serve the training input, the vocabulary count and the exported model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfdata.config import TokenizerConfig
from tfdata.subwords import find_stems_in_graph
from tfdata.unspaced import APART, PATTERN

if TYPE_CHECKING:
    from tfdata.vocab import Vocabulary

_MOST_DISTINCT = 0.5  # of the pieces; above it, looking each up once gains nothing
_WHITESPACE = set("\t\n\v\f\r")  # what tf.strings.split splits at, besides the space
_NUL_STANDIN = "\U0010ffff"  # a noncharacter; see `fold`


def texts_to_tensor(texts: pa.Array) -> tf.Tensor:
    """An Arrow array of strings without nulls, as tf.string[B].

    Through numpy objects: on texts of 245 bytes this took an eighth of the time of joining in
    Arrow and splitting in TensorFlow, which pays for a second copy and a scan for the separator.
    """
    return tf.constant(texts.to_numpy(zero_copy_only=False), tf.string)


def build_tokenize(config: TokenizerConfig) -> Callable[[tf.Tensor], tf.RaggedTensor]:
    """The word tokenizer: tf.string[B] → ragged tf.string[B, None]; core TensorFlow ops only.

    What `tf.keras.preprocessing.text.Tokenizer` does with the same filters: lower-case, turn every
    filter character into a space, split at spaces; and with `unspaced` at `split`, of a script
    without spaces, round every character.

    >>> build_tokenize(TokenizerConfig())(tf.constant(["Hello, world!", ""])).to_list()
    [[b'hello', b'world'], []]
    """
    return partial(_tokenize, config=config)


def _tokenize(texts: tf.Tensor, config: TokenizerConfig) -> tf.RaggedTensor:
    texts, rest = _fold(texts, config)
    if config.unspaced == "split":
        some = tf.strings.regex_replace(tf.gather_nd(texts, rest), PATTERN, APART)
        texts = tf.tensor_scatter_nd_update(texts, rest, some)
    if config.filters:
        # re.escape would escape characters that RE2 knows no escape for
        escaped = "".join("\\" + c if c in "\\]^-[" else c for c in config.filters)
        texts = tf.strings.regex_replace(texts, f"[{escaped}]", " ")
    if _WHITESPACE.issubset(config.filters):
        return tf.strings.split(texts)  # every other whitespace is a space by now: the fast path
    words = tf.strings.split(texts, " ")
    return tf.ragged.boolean_mask(words, tf.not_equal(words, ""))


def fold(texts: tf.Tensor, config: TokenizerConfig) -> tf.Tensor:
    """NFKC if asked, then Unicode lower-casing: tf.string[B] → tf.string[B].

    A to Z become a to z whatever the language of the machine: Turkish has another i for I.
    """
    return _fold(texts, config)[0]


def _fold(texts: tf.Tensor, config: TokenizerConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """`fold`, and which texts int64[n, 1] have more than ASCII."""
    if config.nfkc:
        import tensorflow_text as tf_text

        texts = tf_text.normalize_utf8(texts, "NFKC")
    texts = tf.strings.lower(texts)
    # Unicode costs five times as much as ASCII, so only where there is any. `length` in characters
    # would tell sooner, but takes the lone byte C3 for a character.
    rest = tf.where(~tf.strings.regex_full_match(texts, r"[\x00-\x7f]*"))
    # TensorFlow's Unicode `lower` ends a text at its first NUL, so NULs step aside
    lower = tf.strings.regex_replace(tf.gather_nd(texts, rest), r"\x00", _NUL_STANDIN)
    lower = tf.strings.regex_replace(tf.strings.lower(lower, "utf-8"), _NUL_STANDIN, "\x00")
    return tf.tensor_scatter_nd_update(texts, rest, lower), rest


def cut_at_spaces(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Pieces that end with a space, or with their text, as string[P] without a copy of the texts.

    Returns:
      the pieces, and firsts int64[B + 1]: text b has the pieces firsts[b] to firsts[b + 1] - 1.

    >>> cut_at_spaces(pa.array(["to be  or", "", "not"]))[0].to_pylist()
    ['to ', 'be ', ' ', 'or', 'not']
    """
    assert texts.type == pa.string(), texts.type  # its offsets are int32
    _, offsets, chars = texts.buffers()
    offsets = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    first, last = offsets[[0, -1]]
    is_cut = np.zeros(last - first + 1, np.bool_)
    if last > first:
        np.equal(np.frombuffer(chars, np.uint8)[first:last], ord(" "), out=is_cut[1:])
    is_cut[offsets - first] = True
    cuts = np.flatnonzero(is_cut).astype(np.int32) + first
    pieces = pa.StringArray.from_buffers(len(cuts) - 1, pa.py_buffer(cuts), chars)
    return pieces, np.searchsorted(cuts, offsets)


class Encoder(tf.Module):
    """tf.string[B] → (token ids int32[N], lengths int32[B], each from 1 to max_len)."""

    def __init__(self, config: TokenizerConfig, vocabulary: Vocabulary, max_len: int):
        super().__init__()
        self._config, self.max_len = config, max_len
        self._unknown_id = vocabulary.unknown_id
        if config.tokenizer == "wordpiece":
            import tensorflow_text as tf_text

            self._pieces = tf_text.FastWordpieceTokenizer(
                vocab=list(vocabulary.entries), unknown_token="[UNK]", token_out_type=tf.int32
            )
        else:
            self._tokenize = build_tokenize(config)
            keys, ids = vocabulary.words()
            # no word is empty, but a table must not be
            keys, ids = ["", *keys], [vocabulary.unknown_id, *ids]
            self._table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(
                    tf.constant(keys, tf.string), tf.constant(ids, tf.int32)
                ),
                default_value=vocabulary.unknown_id,
            )
        # traced once, for whoever encodes many batches
        strings = tf.TensorSpec([None], tf.string)
        self.in_graph = tf.function(self.__call__, input_signature=[strings])
        self._find_in_graph = tf.function(self._find_ids, input_signature=[strings])

    def __call__(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        ids = self._find_ids(texts)
        with tf.device("CPU:0"):  # as in `_find_ids`
            return self._pack(ids.flat_values, tf.cast(ids.row_lengths(), tf.int32))

    def encode(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """What `__call__` makes of the texts (pa.string without nulls), in half the time or less.

        Words recur, so the texts are cut at their spaces, and the graph has each distinct piece
        once. Cutting there changes no id, whatever the tokenizer and its filters: all of them split
        at spaces, and neither lower-casing nor NFKC looks across one.
        """
        pieces, firsts = cut_at_spaces(texts)
        coded = pieces.dictionary_encode()
        if len(coded.dictionary) > _MOST_DISTINCT * len(pieces):
            ids, lengths = self.in_graph(texts_to_tensor(texts))
            return ids.numpy(), lengths.numpy()
        found = self._find_in_graph(texts_to_tensor(coded.dictionary))
        splits, ids = found.row_splits.numpy().astype(np.int32), found.flat_values.numpy()
        if np.array_equal(splits, np.arange(len(splits))):  # each piece is one token
            return self._pack_arrays(ids.take(coded.indices.to_numpy()), firsts)
        spread = pa.ListArray.from_arrays(splits, ids).take(coded.indices)
        return self._pack_arrays(spread.flatten().to_numpy(), spread.offsets.to_numpy()[firsts])

    def _pack_arrays(self, ids: np.ndarray, splits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`_pack` of the rows between `splits` int[B + 1], in a third of its time."""
        if self._config.unknown == "drop":
            known = ids != self._unknown_id
            ids, splits = ids[known], np.append(0, np.cumsum(known))[splits]
        lengths = np.diff(splits).astype(np.int32)
        long = np.flatnonzero(lengths > self.max_len)
        if len(long):
            excess = lengths[long] - self.max_len
            kept_first = 0 if self._config.truncate == "left" else self.max_len
            first = splits[long] + kept_first - np.cumsum(excess) + excess
            is_kept = np.ones(len(ids), np.bool_)
            is_kept[np.repeat(first, excess) + np.arange(excess.sum())] = False
            ids, lengths = ids[is_kept], np.minimum(lengths, self.max_len)
        empty = np.flatnonzero(lengths == 0)
        if len(empty):
            starts = np.cumsum(lengths) - lengths
            ids, lengths = np.insert(ids, starts[empty], self._unknown_id), np.maximum(lengths, 1)
        return ids, lengths

    def _find_ids(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Of every token: tf.string[B] → ragged int32[B, None]."""
        with tf.device("CPU:0"):  # where strings are: a GPU would get the numbers between them
            if self._config.tokenizer == "wordpiece":
                return self._pieces.tokenize(fold(texts, self._config))
            words = self._tokenize(texts)
            ids = self._table.lookup(words.flat_values)
            if self._config.stem_characters:
                unknown = tf.where(tf.equal(ids, self._unknown_id))
                lacking = tf.gather_nd(words.flat_values, unknown)
                stems = find_stems_in_graph(lacking, self._config.stem_characters)
                ids = tf.tensor_scatter_nd_update(ids, unknown, self._table.lookup(stems))
            return words.with_flat_values(ids)

    def _pack(self, ids: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Drops unknown words if asked, truncates, and gives an empty text its one [UNK]."""
        if self._config.unknown == "drop":
            known = tf.not_equal(ids, self._unknown_id)
            num_known = tf.pad(tf.cumsum(tf.cast(known, tf.int32)), [[1, 0]])
            ends = tf.cumsum(lengths)
            lengths = tf.gather(num_known, ends) - tf.gather(num_known, ends - lengths)
            ids = tf.boolean_mask(ids, known)
        if tf.reduce_any(lengths > self.max_len):
            rows = tf.RaggedTensor.from_row_lengths(ids, lengths, validate=False)
            left = self._config.truncate == "left"
            ids = (rows[:, -self.max_len :] if left else rows[:, : self.max_len]).flat_values
            lengths = tf.minimum(lengths, self.max_len)
        if tf.reduce_any(tf.equal(lengths, 0)):
            filled = tf.maximum(lengths, 1)
            gap = tf.cumsum(filled - lengths)  # [UNK]s up to and with this row
            target = tf.range(tf.size(ids)) + tf.repeat(gap, lengths)
            everywhere = tf.fill([tf.reduce_sum(filled)], self._unknown_id)
            ids = tf.tensor_scatter_nd_update(everywhere, target[:, tf.newaxis], ids)
            lengths = filled
        return ids, lengths


def pad(ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Flat ids int32[N] and lengths int32[B] → right-padded token_ids int32[B, max(lengths)].

    >>> pad(tf.constant([5, 6, 7]), tf.constant([1, 2])).numpy().tolist()
    [[5, 0], [6, 7]]
    """
    return tf.RaggedTensor.from_row_lengths(ids, lengths).to_tensor(0)
