"""Stems and pieces of words: the graph's are Python's, and a word's are the same everywhere."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfdata.config import TokenizerConfig
from tfdata.encode import Encoder, build_tokenize
from tfdata.subwords import (
    MOST_PIECES,
    STEM_END,
    find_stems_in_graph,
    hash_pieces,
    list_stems,
    place_stems,
)
from tfdata.vocab import Vocabulary

CONFIG = TokenizerConfig(stems=4)
KNOWN = ["refunded", "2024", "a", "日本語学校", "naïve", "12"]
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" "), min_size=1)


@settings(max_examples=50)
@given(st.lists(WORDS, max_size=9), st.integers(1, 6))
@example(["a", "日本語学校", "x1٣２y", "👩‍👩‍👧", "e\u0301e\u0301e\u0301", "ab\0cd", "12345"], 4)
def test_the_graphs_stems_are_pythons(words, num_characters):
    found = find_stems_in_graph(tf.constant(words, tf.string), num_characters).numpy().tolist()
    assert [stem.decode() for stem in found] == [list_stems([w], num_characters)[0] for w in words]


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=9), max_size=5))
@example([b"\xff", b"\xc3", b"\xe6\x97", b"\x80abc", b"ab\xf0\x9f"])
def test_bytes_that_are_not_utf8_have_some_stem(words):
    stems = find_stems_in_graph(tf.constant(words, tf.string), 4).numpy().tolist()
    assert all(stem.endswith(STEM_END.encode()) for stem in stems)
    encoder = Encoder(CONFIG, Vocabulary.build(KNOWN, CONFIG), 9)
    _, lengths = encoder(tf.constant(words, tf.string))
    assert lengths.shape == len(words)


def _ids(text, vocabulary):
    """Word by word, in plain Python."""
    [words] = build_tokenize(CONFIG)(tf.constant([text])).to_list()
    number_of = {entry: i for i, entry in enumerate(vocabulary.entries)}
    unknown = vocabulary.unknown_id
    words = [word.decode() for word in words]
    return [number_of.get(w, number_of.get(list_stems([w], 4)[0], unknown)) for w in words]


def test_an_unknown_word_has_its_stems_id_whatever_encodes_it():
    vocabulary = Vocabulary.build(KNOWN, CONFIG)
    encoder = Encoder(CONFIG, vocabulary, 50)
    texts = [
        "refunded refund refuse ref",
        "1999 5 77",
        "日本語学 日本語",
        "Naïveté a ab",
        "2024 12",
    ]
    texts += ["refund *", "* refu *"] * 3  # a stem's entry, typed
    expected = [_ids(text, vocabulary) for text in texts]
    assert vocabulary.entries.index("refu *") in expected[0]
    assert vocabulary.unknown_id in expected[0]
    flat, lengths = encoder(tf.constant(texts))
    mapped = tf.data.Dataset.from_tensors(tf.constant(texts)).map(encoder)
    for ids, sizes in [
        (flat, lengths),
        next(iter(mapped)),
        encoder.encode(pa.array(texts * 9)),  # words recur: each piece is looked up once
        encoder.encode(pa.array(texts)),
    ]:
        repeats = len(sizes) // len(texts)
        assert np.asarray(ids).tolist() == [*itertools.chain(*expected)] * repeats
        assert np.asarray(sizes).tolist() == [len(row) for row in expected] * repeats


@settings(max_examples=50)
@given(WORDS)
@example("refu *")
@example("*")
def test_no_stem_is_a_word(text):
    """Whatever the filters: words are cut at spaces, and stems hold one."""
    for filters in (CONFIG.filters, "", "a."):
        [words] = build_tokenize(TokenizerConfig(filters=filters))(tf.constant([text])).to_list()
        stems = list_stems([word.decode() for word in words], 4)
        assert not {stem.encode() for stem in stems} & set(words)


def test_stems_are_in_the_vocabulary_on_top_of_its_size_and_come_back(tmp_path):
    words = [*KNOWN, "back\\slash", "new\nline"]
    for config in (CONFIG, TokenizerConfig(stems=0), TokenizerConfig(vocab_size=5, unknown="drop")):
        vocabulary = Vocabulary.build(words, config)
        vocabulary.save(tmp_path / "vocab.txt")
        assert Vocabulary.load(tmp_path / "vocab.txt", config) == vocabulary
        assert len(set(vocabulary.entries)) == len(vocabulary)
        stems = [entry for entry in vocabulary.entries if entry.endswith(STEM_END)]
        assert bool(stems) == bool(config.stem_characters)
        numbers = place_stems(vocabulary.entries, config.stem_characters)
        for i, entry in enumerate(vocabulary.entries):
            is_word = i >= vocabulary.first_word_id and entry not in stems
            expected = list_stems([entry], 4)[0] if is_word and stems else entry
            assert vocabulary.entries[numbers[i]] == expected


@settings(max_examples=50)
@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(2, 500))
@example(["refunded", "x" * 99, "日本", "a\0b"], 2)
def test_a_words_pieces_are_its_own(words, num_buckets):
    """Within range, and the same in every vocabulary."""
    stems = list_stems(words, 4)
    pieces = hash_pieces(["[PAD]", "[UNK]", *words, *stems], 2, num_buckets)
    assert pieces.shape == (2 + len(words) + len(stems), MOST_PIECES)
    assert pieces.min() >= 0
    assert pieces.max() < num_buckets
    assert not pieces[:2].any()
    assert pieces[2:, 0].all()  # each word has one
    for word, row in zip([*words, *stems], pieces[2:], strict=True):
        np.testing.assert_array_equal(hash_pieces([word], 0, num_buckets)[0], row)
        assert (np.diff((row == 0).astype(int)) >= 0).all()  # none after the last


def test_like_words_share_pieces():
    rows = [set(row) - {0} for row in hash_pieces(["refund", "refunds", "kitten"], 0, 2**20)]
    assert len(rows[0] & rows[1]) >= 10
    assert not rows[0] & rows[2]
    word, other = hash_pieces(["a1", "a2"], 0, 2**20)
    np.testing.assert_array_equal(word, other)  # digits are alike


def test_many_words_are_hashed_part_by_part(monkeypatch):
    words = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}x" for i in range(50)]
    whole = hash_pieces(words, 1, 1000)
    monkeypatch.setattr("tfdata.subwords._WORDS_AT_ONCE", 7)
    np.testing.assert_array_equal(hash_pieces(words, 1, 1000), whole)


def test_a_character_that_is_a_word_has_no_pieces():
    """They would count it four times beside pairs of it."""
    words = ["日", "。", "日本", "a", "日 *"]
    pieces = hash_pieces(words, 0, 32768, "split")
    assert (pieces > 0).any(axis=1).tolist() == [False, False, True, True, True]
    assert (hash_pieces(words, 0, 32768) > 0).any(axis=1).all()  # of runs of before, too


def test_pieces_stay_what_they_are():
    """In every process, and in every later version: a trained run must find its own again."""
    pieces = hash_pieces(["refunded", "refu *", "日本語"], 0, 32768)
    expected = [[12187, 27409, 28564], [12187, 27409, 12896], [16221, 29257, 20168]]
    assert pieces[:, :3].tolist() == expected


@pytest.mark.parametrize("stems", [-1, 25])
def test_stems_have_bounds(stems):
    with pytest.raises(ValueError, match="stems"):
        TokenizerConfig(stems=stems)
