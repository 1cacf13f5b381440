"""The linear classifier beside the network: what it is trained to, and what it answers."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from model import infer, linear, linear_fit
from model.checkpoint import write_checkpoint
from model.export import export_run
from model.infer import build_infer
from model.linear import (
    LinearPath,
    LinearWeights,
    from_arrays,
    hash_pairs,
    read_linear,
    to_arrays,
    write_linear,
)
from model.linear_fit import DualAscent, Features, fit_linear
from model.opened import keep_answers, open_run
from shortline import UserError
from tests.small_run import make_run, make_texts
from tfdata.subwords import hash_pieces
from tfdata.window import Window, build_window

VOCAB, PAIRS, CLASSES = 40, 1 << 10, 4
PIECES = np.random.default_rng(7).integers(0, 16, (VOCAB, 3)).astype(np.int32)
PIECES[:2] = 0
NO_PIECES = np.zeros((VOCAB, 0), np.int32)


class Source:
    """Windows as of a WindowSource that keeps the order of its documents."""

    def __init__(self, *windows: Window):
        self.windows = windows
        self.num_docs = sum(map(len, windows))

    def read(self, epoch: int):
        return iter(self.windows)


def make_window(num_docs: int, seed: int = 0, first_doc: int = 0, noise: float = 0.2) -> Window:
    """A document's class is that of the word that it has two of, but for some."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 12, num_docs).astype(np.int32)
    labels = random.integers(0, CLASSES, num_docs).astype(np.int32)
    docs = [random.integers(6, VOCAB, length) for length in lengths]
    for ids, label in zip(docs, labels, strict=True):
        ids[: min(2, len(ids))] = 2 + label
    is_other = random.random(num_docs) < noise
    labels[is_other] = random.integers(0, CLASSES, int(is_other.sum()))
    return build_window([(np.concatenate(docs).astype(np.uint16), lengths, labels)], first_doc)


def list_features(ids: np.ndarray, linear: LinearWeights) -> list[int]:
    """The words int64[n] of a text, its pairs and pieces; as often as they are in it."""
    found = list(ids)
    for distance in range(1, linear.reach + 1):
        for pair in zip(ids[:-distance], ids[distance:], strict=True):
            found.append(VOCAB + int(hash_pairs(*map(tf.constant, pair), PAIRS, distance)))
    pieces = linear.pieces[ids]
    return list(map(int, [*found, *(VOCAB + PAIRS + pieces[pieces > 0])]))


def describe(window: Window, linear: LinearWeights) -> np.ndarray:
    """float64[D, R], document by document, as model.linear's docstring has it."""
    where = {int(feature): number for number, feature in enumerate(linear.features)}
    vectors = np.zeros((len(window), len(where)))
    for doc in range(len(window)):
        ids = window.ids[window.offsets[doc] : window.offsets[doc + 1]].astype(np.int64)
        for feature in list_features(ids, linear):
            if (number := where.get(feature)) is not None:
                vectors[doc, number] += 1
    some = vectors > 0
    vectors[some] = 1 + np.log(vectors[some])
    vectors *= linear.idf
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def pad_window(window: Window, width: int) -> tuple[tf.Tensor, tf.Tensor]:
    inside = np.arange(width) < window.lengths[:, np.newaxis]
    token_ids = np.full(inside.shape, 7, np.int32)  # what stands after a text's end is not in it
    token_ids[inside] = window.ids
    return tf.constant(token_ids), tf.constant(window.lengths)


def fit(
    source: Source, num_classes: int = CLASSES, pieces: np.ndarray = NO_PIECES, reach: int = 1,
    is_stopped: threading.Event | None = None, weighs_rare: bool = True,
) -> LinearWeights | None:  # fmt: skip
    return fit_linear(
        source, VOCAB, num_classes, num_pairs=PAIRS, pieces=pieces, reach=reach,
        weighs_rare=weighs_rare, is_stopped=is_stopped,
    )  # fmt: skip


@pytest.fixture(
    scope="module", params=[(NO_PIECES, 1), (PIECES, 3)], ids=["neighbours", "pieces, reach 3"]
)
def fitted(request) -> tuple[Window, LinearWeights]:
    window = make_window(700)
    linear = fit(Source(window), CLASSES, *request.param)
    assert linear is not None
    return window, linear


