"""Windows and batches: every document once, whole, in every residency and on every replica."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from model.devices import mirror
from shortline import UserError
from tfdata.config import PipelineConfig, TokenizerConfig
from tfdata.device_feed import build_feed
from tfdata.encode import Encoder
from tfdata.pipeline import BatchFeed
from tfdata.plan import Buckets, choose_buckets
from tfdata.shards import read_batches
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource, build_window

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "host": PipelineConfig(batch_size=64, residency="host"),
    "stream": PipelineConfig(batch_size=64, residency="stream", window_docs=300),
    "tokens": PipelineConfig(batch_tokens=2_000, residency="stream", window_docs=700),
}


def _source(shards, part="train", config=CONFIGS["host"], seed=0, max_len=60):
    vocabulary = Vocabulary.build(shards.words, TokenizerConfig())
    encoder = Encoder(TokenizerConfig(), vocabulary, max_len)
    return WindowSource(
        shards, part, encoder, vocab_size=len(vocabulary), config=config, shuffle_seed=seed
    )


def _feed(shards, config, *, part="train", seed=0, start=(0, 0, 0), strategy=None, weights=None):
    strategy = strategy or tf.distribute.get_strategy()
    buckets = choose_buckets(shards.length_counts, 60, config)
    weights = np.ones(len(shards.labels), np.float32) if weights is None else weights
    source = _source(shards, part, config, seed)
    return BatchFeed(
        source, buckets, seed=seed, class_weights=weights, strategy=strategy, start=start
    )


def _take(feed, epochs=1):
    """Batches, as numpy, of whole epochs."""
    batches = []
    while epochs:
        info = feed.next_window()
        batches += [(info, next(feed.iterator)) for _ in range(info.num_batches)]
        epochs -= info.is_last
    feed.close()
    return [(info, type(b)(*(np.asarray(t) for t in b))) for info, b in batches]


def _documents(batches):
    """(token ids, label) of each real row."""
    return sorted(
        (tuple(ids[:n].tolist()), int(label))
        for _, b in batches
        for ids, n, label, doc in zip(b.token_ids, b.lengths, b.labels, b.docs, strict=True)
        if doc >= 0
    )


@pytest.fixture(scope="module")
def expected(small_shards):
    """The training documents, encoded straight from the shards."""
    vocabulary = Vocabulary.build(small_shards.words, TokenizerConfig())
    encode = Encoder(TokenizerConfig(), vocabulary, 60).in_graph
    documents = []
    for texts, labels in read_batches(small_shards, "train"):
        ids, lengths = encode(tf.constant(texts.to_pylist()))
        rows = np.split(ids.numpy(), np.cumsum(lengths.numpy())[:-1])
        documents += [(tuple(r.tolist()), int(y)) for r, y in zip(rows, labels, strict=True)]
    return sorted(documents)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_epoch_holds_every_document_once(small_shards, expected, name):
    batches = _take(_feed(small_shards, CONFIGS[name]))
    assert _documents(batches) == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_epochs_differ_in_order_alone(small_shards, name):
    batches = _take(_feed(small_shards, CONFIGS[name]), epochs=2)
    first = [b for b in batches if b[0].epoch == 0]
    second = [b for b in batches if b[0].epoch == 1]
    assert _documents(first) == _documents(second)
    assert first[0][1].labels.tolist() != second[0][1].labels.tolist()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("done", [1, 7, 12])
def test_a_feed_started_midway_goes_on_as_the_straight_one(small_shards, name, done):
    config = CONFIGS[name]
    straight = _take(_feed(small_shards, config), epochs=2)
    last_info = straight[done - 1][0]
    before = sum(info.window < last_info.window for info, _ in straight[:done])
    start = (0, last_info.window, done - before)
    resumed = _take(_feed(small_shards, config, start=start), epochs=2)
    assert len(resumed) == len(straight) - done
    for (_, ours), (_, theirs) in zip(resumed, straight[done:], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_validation_keeps_the_order_of_the_part(small_shards):
    feed = _feed(small_shards, CONFIGS["stream"], part="valid", seed=None)
    labels = np.concatenate([labels for _, labels in read_batches(small_shards, "valid")])
    seen = np.full(len(labels), -1)
    for _, batch in _take(feed):
        real = batch.docs >= 0
        assert (seen[batch.docs[real]] == -1).all()
        seen[batch.docs[real]] = batch.labels[real]
    np.testing.assert_array_equal(seen, labels)


@pytest.mark.parametrize("num_replicas", [2, 3, 4])
@pytest.mark.parametrize("name", CONFIGS)
def test_replicas_share_each_global_batch(small_shards, name, num_replicas):
    devices = tf.config.list_logical_devices("CPU")[:num_replicas]
    strategy = mirror(tuple(d.name for d in devices))
    feed = _feed(small_shards, CONFIGS[name], strategy=strategy)
    alone = _feed(small_shards, CONFIGS[name])
    shared, is_last = [], False
    while not is_last:
        info = feed.next_window()
        is_last = info.is_last
        for _ in range(info.num_batches):
            batch = next(feed.iterator)
            parts = [strategy.experimental_local_results(t) for t in batch]
            assert len({part.shape for part in parts[0]}) == 1  # one bucket on all replicas
            scale = parts.pop()
            assert len({float(value) for value in scale}) == 1
            shared.append((info, type(batch)(*(np.concatenate(p) for p in parts), scale[0])))
    feed.close()
    assert _documents(shared) == _documents(_take(alone))
    for (_, ours), (_, theirs) in zip(
        shared, _take(_feed(small_shards, CONFIGS[name])), strict=True
    ):
        num_rows = len(theirs.labels)  # the rest fills up what cannot be shared evenly
        assert len(ours.labels) == -(-num_rows // num_replicas) * num_replicas
        assert (ours.docs[num_rows:] == -1).all()
        np.testing.assert_array_equal(ours.token_ids[:num_rows], theirs.token_ids)
        np.testing.assert_array_equal(ours.weights[:num_rows], theirs.weights)
        assert float(ours.scale) / len(ours.labels) == pytest.approx(theirs.scale / num_rows)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_dataset_has_the_same_batches(small_shards, name):
    expected = _take(_feed(small_shards, CONFIGS[name]))
    feed = _feed(small_shards, CONFIGS[name])
    batches = feed.as_dataset().take(len(expected)).as_numpy_iterator()
    for batch, (_, other) in zip(batches, expected, strict=True):
        for ours, theirs in zip(batch, other, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    feed.close()


def test_fillers_weigh_nothing_and_the_rest_makes_up(small_shards):
    weights = np.linspace(1, 2, len(small_shards.labels)).astype(np.float32)
    batches = _take(_feed(small_shards, CONFIGS["host"], weights=weights))
    num_partial = 0
    for _, batch in batches:
        real = batch.docs >= 0
        num_partial += not real.all()
        assert batch.scale == pytest.approx(len(real) / real.sum())
        np.testing.assert_array_equal(batch.weights[real], weights[batch.labels[real]])
        assert (batch.weights[~real] == 0).all()
        assert (batch.lengths >= 1).all()
    assert num_partial == 1


def test_padding_is_what_the_info_says(small_shards):
    batches = _take(_feed(small_shards, CONFIGS["host"]))
    info = batches[0][0]
    assert info.num_padded == sum(b.token_ids.size for _, b in batches)
    assert info.num_tokens == sum(b.lengths[b.docs >= 0].sum() for _, b in batches)


def test_labels_that_training_lacks_weigh_nothing():
    window = build_window(
        [(np.array([1, 2, 3], np.uint16), np.array([1, 2], np.int32), np.array([0, 7], np.int32))],
        0,
    )

    class Source:
        id_type = np.uint16

        def start(self):
            pass

        def stop(self):
            pass

        def docs_of_windows(self, epoch):
            return [2]

        def read(self, epoch, first_window=0):
            yield window

    feed = BatchFeed(Source(), Buckets((2,), (2,)), seed=None, class_weights=np.ones(3, np.float32))  # type: ignore[arg-type]
    ((_, batch),) = _take(feed)
    assert batch.labels.tolist() == [0, 7]
    assert batch.weights.tolist() == [1.0, 0.0]


def test_a_stream_stays_small_and_windows_have_their_size(small_shards):
    source = _source(small_shards, config=CONFIGS["stream"])
    sizes = [len(window) for window in source.read(0)]
    assert sizes == source.docs_of_windows(0)
    assert set(sizes[:-1]) == {300}
    assert next(w.first_doc for w in source.read(0, first_window=2)) == 600


def test_auto_residency_goes_by_size(small_shards, monkeypatch):
    monkeypatch.setattr("tfdata.residency._available_bytes", lambda: 10_000)
    assert _source(small_shards, config=PipelineConfig()).residency == "stream"
    monkeypatch.setattr("tfdata.residency._available_bytes", lambda: 2**30)
    assert _source(small_shards, config=PipelineConfig()).residency == "host"


@pytest.mark.parametrize("name", ["host", "stream"])
def test_a_damaged_shard_is_reported_where_batches_are_awaited(small_shards, tmp_path, name):
    import shutil

    from tfdata.shards import open_shards

    folder = tmp_path / "shards"
    shutil.copytree(small_shards.folder, folder)
    shards = open_shards(folder)
    (shard,) = shards.parts["train"]
    data = bytearray((folder / shard.file).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (folder / shard.file).write_bytes(data)
    # with ids on disk, nothing reads the shard
    feed = _feed(shards, dataclasses.replace(CONFIGS[name], id_cache=False))
    with pytest.raises(UserError, match=shard.file):
        feed.next_window()
    feed.close()


@pytest.mark.parametrize("failing_window", [0, 1])
def test_an_error_within_a_window_ends_the_loop_that_awaits_its_batches(
    small_shards, monkeypatch, failing_window
):
    """What was gathered before it can still be taken, in a compiled loop too."""
    import tfdata.pipeline as pipeline

    windows = []

    def gather_or_fail(window, *rest):
        windows.append(window)
        steps = pipeline_gather(window, *rest)
        yield next(steps)
        if len(windows) > failing_window:
            raise MemoryError("no room for a batch")
        yield from steps

    pipeline_gather = pipeline.gather_steps
    monkeypatch.setattr(pipeline, "gather_steps", gather_or_fail)
    feed = _feed(small_shards, CONFIGS["stream"])
    num_done = tf.Variable(0)

    @tf.function
    def take(num_batches):
        for _ in tf.range(num_batches):
            next(feed.iterator)
            num_done.assign_add(1)

    for _ in range(failing_window):
        take(tf.constant(feed.next_window().num_batches))
    info = feed.next_window()
    with pytest.raises(MemoryError, match="no room"), feed.tell_end():
        take(tf.constant(info.num_batches + 1_000))
    assert num_done.numpy() > 0
    feed.close()


@pytest.mark.parametrize("residency", ["stream", "device"])
def test_a_process_may_end_while_a_feed_is_at_work(small_shards, residency):
    """Nobody closes the feed; the next window is being tokenised when the interpreter ends."""
    script = f"""
