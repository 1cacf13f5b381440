"""What workers tell each other before they train: settings, data, token ids."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading

import numpy as np
import pytest
import tensorflow as tf

from model.agreement import agree
from model.flags import read_flags, settle
from model.workers import Workers
from shortline import UserError
from tests.test_pipeline import CONFIGS, _source
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.gather import gather_steps
from tfdata.ingest import ingest
from tfdata.plan import choose_buckets, plan_batches
from tfdata.window import choose_docs


class Meeting:
    """Threads in the place of processes: each gathers what all have put there."""

    def __init__(self, num: int):
        self.num, self._barrier, self._arrays = num, threading.Barrier(num, timeout=60), {}

    def run(self, work) -> list:
        """`work(worker)` of each, in threads."""
        results: list = [None] * self.num
        threads = [
            threading.Thread(target=lambda i=i: results.__setitem__(i, work(_Worker(self, i))))
            for i in range(self.num)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        return results

    def gather(self, index: int, value) -> list:
        self._arrays[index] = value
        self._barrier.wait()
        gathered = [self._arrays[i] for i in range(self.num)]
        self._barrier.wait()
        return gathered


class _Worker:
    def __init__(self, meeting: Meeting, index: int):
        self.num, self.index, self._meeting = meeting.num, index, meeting

    def gather(self, value):
        return self._meeting.gather(self.index, value)

    def gather_values(self, value):
        return [json.loads(text) for text in self.gather(json.dumps(value))]


def _flags(shards, *more):
    data = ["--data", str(shards.folder), "--out", "somewhere"]
    return settle(read_flags([*data, *more]), shards)


def _agree(shards, *all_flags, data=None):
    """Of each worker the flags, or the error's words."""

    def work(worker):
        try:
            return agree(all_flags[worker.index], (data or [shards] * 2)[worker.index], worker)
        except UserError as error:
            return str(error)

    return Meeting(2).run(work)


def test_where_flags_may_differ_they_are_the_chiefs(small_shards):
    chief = _flags(small_shards, "--steps-per-call=7", "--residency=host", "--refit=none")
    other = _flags(small_shards, "--residency=device", "--save-minutes=1", "--out=elsewhere")
    first, second = _agree(small_shards, chief, other)
    assert first == chief
    assert (second.out, second.train.steps_per_call) == ("somewhere", 7)
    assert second.train.refit == "none"  # else it would wait for calls that the others never make
    assert second.pipeline.residency == "host"
    assert second.save_minutes == 1


def test_workers_of_unequal_memory_take_what_fits_all(small_shards):
    flags = [_flags(small_shards, f"--residency={r}") for r in ("device", "stream")]
    assert {f.pipeline.residency for f in _agree(small_shards, *flags)} == {"stream"}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--clip-norm=2", "--clip-norm 2.0 on worker 1: worker 0 has 1.0; give all"),
        ("--skip-nonfinite", "--skip-nonfinite True on worker 1: worker 0 has False"),
    ],
)
def test_other_settings_are_refused_by_all(small_shards, flag, message):
    said = _agree(small_shards, _flags(small_shards), _flags(small_shards, flag))
    assert all(text.startswith(message) for text in said)


def test_other_data_is_refused_by_all(small_shards):
    other = dataclasses.replace(small_shards, fingerprint="0" * 64)
    flags = _flags(small_shards)
    said = _agree(small_shards, flags, flags, data=[small_shards, other])
    assert all(text.startswith("worker 1 has other data than worker 0") for text in said)


@pytest.mark.parametrize("num_workers", [1, 2, 3, 7])
@pytest.mark.parametrize("shard_docs", [[10], [1], [4, 3, 5], [100, 1, 1, 1, 50, 2, 2]])
def test_every_document_is_one_workers_and_shards_stay_whole(shard_docs, num_workers):
    ranges = [choose_docs(shard_docs, num_workers, index) for index in range(num_workers)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == sum(shard_docs)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    if len(shard_docs) >= num_workers:
        assert {first for first, _ in ranges} <= {0, *np.cumsum(shard_docs).tolist()}


@pytest.fixture(scope="module")
def many_shards(small_shards, tmp_path_factory):
    """The documents of `small_shards` in shards of at most 400."""
    corpus = small_shards.folder.parent / "corpus.parquet"
    out = tmp_path_factory.mktemp("many") / "shards"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tfdata.shard_writer.ROW_GROUP_DOCS", 200)
        patched.setattr("tfdata.shard_writer.SHARD_DOCS", 400)
        shards = ingest([corpus], out, IngestConfig(), TokenizerConfig(vocab_size=2_000))
    assert len(shards.parts["train"]) > 3
    return shards


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize("name", ["few", "many"])
def test_workers_share_the_tokenising(
    request, monkeypatch, small_shards, many_shards, tmp_path, num_workers, name
):
    """All then hold what one would have made, and their caches keep it."""
    shards = small_shards if name == "few" else many_shards
    (expected,) = _source(shards, config=dataclasses.replace(CONFIGS["host"], id_cache=False)).read(
        1
    )
    monkeypatch.setenv("SHORTLINE_CACHE", str(tmp_path))
    encoded, lock = [], threading.Lock()

    def work(worker):
        source = _source(shards, config=CONFIGS["host"])
        encode = source._encode_texts

        def count(texts):
            with lock:
                encoded.append(len(texts))
            return encode(texts)

        source._encode_texts = count
        source.share(worker)
        (window,) = source.read(1)
        return window

    windows = Meeting(num_workers).run(work)
    assert name == "few" or sum(encoded) == len(expected)
    again = Meeting(num_workers).run(work)  # from the cache
    assert name == "few" or sum(encoded) == len(expected)
    for window in (*windows, *again):
        for field in ("ids", "offsets", "labels"):
            np.testing.assert_array_equal(getattr(window, field), getattr(expected, field))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("num_workers", "num_local"), [(2, 1), (2, 2), (3, 1)])
def test_a_worker_gathers_the_rows_of_its_replicas(small_shards, name, num_workers, num_local):
    source = _source(small_shards, config=CONFIGS[name])
    window = next(iter(source.read(0)))
    buckets = choose_buckets(small_shards.length_counts, 60, CONFIGS[name])
    plan = plan_batches(window.lengths, buckets, (0, 0, 0))
    weights = np.linspace(1, 2, 13).astype(np.float32)
    num = num_workers * num_local
    whole = [
        s for steps in gather_steps(window, plan, weights, num) for s in zip(*steps, strict=True)
    ]
    for worker in range(num_workers):
        replicas = range(worker * num_local, (worker + 1) * num_local)
        gathered = gather_steps(window, plan, weights, num, replicas)
        ours = [s for steps in gathered for s in zip(*steps, strict=True)]
        assert len(ours) == len(whole)
        for mine, all_of_it in zip(ours, whole, strict=True):
            width, size = all_of_it[-2:]
            rows = slice(replicas.start * size, replicas.stop * size)
            assert mine[-3:] == all_of_it[-3:]  # scale, width, size
            for a, b in zip(mine[:5], all_of_it[:5], strict=True):
                here = a[: num_local * size]
                if a.ndim == 2:
                    here, b = here[:, :width], b[:, :width]
                np.testing.assert_array_equal(here, b[rows])


def test_a_process_alone_hears_itself():
    workers = Workers(tf.distribute.get_strategy())
    assert (workers.num, workers.index, workers.is_chief) == (1, 0, True)
    assert workers.gather_values({"a": [1, "ü"]}) == [{"a": [1, "ü"]}]
    workers.wait()