def test_what_one_text_has_is_no_feature_and_idf_counts_texts(fitted):
    window, linear = fitted
    counts: dict[int, int] = {}
    for doc in range(len(window)):
        ids = window.ids[window.offsets[doc] : window.offsets[doc + 1]].astype(np.int64)
        for feature in set(list_features(ids, linear)):
            counts[feature] = counts.get(feature, 0) + 1
    assert linear.features.tolist() == sorted(f for f, count in counts.items() if count > 1)
    texts = np.array([counts[feature] for feature in linear.features.tolist()])
    np.testing.assert_allclose(linear.idf, 1 + np.log((1 + 700) / (1 + texts)), rtol=1e-6)


def test_pieces_of_a_window_are_counted_once(fitted, monkeypatch):
    window, linear = fitted
    monkeypatch.setattr(linear_fit, "_COUNTED_NUMBERS", 150)
    again = fit(Source(window), CLASSES, linear.pieces, linear.reach)
    assert again is not None
    np.testing.assert_array_equal(again.features, linear.features)
    np.testing.assert_array_equal(again.idf, linear.idf)


@pytest.mark.parametrize("costs", [[1, 1, 1, 1], [1, 2, 4, 2]], ids=["one cost", "costs"])
@pytest.mark.parametrize(("pieces", "reach"), [(NO_PIECES, 1), (PIECES, 2)])
def test_ascent_comes_to_the_minimum_of_the_svm(pieces, reach, costs):
    """The duality gap, which bounds how far the weights are from the best ones, closes."""
    window = make_window(150)
    buckets = VOCAB + PAIRS + np.unique(pieces[pieces > 0])
    features = np.append(np.arange(2, VOCAB), buckets)
    idf = np.linspace(1, 2, len(features)).astype(np.float32)
    found = Features(features, idf, VOCAB, PAIRS, pieces, reach)
    ascent = DualAscent(found, len(window), np.array(costs, np.float32))
    rng, gaps = np.random.default_rng(0), []
    x = describe(window, LinearWeights(features, idf, np.zeros(0), VOCAB, PAIRS, pieces, reach))
    signs = np.where(window.labels[:, np.newaxis] == np.arange(CLASSES), 1.0, -1.0)
    cost = np.where(signs > 0, costs, 1.0)
    for _ in range(150):
        assert list(ascent.run(window, rng))[-1] == len(window)
        duals, weights = ascent.duals.numpy()[:-1].astype(np.float64), ascent.weights()
        assert (duals >= 0).all()
        np.testing.assert_allclose(x.T @ (signs * duals), weights, atol=1e-4)
        half_norm = np.square(weights, dtype=np.float64).sum() / 2
        losses = np.maximum(0, 1 - signs * (x @ weights - 1))
        primal = half_norm + (cost * np.square(losses)).sum()
        dual = (duals * (1 + signs)).sum() - half_norm - (np.square(duals) / cost).sum() / 4
        gaps.append((primal - dual) / primal)
    assert gaps[0] > 0.01
    assert -1e-5 < gaps[-1] < 1e-3


def test_values_are_those_of_the_vectors_however_texts_are_padded(fitted):
    window, linear = fitted
    path = LinearPath(linear)
    expected = describe(window, linear) @ linear.weights
    for width in (11, 30):
        values = path.values(*pad_window(window, width))
        np.testing.assert_allclose(values, expected, atol=1e-4)
    token_ids, lengths = pad_window(window, 11)
    alone = [path.values(token_ids[doc : doc + 1], lengths[doc : doc + 1]) for doc in range(9)]
    np.testing.assert_allclose(tf.concat(alone, axis=0), expected[:9], atol=1e-4)


def test_text_without_a_feature_has_values_of_0(fitted):
    _, linear = fitted
    values = LinearPath(linear).values(tf.constant([[0, 1], [2, 2]]), tf.constant([2, 2]))
    assert not values[0].numpy().any()
    assert values[1].numpy().any()


def test_it_learns_what_tells_the_classes(fitted):
    _, linear = fitted
    new = make_window(500, seed=1, noise=0)
    values = LinearPath(linear).values(*pad_window(new, 11))
    assert (values.numpy().argmax(axis=1) == new.labels).mean() > 0.95