import numpy as np
from pathlib import Path
from shortline import import_tensorflow
import_tensorflow()
import tensorflow as tf
from tests.test_pipeline import _source
from tfdata.config import PipelineConfig
from tfdata.device_feed import build_feed
from tfdata.plan import choose_buckets
from tfdata.shards import open_shards
shards = open_shards(Path({str(small_shards.folder)!r}))
config = PipelineConfig(
    batch_size=8, residency={residency!r}, window_docs=500, id_cache=False
)
source = _source(shards, config=config)
encode = source._encode_texts
source._encode_texts = lambda texts: [encode(texts) for _ in range(100)][-1]  # always at work
feed = build_feed(
    source, choose_buckets(shards.length_counts, 60, config), seed=0,
    class_weights=np.ones(12, np.float32), strategy=tf.distribute.get_strategy(),
)
feed.next_window()
print("done")
"""
    command = [sys.executable, "-c", script]
    for _ in range(3):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]


@pytest.mark.parametrize("residency", ["stream", "device"])
def test_a_source_serves_one_feed_after_another(small_shards, residency):
    config = PipelineConfig(batch_size=64, residency=residency, window_docs=300, id_cache=False)
    source = _source(small_shards, config=config)
    buckets = choose_buckets(small_shards.length_counts, 60, config)
    for _ in range(2):
        feed = build_feed(
            source, buckets, seed=0, class_weights=np.ones(12, np.float32),
            strategy=tf.distribute.get_strategy(),
        )  # fmt: skip
        assert feed.poll_window(timeout=30) is not None
        feed.close()
