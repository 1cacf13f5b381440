"""Counting words, and the files that keep them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfdata.vocab as vocab
from shortline import UserError
from tfdata.config import TokenizerConfig
from tfdata.vocab import Vocabulary, VocabularyBuilder, count_lengths, read_lines, write_lines

TEXTS = ["the cat sat", "The DOG sat, sat!", "", "a dog"]


def _build(texts, config, batch=2):
    builder = VocabularyBuilder(config)
    for start in range(0, len(texts), batch):
        builder.add(pa.array(texts[start : start + batch], pa.string()))
    return builder


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_most_frequent_first_and_ties_by_first_sight(batch):
    builder = _build(TEXTS, TokenizerConfig(), batch)
    assert builder.build() == ["sat", "the", "dog", "cat", "a"]
    assert builder.length_counts.tolist() == [1, 0, 1, 1, 1]


def test_rare_words_go_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(vocab, "_MOST_COUNTED", 100)
    frequent = [f"often{i}" for i in range(20)]
    texts = [" ".join([*frequent, f"rare{i}"]) for i in range(300)]
    builder = _build(texts, TokenizerConfig(), batch=10)
    assert len(builder._counts) <= 100
    assert builder.build()[:20] == frequent


def test_vocabulary_is_cut_to_its_size_with_the_special_entries():
    words = ["a", "b", "c", "d"]
    mapped = Vocabulary.build(words, TokenizerConfig(vocab_size=4))
    assert mapped.entries == ("[PAD]", "[UNK]", "a", "b", "a *", "b *")
    assert mapped.unknown_id == 1
    dropped = Vocabulary.build(words, TokenizerConfig(vocab_size=4, unknown="drop"))
    assert dropped.entries == ("[UNK]", "a", "b", "c")
    assert dropped.unknown_id == 0


@pytest.mark.parametrize("unknown", ["map", "drop"])
def test_saved_and_loaded(tmp_path, unknown):
    config = TokenizerConfig(unknown=unknown, filters=",")
    vocabulary = Vocabulary.build(["a\nb", "\\n", "\u2028", "\x85", "[UNK]", ""], config)
    vocabulary.save(tmp_path / "vocab.txt")
    assert Vocabulary.load(tmp_path / "vocab.txt", config) == vocabulary


def test_wordpieces_cover_the_words_they_were_learned_from():
    texts = ["unhappy happiness happy un unlike likely like"] * 30
    config = TokenizerConfig(tokenizer="wordpiece", vocab_size=60)
    builder = _build(texts, config)
    pieces = builder.build()
    assert pieces[:2] == ["[PAD]", "[UNK]"]
    assert len(pieces) <= 60
    assert builder.length_counts is None
    lengths = count_lengths([pa.array(texts)], config, pieces)
    assert lengths.sum() == len(texts)
    assert np.argmax(lengths) >= 7  # at least a piece a word


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_lines_of_any_text_come_back(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "lines.txt"
    write_lines(path, lines)
    assert read_lines(path) == lines


def test_missing_or_foreign_vocabulary_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_lines(tmp_path / "none.txt")
    (tmp_path / "other.txt").write_text("a\nb\nc\nd\ne\n")
    with pytest.raises(UserError, match=r"other\.txt.*not a vocabulary"):
        Vocabulary.load(tmp_path / "other.txt", TokenizerConfig())


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=6), min_size=1, max_size=20))
def test_counts_equal_a_plain_counter(rows):
    builder = _build([" ".join(row) for row in rows], TokenizerConfig(), batch=3)
    expected = Counter(word for row in rows for word in row)
    assert {w.decode(): n for w, n in builder._counts.items()} == dict(expected)
