"""What is called again and again keeps nothing: TensorFlow remembers every Python number."""

from __future__ import annotations

import ctypes
import itertools
import threading

import pytest

from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.events import MetricsLog
from model.made_up import make_batch, repeat_batches
from model.optimizer import Adam
from model.step import build_train_chunk
from tfdata.config import PipelineConfig, TokenizerConfig
from tfdata.encode import Encoder
from tfdata.pipeline import Batch
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource

_CALLS = 1_000
_MOST_BYTES = 150  # a call; a Python number that TensorFlow was given takes more
_numbers = itertools.count(10_000)

try:
    _mallinfo = ctypes.CDLL(None).mallinfo2  # of the GNU C library; resident memory tells less
except (AttributeError, OSError, TypeError):
    _mallinfo = None
pytestmark = pytest.mark.skipif(_mallinfo is None, reason="wants the GNU C library")


class _Allocated(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    ]  # fmt: skip


def grow(call):
    """Bytes a call that stay allocated, of calls with numbers that were not there before."""
    assert _mallinfo is not None
    _mallinfo.restype = _Allocated
    sizes = []
    for _ in range(2):  # the first ones fill what is filled but once
        for number in itertools.islice(_numbers, _CALLS):
            call(number)
        allocated = _mallinfo()
        sizes.append(allocated.uordblks + allocated.hblkhd)
    return (sizes[1] - sizes[0]) / _CALLS


def test_a_log_keeps_no_event(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard", 0)
    assert grow(lambda n: log.log("train", n, {"loss": n / 7, "accuracy": n / 9})) < _MOST_BYTES
    log.close()


def test_a_chunk_keeps_no_step():
    classifier = Classifier(
        ModelConfig(embedding_dim=4, hidden=4), vocab_size=10, num_classes=2, unknown_id=1,
        route="block",
    )  # fmt: skip
    adam = Adam(classifier.weights_by_name, TrainConfig(), 100_000, scale_loss=False)
    adam.begin(0, ["embedding", "pairs"])
    batch = make_batch(Batch, 2, 3, vocab_size=10, num_classes=2)
    run = build_train_chunk(classifier, adam, repeat_batches([batch]), seed=0)

    def run_and_catch_up(step):
        run(step, 0)
        adam.catch_up(step)

    assert grow(run_and_catch_up) < _MOST_BYTES


def test_an_epoch_keeps_the_threads_of_the_one_before(small_shards):
    """New threads would take new memory, while that of the old ones lies in pieces."""
    vocabulary = Vocabulary.build(small_shards.words, TokenizerConfig())
    source = WindowSource(
        small_shards, "train", Encoder(TokenizerConfig(), vocabulary, 60),
        vocab_size=len(vocabulary), shuffle_seed=0,
        config=PipelineConfig(residency="stream", window_docs=300, id_cache=False),
    )  # fmt: skip

    def find_encoders():
        return {thread for thread in threading.enumerate() if thread.name.startswith("encode")}

    assert len(list(source.read(0))) == 6
    encoders = find_encoders()
    assert encoders
    assert len(list(source.read(1))) == 6
    assert find_encoders() >= encoders
