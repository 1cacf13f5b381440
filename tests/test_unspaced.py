"""Scripts without spaces between words: the same words everywhere, and texts that can be told."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import train
from shortline import EXIT_STOPPED, UserError
from tests.runs import read_summary
from tfdata.config import TokenizerConfig
from tfdata.encode import build_tokenize
from tfdata.ingest import main as ingest
from tfdata.shards import MANIFEST, compute_fingerprint, open_shards
from tfdata.spans import find_words
from tfdata.words import WORD_FILTERS, cut_words

QUICK = ["--hidden=8", "--embedding-dim=8", "--pairs=64", "--pieces=64", "--gpus=none"]
QUICK += ["--refit=none", "--linear=none"]


def _tokens(text: str, unspaced: str, filters: str = WORD_FILTERS) -> list[str]:
    config = TokenizerConfig(unspaced=unspaced, filters=filters)  # type: ignore[arg-type]
    tokenize = build_tokenize(config)
    return [token.decode() for token in tokenize(tf.constant([text])).to_list()[0]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("倚天2D十大", "倚 天 2d 十 大"),
        ("東京タワー、2024年。", "東 京 タ ワ ー 、 2024 年 。"),
        ("「人々」（ﾃｽﾄ）", "「 人 々 」 （ ﾃ ｽ ﾄ ）"),
        ("สวัสดี ๒๕", "ส ว ั ส ด ี ๒๕"),
        ("ភាសា។ ພາສາ မြန်", "ភ ា ស ា ។ ພ າ ສ າ မ ြ န ်"),
        ("a\u3000b 𠀀𠀁", "a b 𠀀 𠀁"),
        ("⼀⼈ 𛅐か\u200bក", "⼀ ⼈ 𛅐 か ក"),
        ("한국어 텍스트, naïve Ünï", "한국어 텍스트 naïve ünï"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
    ],
)
def test_each_character_of_such_a_script_is_a_word(text, words):
    assert _tokens(text, "split") == words.split(" ")


def test_kept_a_text_is_cut_at_its_spaces_alone():
    assert _tokens("東京、Tower 2024年。", "keep") == ["東京、tower", "2024年。"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9),
            st.text(st.sampled_from("aB1 ,、。・ー々〇中国タひก่២။（ﾞé"), max_size=20),
        ),
        max_size=5,
    ),
    st.sampled_from(["split", "keep"]),
    st.sampled_from([WORD_FILTERS, WORD_FILTERS + "、。中"]),
)
def test_graph_arrow_and_spans_find_the_same_words(texts, unspaced, filters):
    words = cut_words(pa.chunked_array([texts], pa.string()), filters, unspaced)
    names = words.names.to_pylist()
    cut = [[names[i] for i in ids] for ids in np.split(words.ids, words.offsets[1:-1])]
    for text, found in zip(texts, cut, strict=False):
        config = TokenizerConfig(unspaced=unspaced, filters=filters)  # type: ignore[arg-type]
        spans = [text[start:end] for start, end in find_words(text, config)]
        tokens = _tokens(text, unspaced, filters)
        assert [_tokens(s, unspaced, filters) for s in spans] == [[token] for token in tokens]
        if text.isascii() or not set(text) & set("İΣςẞ"):  # which Arrow lowers otherwise
            assert len(found) == len(tokens)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Texts of 12 random characters, and within them one of two that tell the class."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("unspaced") / "a.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(1_200):
            text = [chr(0x4E00 + c) for c in random.integers(0, 300, 12)]
            text[random.integers(12)] = "好坏"[number % 2]
            line = {"text": "".join(text), "label": ["good", "bad"][number % 2]}
            print(json.dumps(line), file=file)
    return path


def test_such_texts_are_learned(source, tmp_path):
    accuracies = {}
    for unspaced in ("split", "keep"):
        out = tmp_path / unspaced
        words = ["--data", str(source), "--out", str(out), "--epochs=6", *QUICK]
        assert train.main([*words, f"--unspaced={unspaced}"]) == 0
        accuracies[unspaced] = read_summary(out)["accuracy"]
    assert accuracies["split"] > 0.9
    assert accuracies["keep"] < 0.7


def test_an_interrupted_run_of_before_goes_on(source, tmp_path, monkeypatch):
    """Its config.yaml, its shards and its checkpoint do not speak of such scripts."""
    out = tmp_path / "run"
    words = ["--data", str(source), "--out", str(out), "--epochs=3", "--unspaced=keep", *QUICK]
    with monkeypatch.context() as patched:
        patched.setattr(train, "is_to_stop", lambda trainer, state, signals: state.epoch > 0)
        assert train.main(words) == EXIT_STOPPED
    settings = yaml.safe_load((out / "config.yaml").read_text())
    del settings["unspaced"]
    (out / "config.yaml").write_text(yaml.safe_dump(settings))
    assert train.main(["--resume", str(out)]) == 0
    assert read_summary(out)["epochs"] == 3


def test_shards_of_before_are_trained_as_they_were_counted(source, tmp_path):
    shards = tmp_path / "shards"
    ingest([str(source), "--out", str(shards), "--unspaced", "keep"])
    manifest = json.loads((shards / MANIFEST).read_text())
    del manifest["settings"]["tokenizer"]["unspaced"]
    before = replace(open_shards(shards), tokenizer=manifest["settings"]["tokenizer"])
    manifest["fingerprint"] = compute_fingerprint(before, manifest["vocabulary"]["sha256"])
    (shards / MANIFEST).write_text(json.dumps(manifest))
    words = ["--data", str(shards), "--epochs=1", "--scores-only", *QUICK]
    with pytest.raises(UserError, match=r"--unspaced 'split': the .* with 'keep'"):
        train.main([*words, "--out", str(tmp_path / "a")])
    assert train.main([*words, "--out", str(tmp_path / "b"), "--unspaced=keep"]) == 0


def test_where_there_are_no_such_characters_it_does_not_matter(small_shards, tmp_path):
    assert small_shards.tokenizer["unspaced"] == "split"
    words = ["--data", str(small_shards.folder), "--epochs=1", "--scores-only", *QUICK]
    assert train.main([*words, "--out", str(tmp_path / "run"), "--unspaced=keep"]) == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["unspaced"] == "split"  # as the vocabulary was counted
