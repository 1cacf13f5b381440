"""Vectors of words and pairs: the rows of a batch give what whole tables give."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from model.checkpoint import CheckpointWriter, load_checkpoint, restore
from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.made_up import make_batch, repeat_batches
from model.opened import describe_words, open_run
from model.optimizer import Adam, choose_lazy
from model.run import create_run
from model.step import build_train_chunk
from model.words import TABLES, key_pairs
from shortline import UserError, flat_values
from tfdata.config import TokenizerConfig
from tfdata.pipeline import Batch
from tfdata.vocab import Vocabulary

NETWORK = ModelConfig(
    embedding_dim=5, pieces=40, pairs=32, pairs_dim=3, hidden=4, word_dropout=0.4, dropout=0.2
)
TOKENIZER = TokenizerConfig(stems=2)
WORDS = [start + end for end in ("", "ed", "ing", "s9") for start in ("pay", "card", "ab", "42")]
VOCABULARY = Vocabulary.build(WORDS, TOKENIZER)
V = len(VOCABULARY)
SEED = tf.constant([0, 7], tf.int64)


def _classifier(network=NETWORK, route="block", seed=0, has_parts=True):
    parts = describe_words(VOCABULARY, TOKENIZER, network) if has_parts else None
    classifier = Classifier(
        network, vocab_size=V, num_classes=3, unknown_id=1, route=route, seed=seed, parts=parts
    )
    if network.pairs:  # half of those that there are
        ids = _texts()[0].numpy().astype(np.int64)
        batches = [batch.token_ids.numpy().astype(np.int64) for batch in _batches()]
        keys = [key_pairs(some[:, :-1], some[:, 1:]).ravel() for some in (ids, *batches)]
        keys = np.unique(np.concatenate(keys))[::2][: network.pairs - 1]
        classifier.words.list_pairs(keys)
        assert 4 < (classifier.words._find_pairs(tf.constant(ids)).numpy() > 0).sum() < ids.size - 4
    return classifier


def _texts(num_docs=6, num_tokens=8):
    """Right-padded ids of texts of 1 to `num_tokens` tokens."""
    random = np.random.default_rng(3)
    lengths = np.r_[1, random.integers(1, num_tokens + 1, num_docs - 2), num_tokens]
    ids = random.integers(1, V, (num_docs, num_tokens))
    ids *= np.arange(num_tokens) < lengths[:, np.newaxis]
    return tf.constant(ids, tf.int32), tf.constant(lengths, tf.int32)


def _batches():
    """Of few words each, so that rows fall behind."""
    sizes = [(4, 3), (2, 7), (3, 1)]
    return [make_batch(Batch, *size, vocab_size=V, num_classes=3) for size in sizes]


def _logits_and_gradients(classifier, found, num_blocks=1):
    ids, lengths = _texts()
    weights = classifier.weights_by_name
    with tf.GradientTape() as tape:
        logits = classifier.call(ids, lengths, SEED, 0, num_blocks, found)
        loss = tf.reduce_sum(logits * tf.constant([1.0, -2.0, 3.0]))
    gradients = tape.gradient(loss, list(weights.values()))
    return {"logits": logits} | dict(
        zip(weights, map(tf.convert_to_tensor, gradients), strict=True)
    )


def _assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


NETWORKS = {
    "all": NETWORK,
    "no pieces": ModelConfig(embedding_dim=5, pieces=0, pairs=32, hidden=4, word_dropout=0.4),
    "no pairs": ModelConfig(embedding_dim=5, pieces=40, pairs=0, hidden=4, word_dropout=0.4),
    "pairs alone": ModelConfig(
        embedding_dim=5, pieces=0, pairs=32, bag=False, hidden=4, pooling="last"
    ),
}


@pytest.mark.parametrize("num_blocks", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_of_the_batch_give_the_logits_and_gradients_of_whole_tables(name, num_blocks):
    classifier = _classifier(NETWORKS[name])
    ids = tf.cast(_texts()[0], tf.int64)
    whole = _logits_and_gradients(classifier, classifier.words.find(ids))
    for table in classifier.words.tables:
        assert np.any(whole[table])
    rows = _logits_and_gradients(classifier, classifier.words.find_rows(ids), num_blocks)
    _assert_same(rows, whole)


def test_a_words_vector_is_the_sum_of_its_parts():
    classifier = _classifier()
    tables = {name: table.numpy() for name, table in classifier.words.tables.items()}
    parts = describe_words(VOCABULARY, TOKENIZER, NETWORK)
    assert parts is not None
    vectors = classifier.words.find(tf.zeros([1, 1], tf.int64)).vectors().numpy()
    for i, entry in enumerate(VOCABULARY.entries):
        expected = tables["embedding"][i].copy()
        if parts.stems[i] != i:
            assert VOCABULARY.entries[parts.stems[i]] == entry[:2].replace("9", "0").replace(
                "42", "00"
            ) + (" *")
            expected += tables["embedding"][parts.stems[i]]
        pieces = parts.pieces[i][parts.pieces[i] > 0]
        if len(pieces):
            expected += tables["pieces"][pieces].mean(axis=0)
        np.testing.assert_allclose(vectors[i], expected, atol=1e-6)


def _train(lazy, num_steps=12):
    classifier = _classifier()
    training = TrainConfig(learning_rate=0.02, warmup=0.2)
    adam = Adam(classifier.weights_by_name, training, num_steps, scale_loss=False)
    adam.begin(0, lazy)
    assert adam.lazy_tables == set(lazy)
    run = build_train_chunk(classifier, adam, repeat_batches(_batches()), seed=0)
    sums = run(0, num_steps)
    behind = {name: adam.state_by_name[f"adam_steps_of_rows/{name}"].numpy() for name in TABLES}
    adam.catch_up(num_steps)
    state = classifier.weights_by_name | adam.state_by_name
    return sums.loss, behind, {name: value.numpy() for name, value in state.items()}


@pytest.mark.parametrize("lazy", [TABLES, ("pairs",), ("embedding", "pairs"), ("pieces",)])
def test_lazy_training_is_dense_training(lazy):
    loss, _, expected = _train(())
    lazy_loss, behind, found = _train(lazy)
    assert lazy_loss == pytest.approx(loss, rel=1e-5)
    assert any(np.any((behind[name] >= 0) & (behind[name] < 12)) for name in lazy)
    for name, value in found.items():
        if "steps_of_rows" not in name:
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_only_tables_of_which_little_is_read_are_lazy():
    rows = {"embedding": 3000, "pieces": 3000, "pairs": 900, "x/kernel": 10_000}
    weights = {name: tf.Variable(tf.zeros([number, 1])) for name, number in rows.items()}
    assert choose_lazy(100, weights) == set(TABLES)
    assert choose_lazy(1000, weights) == {"embedding"}
    assert not choose_lazy(3000, weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_words_give_the_same_logits(name, monkeypatch):
    monkeypatch.setattr("model.words._FOLDED_WORDS", 7)
    classifier = _classifier(NETWORKS[name])
    before = classifier.call(*_texts())
    classifier.words.fold()
    assert not classifier.words.has_parts
    assert "pieces" not in classifier.weights_by_name
    np.testing.assert_allclose(classifier.call(*_texts()), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("route", ["block", "keras"])
def test_padding_has_no_part_in_the_logits(name, route):
    """Texts of one token included, which have no pair."""
    classifier = _classifier(NETWORKS[name], route)
    ids, lengths = _texts()
    expected = classifier.call(ids, lengths).numpy()
    padded = tf.pad(ids, [[0, 0], [0, 5]])
    np.testing.assert_allclose(classifier.call(padded, lengths), expected, rtol=1e-5, atol=1e-6)
    for row, length in enumerate(lengths.numpy()):
        alone = classifier.call(ids[row : row + 1, :length], lengths[row : row + 1])
        np.testing.assert_allclose(alone[0], expected[row], rtol=1e-5, atol=1e-6)
    # nor has what stands there
    junk = tf.where(tf.sequence_mask(lengths, 13), padded, 3)
    np.testing.assert_allclose(classifier.call(junk, lengths), expected, rtol=1e-5, atol=1e-6)


def test_listed_pairs_have_rows_of_their_own_and_others_one_in_common():
    classifier = _classifier(ModelConfig(embedding_dim=5, pieces=0, pairs=8, hidden=4))
    find = classifier.words._find_pairs
    classifier.words.list_pairs(np.zeros(0, np.int64))
    ids = tf.constant([[5, 6, 5, 7], [6, 6, 7, 5]], tf.int64)
    assert not find(ids).numpy().any()
    some = np.array([[5, 6], [6, 5], [7, 5]], np.int64)
    classifier.words.list_pairs(np.sort(key_pairs(some[:, 0], some[:, 1])))
    # (5, 6) (6, 5) (5, 7) (7, nothing); (6, 6) (6, 7) (7, 5) (5, nothing)
    assert find(ids).numpy().tolist() == [[1, 2, 0, 0], [0, 0, 3, 0]]
    large = np.array([2**31 - 1], np.int64)
    classifier.words.list_pairs(key_pairs(large, large))
    assert find(tf.constant([[large[0], large[0]]], tf.int64)).numpy().tolist() == [[1, 0]]
    full = key_pairs(np.full(7, 9, np.int64), np.arange(7))
    classifier.words.list_pairs(full)
    assert find(tf.constant([[9, 6], [9, 7]], tf.int64)).numpy().tolist() == [[7, 0], [0, 0]]


def test_dropped_words_become_their_stems_or_unknown():
    classifier = _classifier()
    ids = tf.fill([50, 20], np.int64(VOCABULARY.entries.index("carding")))
    stem = VOCABULARY.entries.index("ca *")
    for find in (classifier.words.find, classifier.words.find_rows):
        found = find(ids)
        dropped = classifier._drop_words(found, (SEED, 0, 20))
        vectors = tf.gather(found.vectors(), dropped)
        whole = classifier.words.find(ids).vectors()
        counts = [
            np.all(np.isclose(vectors, whole[entry], atol=1e-6), axis=2).mean()
            for entry in (ids[0, 0].numpy(), stem, 1)
        ]
        np.testing.assert_allclose(counts, [0.6, 0.28, 0.12], atol=0.05)


def test_a_checkpoint_without_pieces_is_refused_in_a_line(tmp_path):
    path = tmp_path / "last.npz"
    with CheckpointWriter() as writer:
        without = _classifier(NETWORKS["no pieces"])
        writer.save([path], without.state_by_name, {"step": 0})
    arrays, _ = load_checkpoint(path)
    with pytest.raises(
        UserError, match=r"last.npz: pieces is missing, the network wants \(40, 5\)"
    ):
        restore(_classifier(NETWORKS["no pairs"]).state_by_name, arrays, path)


def test_texts_without_any_piece():
    """All their words unknown, as in the part of a replica that gets no texts."""
    classifier = _classifier(dataclasses.replace(NETWORK, pieces=4000))
    ids, lengths = tf.ones([2, 3], tf.int32), tf.constant([3, 1])
    whole = classifier.call(ids, lengths, found=classifier.words.find(tf.cast(ids, tf.int64)))
    del [tf.fill([4000, 5], 7.0) + 1.0 for _ in range(5)][:]  # memory that is not zero
    with tf.GradientTape() as tape:
        logits = classifier.call(ids, lengths)
    gradient = tape.gradient(logits, classifier.weights_by_name["pieces"])
    np.testing.assert_allclose(logits, whole, atol=1e-6)
    assert not np.any(tf.convert_to_tensor(gradient))


def test_a_run_of_before_there_were_stems_and_pieces_is_opened(tmp_path):
    tokenizer = TokenizerConfig(stems=0, max_len=8)
    network = ModelConfig(embedding_dim=5, hidden=4, pieces=0, pairs=0, bag=False)
    settings = flat_values(tokenizer) | flat_values(network)
    for name in ("stems", "pieces", "pairs", "pairs_dim", "bag"):
        del settings[name]
    vocabulary = Vocabulary.build(WORDS, tokenizer)
    paths = create_run(tmp_path / "run", settings, ("a", "b", "c"), vocabulary)
    classifier = Classifier(
        network, vocab_size=len(vocabulary), num_classes=3, unknown_id=1, route="block"
    )
    with CheckpointWriter() as writer:
        writer.save([paths.best], classifier.state_by_name, {"step": 0})
    run = open_run(paths.folder)
    assert run.vocabulary == vocabulary
    ids, lengths = tf.constant([[2, 3, 1]]), tf.constant([3])
    opened = run.build_classifier("block")
    np.testing.assert_array_equal(opened.call(ids, lengths), classifier.call(ids, lengths))