def test_windows_and_other_id_types_give_as_good_weights(fitted):
    window, linear = fitted
    cut = window.offsets[300]
    first = Window(
        window.ids[:cut].astype(np.int32), window.offsets[:301], window.labels[:300]
    )  # fmt: skip
    second = Window(
        window.ids[cut:].astype(np.int32), window.offsets[300:] - cut, window.labels[300:], 300
    )
    other = fit(Source(first, second), CLASSES, linear.pieces, linear.reach)
    assert other is not None
    np.testing.assert_array_equal(other.features, linear.features)
    x, signs = describe(window, linear), np.eye(CLASSES)[window.labels] * 2 - 1

    def objective(weights):
        losses = np.maximum(0, 1 - signs * (x @ weights - 1))
        return np.square(weights).sum() / 2 + np.square(losses).sum()

    assert objective(other.weights) == pytest.approx(objective(linear.weights), rel=0.02)


def test_more_documents_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(linear_fit, "_MOST_DUALS", 90 * CLASSES)
    monkeypatch.setattr(linear_fit, "_MOST_WEIGHTS", 30 * CLASSES)
    windows = make_window(70), make_window(70, 1, 70), make_window(70, 2, 140)
    linear = fit(Source(*windows))
    assert linear is not None
    assert len(linear.features) == 30
    assert (linear.features[:4] == [2, 3, 4, 5]).all()  # the most frequent


def test_texts_without_features_and_a_stop_give_none():
    ids = np.arange(2, 30, dtype=np.uint16)
    once = build_window([(ids, np.ones(28, np.int32), np.zeros(28, np.int32))], 0)
    assert fit(Source(once), 2) is None
    stop = threading.Event()
    stop.set()
    window = make_window(100)
    for some in (stop, None):
        found = fit(Source(window), is_stopped=some)
        assert (found is None) == (some is not None)


def make_linear(run, random) -> LinearWeights:
    """Of all words, some pairs and some pieces, with random weights."""
    vocab_size = len(run.vocabulary)
    pieces = hash_pieces(run.vocabulary.entries, run.vocabulary.first_word_id, 128)
    pairs = np.sort(random.choice(PAIRS, 300, replace=False))
    features = np.concatenate([
        np.arange(2, vocab_size), vocab_size + pairs, vocab_size + PAIRS + np.arange(1, 100),
    ])  # fmt: skip
    idf = random.uniform(1, 3, len(features)).astype(np.float32)
    weights = random.normal(0, 1, (len(features), len(run.labels)))
    weights = weights.astype(np.float16).astype(np.float32)
    return LinearWeights(features, idf, weights, vocab_size, PAIRS, pieces, reach=3)


def test_a_run_answers_with_it_and_so_does_its_export(tmp_path):
    run = make_run(tmp_path / "run")
    texts = pa.array(make_texts(40))
    plain = build_infer(run, has_gpu=False)(texts).numpy()
    linear = make_linear(run, np.random.default_rng(3))
    keep_answers(dataclasses.replace(run, linear=linear))
    run = open_run(run.paths.folder)
    encode, path = run.build_encoder(), LinearPath(linear)
    expected = []
    for text in texts.to_pylist():
        ids, lengths = encode(tf.constant([text]))
        expected.append(path.values(ids[tf.newaxis], lengths)[0])
    found = build_infer(run, has_gpu=False)(texts).numpy()
    np.testing.assert_allclose(found, plain + np.stack(expected), atol=1e-4)
    assert np.abs(found - plain).max() > 0.5
    export_run(run, tmp_path / "export")
    serve = tf.saved_model.load(str(tmp_path / "export")).signatures["serving_default"]
    np.testing.assert_allclose(
        serve(text=tf.constant(texts.to_pylist()))["probabilities"], tf.nn.softmax(found),
        atol=1e-5,
    )  # fmt: skip


def test_file_keeps_all_but_the_weights_whole(tmp_path, fitted):
    _, linear = fitted
    write_linear(tmp_path / "linear.npz", linear)
    found = read_linear(tmp_path / "linear.npz", CLASSES, VOCAB)
    assert found is not None
    np.testing.assert_array_equal(found.features, linear.features)
    np.testing.assert_array_equal(found.idf, linear.idf)
    np.testing.assert_allclose(found.weights, linear.weights, atol=1e-3)
    np.testing.assert_array_equal(found.pieces, linear.pieces)
    assert (found.num_pairs, found.reach) == (PAIRS, linear.reach)
    assert read_linear(tmp_path / "other.npz", CLASSES, VOCAB) is None
    again = from_arrays(to_arrays(found))
    np.testing.assert_array_equal(again.weights, found.weights)


