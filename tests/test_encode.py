"""The word tokenizer against Keras's, and the packing against plain Python; eager and in-graph."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import unicodedata
import warnings

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdata.config import KERAS_FILTERS, TokenizerConfig
from tfdata.encode import Encoder, build_tokenize, cut_at_spaces, fold, pad, texts_to_tensor
from tfdata.vocab import Vocabulary, VocabularyBuilder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorflow.keras.preprocessing.text import Tokenizer  # type: ignore[import]


def _has_known_case(character: str) -> bool:
    """False for the letters whose lower case came with Unicode 14: TensorFlow's ICU is older."""
    lower = tf.strings.lower([character], encoding="utf-8").numpy()[0].decode()
    return character == "\0" or lower == character.lower()


def _characters():
    return st.characters(exclude_categories=["Cs", "Cn"]).filter(_has_known_case)


TEXTS = st.lists(
    st.one_of(
        st.text(_characters(), max_size=30),
        st.text(st.sampled_from("abAB ,.\t\n\r\v\f\0'’İẞΣς!-]^[\\é"), max_size=30),
    ),
    min_size=1,
    max_size=8,
)


def _encode(texts, config, vocabulary, max_len=50):
    ids, lengths = Encoder(config, vocabulary, max_len)(tf.constant(texts, tf.string))
    return np.split(ids.numpy(), np.cumsum(lengths.numpy())[:-1])


@settings(max_examples=50, deadline=None)
@given(TEXTS)
@pytest.mark.parametrize("unknown", ["map", "drop"])
def test_ids_equal_those_of_the_keras_tokenizer(unknown, texts):
    config = TokenizerConfig(
        vocab_size=9, filters=KERAS_FILTERS, unspaced="keep", unknown=unknown, stems=0
    )
    oracle = Tokenizer(
        num_words=9, filters=KERAS_FILTERS, oov_token="[UNK]" if unknown == "map" else None
    )
    fitted = texts[: max(1, len(texts) - 2)]
    oracle.fit_on_texts(fitted)
    builder = VocabularyBuilder(config)
    builder.add(pa.array(fitted, pa.string()))
    vocabulary = Vocabulary.build(builder.build(), config)
    for ours, theirs in zip(
        _encode(texts, config, vocabulary), oracle.texts_to_sequences(texts), strict=True
    ):
        assert ours.tolist() == (theirs or [vocabulary.unknown_id])


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_default_filters_split_at_every_ascii_whitespace(texts):
    tokens = build_tokenize(TokenizerConfig(unspaced="keep"))(tf.constant(texts)).to_list()
    table = str.maketrans(dict.fromkeys(KERAS_FILTERS + "\r\v\f", " "))
    expected = [[w for w in t.lower().translate(table).split(" ") if w] for t in texts]
    assert [[token.decode() for token in row] for row in tokens] == expected


def _vocabulary(config, words=("a", "b", "c", "d")):
    return Vocabulary.build(words, config)


@pytest.mark.parametrize(("truncate", "expected"), [("right", ["a", "b"]), ("left", ["c", "d"])])
def test_truncation_keeps_the_asked_end(truncate, expected):
    config = TokenizerConfig(truncate=truncate)
    vocabulary = _vocabulary(config)
    (row, short) = _encode(["a b c d", "b"], config, vocabulary, max_len=2)
    assert [vocabulary.entries[i] for i in row] == expected
    assert [vocabulary.entries[i] for i in short] == ["b"]


@pytest.mark.parametrize("unknown", ["map", "drop"])
def test_empty_and_unknown_texts_become_one_unknown(unknown):
    config = TokenizerConfig(unknown=unknown)
    vocabulary = _vocabulary(config)
    rows = _encode(["", "a", " \n", "zz yy", "", "b zz"], config, vocabulary)
    names = [[vocabulary.entries[i] for i in row] for row in rows]
    both_unknown = ["[UNK]"] if unknown == "drop" else ["[UNK]", "[UNK]"]
    last = ["b"] if unknown == "drop" else ["b", "[UNK]"]
    assert names == [["[UNK]"], ["a"], ["[UNK]"], both_unknown, ["[UNK]"], last]


def test_drop_truncates_after_dropping_as_keras_does():
    config = TokenizerConfig(unknown="drop")
    (row,) = _encode(["zz a zz b c"], config, _vocabulary(config), max_len=2)
    assert row.tolist() == [1, 2]


@pytest.mark.parametrize("tokenizer", ["word", "wordpiece"])
@pytest.mark.parametrize("unknown", ["map", "drop"])
def test_in_a_dataset_map_as_eagerly(tokenizer, unknown):
    config = TokenizerConfig(tokenizer=tokenizer, unknown=unknown)
    words = ["[PAD]", "[UNK]", "hello", "world", "##s"] if tokenizer == "wordpiece" else ["hello"]
    encoder = Encoder(config, Vocabulary.build(words, config), 3)
    texts = tf.constant(["Hello worlds", "", "hello " * 9, "日本 hello"])
    (mapped,) = tf.data.Dataset.from_tensors(texts).map(encoder)
    for eager, in_graph in zip(encoder(texts), mapped, strict=True):
        np.testing.assert_array_equal(eager, in_graph)
    assert len(encoder(texts[:0])[1]) == 0


