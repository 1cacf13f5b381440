"""The auto-encoder: codes that hang on the text alone, and that hold what it says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from labels.autoencoder import Autoencoder
from labels.config import EncodeConfig
from labels.encode import encode, encode_window, take_documents, tokenize
from shortline import UserError

SMALL = EncodeConfig(code_dim=8, embedding_dim=8, hidden=8, encode_steps=200, encode_batch=16)


def _network(route="block", seed=0):
    config = EncodeConfig(code_dim=6, embedding_dim=5, hidden=4, seed=seed)
    return Autoencoder(config, vocab_size=20, unknown_id=1, route=route)


def test_codes_do_not_hang_on_padding_or_route():
    ids = np.array([[3, 4, 5, 0], [6, 0, 0, 0]], np.int32)
    lengths = np.array([3, 1], np.int32)
    block = _network().encode(ids, lengths).numpy()
    padded = np.pad(ids, ((0, 0), (0, 5)))
    np.testing.assert_allclose(_network().encode(padded, lengths), block, atol=1e-6)
    np.testing.assert_allclose(_network("keras").encode(ids, lengths), block, atol=1e-5)


def test_a_place_is_told_from_the_tokens_before_it_alone():
    network = _network()
    codes = tf.random.stateless_normal([1, 6], [1, 2])
    one, other = np.array([[3, 4, 5, 6]], np.int32), np.array([[3, 4, 9, 9]], np.int32)
    a, b = network.decode(codes, one).numpy(), network.decode(codes, other).numpy()
    np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-6)
    assert np.abs(a[:, 3] - b[:, 3]).max() > 1e-4


def _texts(num=400):
    random = np.random.default_rng(0)
    kinds = [
        "your card was lost in the post",
        "please reset the pin code now",
        "rates went up again",
    ]
    names = [f"name{i}" for i in range(40)]
    which = random.integers(0, 3, num)
    texts = [f"{kinds[k]} {names[random.integers(40)]}" for k in which]
    return pa.chunked_array([texts]), which


def test_codes_of_one_template_are_near_each_other(tmp_path):
    texts, which = _texts()
    told = encode(texts, tmp_path, SMALL)
    codes = np.load(tmp_path / "codes.npy")
    assert codes.shape == (400, 8)
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    cosines = codes @ codes.T
    same = which[:, None] == which
    assert cosines[same].mean() > cosines[~same].mean() + 0.3
    assert told["reconstruction_accuracy"] > 0.5
    again = tmp_path / "again"
    again.mkdir()
    encode(texts, again, SMALL)
    np.testing.assert_array_equal(np.load(again / "codes.npy"), np.load(tmp_path / "codes.npy"))


def test_codes_stand_in_the_order_of_the_points():
    texts, _ = _texts(50)
    tokens = tokenize(texts, SMALL)
    network = Autoencoder(SMALL, vocab_size=len(tokens.vocabulary), unknown_id=1, route="block")
    codes = encode_window(network, tokens.window, tokens.buckets)
    some = np.array([7, 3, 40])
    alone = encode_window(network, take_documents(tokens.window, some), tokens.buckets)
    np.testing.assert_allclose(alone, codes[some], atol=1e-5)


@pytest.mark.parametrize("texts", [["one"], ["", "..."], ["a b", "a c", "b c"]])
@pytest.mark.parametrize("encoder", ["lstm", "tfidf"])
def test_few_texts(texts, encoder, tmp_path):
    config = EncodeConfig(encoder=encoder, encode_steps=2)
    encode(pa.chunked_array([texts]), tmp_path, config)
    codes = np.load(tmp_path / "codes.npy")
    assert len(codes) == len(texts)
    assert np.isfinite(codes).all()


@pytest.mark.parametrize("where", ["loss", "codes"])
def test_codes_of_what_has_diverged_are_an_error(where, tmp_path, monkeypatch):
    if where == "codes":
        call = Autoencoder.encode
        monkeypatch.setattr(Autoencoder, "encode", lambda *a, **k: call(*a, **k) / 0.0)
    config = EncodeConfig(
        code_dim=8, hidden=8, encode_batch=16, encode_steps=30,
        encode_rate=90 if where == "loss" else 0.01,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"--encode-rate .*diverged"):
        encode(_texts(200)[0], tmp_path, config)
    assert not (tmp_path / "codes.npy").exists()