def test_damaged_file_or_one_of_other_classes_is_named(tmp_path, fitted):
    path = tmp_path / "linear.npz"
    write_linear(path, fitted[1])
    with pytest.raises(UserError, match=r"linear\.npz: of other classes"):
        read_linear(path, CLASSES + 1, VOCAB)
    with pytest.raises(UserError, match=r"linear\.npz: of other classes"):
        read_linear(path, CLASSES, VOCAB + 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"linear\.npz: damaged"):
        read_linear(path, CLASSES, VOCAB)


def test_a_batch_is_no_larger_than_its_limit_on_a_gpu_knows():
    assert linear._MOST_TOKENS == infer._BATCH_TOKENS


def test_a_file_without_pieces_is_of_another_version(tmp_path, fitted):
    path = tmp_path / "linear.npz"
    arrays = to_arrays(fitted[1])
    write_checkpoint(path, {name: arrays[name] for name in arrays if name != "pieces"})
    with pytest.raises(UserError, match=r"of another version.*'pieces'.*--resume"):
        read_linear(path, CLASSES, VOCAB)
    write_checkpoint(path, arrays | {"pieces": np.zeros(VOCAB, np.int32)})
    with pytest.raises(UserError, match=r"linear\.npz: of other classes"):
        read_linear(path, CLASSES, VOCAB)


def test_a_file_of_before_there_was_a_reach_has_pairs_of_neighbours(tmp_path, fitted):
    path = tmp_path / "linear.npz"
    arrays = to_arrays(fitted[1])
    write_checkpoint(path, {name: arrays[name] for name in arrays if name != "reach"})
    found = read_linear(path, CLASSES, VOCAB)
    assert found is not None
    assert found.reach == 1
    write_checkpoint(path, arrays | {"reach": np.asarray(-2)})
    with pytest.raises(UserError, match=r"linear\.npz: of other classes"):
        read_linear(path, CLASSES, VOCAB)


def test_pairs_that_stand_apart_tell_what_neighbours_do_not():
    """The class is whether two words, with any word between them, are alike: no other tells it."""
    random = np.random.default_rng(0)
    ids = np.stack([random.integers(2, 4, 800), random.integers(4, VOCAB, 800)]).T
    ids = np.column_stack([ids, random.integers(2, 4, 800)]).astype(np.uint16)
    labels = (ids[:, 0] == ids[:, 2]).astype(np.int32)
    window = build_window([(ids.ravel(), np.full(800, 3, np.int32), labels)], 0)
    right = []
    for reach in (1, 2):
        found = fit(Source(window), 2, NO_PIECES, reach)
        assert found is not None
        values = LinearPath(found).values(tf.constant(ids), tf.fill([800], 3)).numpy()
        right.append((values.argmax(axis=1) == labels).mean())
    assert right[0] < 0.9
    assert right[1] == 1


def test_a_label_that_training_lacks_is_no_example_against_the_others():
    """As a validation part may have: the texts of class 0 under a label of its own."""
    window = make_window(600, noise=0)
    strange = make_window(200, seed=1, first_doc=600, noise=0)
    renamed = np.where(strange.labels == 0, CLASSES + 1, strange.labels)
    renamed = dataclasses.replace(strange, labels=renamed)
    new = make_window(500, seed=2, noise=0)
    recalls = []
    for source in (Source(window), Source(window, renamed)):
        found = fit(source)
        assert found is not None
        answers = LinearPath(found).values(*pad_window(new, 11)).numpy().argmax(axis=1)
        recalls.append((answers == 0)[new.labels == 0].mean())
    assert recalls[0] > 0.97
    assert recalls[1] > recalls[0] - 0.01


def test_a_class_of_few_texts_has_its_own_texts_where_it_is_weighed():
    """With one cost for all, the large class is ahead in half of them."""
    random = np.random.default_rng(0)
    common = random.integers(10, 20, (600, 4))
    rare = np.column_stack([common[:6, :3], np.full(6, 30)])
    ids = np.concatenate([common, rare]).astype(np.uint16)
    labels = np.r_[np.zeros(600), np.ones(6)].astype(np.int32)
    window = build_window([(ids.ravel(), np.full(606, 4, np.int32), labels)], 0)
    values = {}
    for weighs_rare in (True, False):
        found = fit(Source(window), 2, weighs_rare=weighs_rare)
        assert found is not None
        both = LinearPath(found).values(tf.constant(ids[600:]), tf.fill([6], 4)).numpy()
        values[weighs_rare] = both[:, 1] - 1
    assert (values[True] > 0.8).all()
    assert (values[False] < 0.8).all()
