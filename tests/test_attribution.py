"""The words that decided: taking them out hurts most, and nothing else moves them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from model import attribution
from model.attribution import attribute
from model.infer import build_infer
from tests.small_run import make_run, make_texts, make_wordpiece_run
from tfdata.config import TokenizerConfig
from tfdata.encode import build_tokenize
from tfdata.spans import find_words

TEXTS = [text for text in make_texts(60) if len(text) < 400]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def wordpiece_run(tmp_path_factory):
    return make_wordpiece_run(tmp_path_factory.mktemp("wordpiece"))


def _count_words(texts: pa.Array) -> tf.Tensor:
    """A network that knows: each `good` speaks for class 1, each `bad` against it."""
    rows = []
    for text in texts.to_pylist():
        words = text.split()
        rows.append([0.0, 2.0 * words.count("good") - 1.5 * words.count("bad")])
    return tf.constant(rows, tf.float32)


def _attribute(infer, texts, labels, num_classes, config=None, **settings):
    spans = [find_words(text, config or TokenizerConfig()) for text in texts]
    return attribute(infer, texts, spans, labels, num_classes=num_classes, **settings)


def test_weights_are_what_the_words_give():
    texts = ["good film, bad end", "", "neither", "good good"]
    found = _attribute(_count_words, texts, [1, 1, 0, 0], 2)
    assert [f.weights.tolist() for f in found] == [
        [2, 0, -1.5, 0], [], [0], [-2, -2],
    ]  # fmt: skip
    assert found[0].strongest(2) == [("good", 2.0), ("film", 0.0)]
    halved = _attribute(_count_words, texts, [1, 1, 0, 0], 2, temperature=2.0)
    assert [f.weights.tolist() for f in halved] == [[1, 0, -0.75, 0], [], [0], [-1, -1]]
    assert _attribute(_count_words, [], [], 2) == []


@pytest.mark.parametrize("name", ["run", "wordpiece_run"])
def test_against_texts_one_by_one(name, request):
    run = request.getfixturevalue(name)
    infer = build_infer(run, has_gpu=False)
    labels = [n % len(run.labels) for n in range(len(TEXTS))]
    found = _attribute(infer, TEXTS, labels, len(run.labels), run.tokenizer)
    for each, label in list(zip(found, labels, strict=True))[::7]:
        for (start, end), weight in zip(each.spans, each.weights, strict=True):
            without = each.text[:start] + " " + each.text[end:]
            logits = tf.cast(infer(pa.array([each.text, without])), tf.float64)
            others = tf.concat([logits[:, :label], logits[:, label + 1 :]], axis=1)
            odds = (logits[:, label] - tf.reduce_logsumexp(others, axis=1)).numpy()
            assert weight == pytest.approx(odds[0] - odds[1], abs=2e-2)


def test_memory_is_bounded_and_changes_nothing(run, monkeypatch):
    infer = build_infer(run, has_gpu=False)
    labels = [0] * len(TEXTS)
    whole = _attribute(infer, TEXTS, labels, len(run.labels))
    asked: list[int] = []

    def count(texts):
        asked.append(sum(map(len, texts.to_pylist())))
        return infer(texts)

    monkeypatch.setattr(attribution, "_CALL_CHARS", 1000)
    monkeypatch.setattr(attribution, "_CALL_LOGITS", 30)
    parts = _attribute(count, TEXTS, labels, len(run.labels))
    assert max(asked) < 1000 + 400
    assert len(asked) > 20
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, atol=1e-4)
    monkeypatch.setattr(attribution, "MOST_WORDS", 3)
    for a, b in zip(whole, _attribute(infer, TEXTS, labels, len(run.labels)), strict=True):
        np.testing.assert_allclose(b.weights[:3], a.weights[:3], atol=1e-4)
        assert not b.weights[3:].any()


@pytest.mark.parametrize("name", ["run", "wordpiece_run"])
def test_taking_the_strongest_words_out_hurts_more_than_others(name, request):
    run = request.getfixturevalue(name)
    infer = build_infer(run, has_gpu=False)
    texts = [text for text in make_texts(250) if 3 <= len(text.split()) <= 11]
    before = tf.nn.softmax(infer(pa.array(texts))).numpy()
    labels = before.argmax(axis=1)
    found = _attribute(infer, texts, labels.tolist(), len(run.labels), run.tokenizer)
    rng = np.random.default_rng(0)

    def without(each, at):
        start, end = each.spans[at]
        return each.text[:start] + " " + each.text[end:]

    found = [each for each in found if len(each.spans) > 1]
    labels = np.array([each.label for each in found])

    def probability(chosen):
        taken_out = [without(each, chosen(each)) for each in found]
        p = tf.nn.softmax(infer(pa.array(taken_out))).numpy()
        return p[np.arange(len(labels)), labels].mean()

    strongest = probability(lambda each: int(each.weights.argmax()))
    random = probability(lambda each: int(rng.integers(len(each.weights))))
    weakest = probability(lambda each: int(each.weights.argmin()))
    assert strongest < random - 0.05
    assert random < weakest


@pytest.mark.parametrize("config", [
    TokenizerConfig(), TokenizerConfig(filters=""), TokenizerConfig(filters=",\t"),
    TokenizerConfig(unspaced="keep"),
])  # fmt: skip
def test_words_are_the_tokens(config):
    texts = ["a-b\tc\vd\u2028e", "don't = stop;", "ÜBER-Café 日本、x", "\u00a0x y"]
    texts += make_texts(200)
    tokens = build_tokenize(config)(tf.constant(texts)).to_list()
    for text, expected in zip(texts, tokens, strict=True):
        words = [text[start:end] for start, end in find_words(text, config)]
        assert [word.lower() for word in words] == [token.decode() for token in expected]


def test_words_of_wordpiece():
    text = "Don't pay 5€, 日本語!\u3000ok"
    words = [text[s:e] for s, e in find_words(text, TokenizerConfig(tokenizer="wordpiece"))]
    assert words == ["Don", "'", "t", "pay", "5€", ",", "日", "本", "語", "!", "ok"]


def test_words_under_nfkc():
    wide = TokenizerConfig(nfkc=True)
    assert find_words("ａ，ｂ\u3000c", wide) == [(0, 1), (2, 3), (4, 5)]
    assert find_words("ａ，ｂ\u3000c", TokenizerConfig()) == [(0, 1), (1, 2), (2, 3), (4, 5)]
    assert find_words("ａ，ｂ\u3000c", TokenizerConfig(unspaced="keep")) == [(0, 5)]