ODD = "aAbΣσςİIßẞé,.'-\0\t\n\v\r\x1f\x85\xa0\u200b\u2028\u3000\u0301\u0307ﬁ\U0010ffff中タก。（"
ANY_TEXTS = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.text(st.sampled_from(ODD + " " * 9), max_size=40),
        st.lists(st.sampled_from("aσς"), max_size=8).map(" ".join),  # words, and some too many
    ),
    max_size=8,
)
CONFIGS = [
    TokenizerConfig(),
    TokenizerConfig(filters="", unspaced="keep", unknown="drop"),
    TokenizerConfig(filters="", truncate="left"),
    TokenizerConfig(filters="a.Σ \0", unknown="drop", truncate="left"),
    TokenizerConfig(filters=KERAS_FILTERS, nfkc=True),
    TokenizerConfig(nfkc=True, filters="", unknown="drop"),
    TokenizerConfig(tokenizer="wordpiece"),
    TokenizerConfig(tokenizer="wordpiece", nfkc=True, unknown="drop", truncate="left"),
]


def _build_knowing(config):
    """An encoder that tells all short words of odd characters apart."""
    pairs = itertools.product(["", *ODD.lower()], repeat=2)
    words = list(dict.fromkeys(a + b for a, b in pairs if a + b))
    if config.tokenizer == "wordpiece":
        words = [word for word in words if "\0" not in word]  # which no piece can hold
        words = ["[PAD]", "[UNK]", *words, "##a", "##b", "##σ"]
    return Encoder(config, Vocabulary.build(words, config), 3)


@pytest.mark.parametrize("config", CONFIGS)
def test_arrow_texts_get_the_ids_of_the_graph(config):
    encoder = _build_knowing(config)

    @settings(max_examples=100, deadline=None)
    @given(ANY_TEXTS, st.integers(0, 3))
    def check(texts, first):
        array = pa.array(texts, pa.string())[first:]
        expected = encoder.in_graph(texts_to_tensor(array))
        for ours, theirs in zip(encoder.encode(array), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    check()


@settings(max_examples=100, deadline=None)
@given(ANY_TEXTS, st.integers(0, 3))
def test_pieces_are_the_texts_cut_after_each_space(texts, first):
    texts, array = texts[first:], pa.array(texts, pa.string())[first:]
    pieces, firsts = cut_at_spaces(array)
    pieces.validate(full=True)
    rows = [
        [w + " " for w in t.split(" ")[:-1]] + [w for w in t.split(" ")[-1:] if w] for t in texts
    ]
    assert pieces.to_pylist() == [piece for row in rows for piece in row]
    assert firsts.tolist() == [0, *itertools.accumulate(map(len, rows))]


def test_texts_without_a_buffer_of_characters():
    for texts in ([], [""], ["", ""]):
        for array in (pa.array(texts, pa.string()), pa.array(["cut", *texts], pa.string())[1:]):
            assert cut_at_spaces(array)[0].to_pylist() == []


def test_fold_keeps_ascii_and_unicode_apart():
    texts = [b"A\0B", "A\0É\0Z".encode(), b"CAF\xc9", b"", "ΑΣ Σ".encode(), b"I"]
    expected = ["a\0b", "a\0é\0z", "caf\ufffd", "", "ας σ", "i"]
    folded = fold(tf.constant(texts), TokenizerConfig())
    assert [text.decode() for text in folded.numpy()] == expected


def test_ascii_is_lowered_alike_in_every_language():
    code = (
        "import tensorflow as tf; from tfdata.encode import fold, TokenizerConfig;"
        "assert fold(tf.constant(['TITLE É']), TokenizerConfig()).numpy()[0].decode() == 'title é'"
    )
    turkish = os.environ | {"LC_ALL": "tr_TR.UTF-8"}
    subprocess.run([sys.executable, "-c", code], env=turkish, check=True, capture_output=True)


def test_nfkc_is_an_option():
    text = tf.constant(["Ｆｕｌｌ ﬁt"])
    (plain,) = build_tokenize(TokenizerConfig())(text).to_list()
    (folded,) = build_tokenize(TokenizerConfig(nfkc=True))(text).to_list()
    assert plain[1].decode() == "ﬁt"
    assert [word.decode() for word in folded] == ["full", "fit"]
    assert unicodedata.normalize("NFKC", "ﬁt") == "fit"


def test_megabyte_texts_and_words():
    config = TokenizerConfig()
    long = "a " * 500_000
    rows = _encode([long, "x" * 1_000_000, "b"], config, _vocabulary(config), max_len=40)
    assert [len(row) for row in rows] == [40, 1, 1]


def test_texts_survive_the_way_from_arrow():
    texts = ["", "a\0b", "日本語\x1e", "true", "1", "NA", "\u2028"]
    for array in (pa.array(texts), pa.array(["cut", *texts])[1:]):
        assert [t.decode() for t in texts_to_tensor(array).numpy()] == texts


def test_pad_puts_zeros_on_the_right():
    padded = pad(tf.constant([5, 6, 7]), tf.constant([1, 2]))
    assert padded.numpy().tolist() == [[5, 0], [6, 7]]


@pytest.mark.parametrize("config", CONFIGS)
def test_no_op_is_for_a_gpu_to_run(config):
    """A GPU has kernels that refuse, like that of a bincount of weights, or of any bincount where
    it is to be deterministic: --preset seed ended so, on a GPU, after its training."""
    encoder = _build_knowing(config)
    builder = VocabularyBuilder(config)
    for function in (encoder.in_graph, encoder._find_in_graph, builder._count):
        graph = function.get_concrete_function().graph
        found = [op for op in graph.get_operations() if op.type not in ("Placeholder", "NoOp")]
        for inner in graph._functions.values():
            if hasattr(inner, "graph"):
                found += [op for op in inner.graph.get_operations() if op.type != "Placeholder"]
        assert found
        assert {op.type for op in found if "CPU" not in op.device} <= {"Const", "Identity"}
