"""Ids on disk change nothing but the time: the same windows, and no trust in what is damaged."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import functools
import json
import os
import shutil
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from tfdata import encode_ahead, id_writer, lock, shard_writer, window
from tfdata.config import IngestConfig, PipelineConfig, TokenizerConfig
from tfdata.encode import Encoder
from tfdata.id_writer import IdWriter
from tfdata.ingest import ingest
from tfdata.pipeline import BatchFeed
from tfdata.plan import choose_buckets
from tfdata.shards import read_batches
from tfdata.synthetic import write_corpus
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource

RESIDENCIES = ["host", "stream"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """2,000 generated documents in four shards of train and one of valid."""
    folder = tmp_path_factory.mktemp("many")
    write_corpus(folder / "corpus.parquet", 2_000, num_classes=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writer, "ROW_GROUP_DOCS", 64)
        patch.setattr(shard_writer, "SHARD_DOCS", 512)
        made = ingest(
            [folder / "corpus.parquet"], folder / "shards", IngestConfig(), TokenizerConfig()
        )
    assert len(made.parts["train"]) == 4
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("SHORTLINE_CACHE", str(folder))
    monkeypatch.setattr(window, "_LEAST_FIRST_DOCS", 100)  # so that `host` has several windows
    return folder


def build_source(shards, residency="host", *, id_cache=True, part="train", seed=0):
    config = PipelineConfig(residency=residency, window_docs=300, id_cache=id_cache)
    return WindowSource(
        shards, part, build_encoder(shards), vocab_size=len(shards.words) + 2, config=config,
        shuffle_seed=seed,
    )  # fmt: skip


@functools.cache
def build_encoder(shards):
    return Encoder(TokenizerConfig(), Vocabulary.build(shards.words, TokenizerConfig()), 40)


def read_all(source, epochs=range(3), first_window=0):
    return [w for epoch in epochs for w in source.read(epoch, first_window)]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.first_doc == b.first_doc
        for name in ("ids", "offsets", "labels"):
            one, other = getattr(a, name), getattr(b, name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def only_folder(cache: Path) -> Path:
    """The one cache there is, and nothing else is left beside it."""
    (folder,) = cache.iterdir()
    assert folder.name.startswith("ids-")
    return folder


@pytest.mark.parametrize("writer", RESIDENCIES)
@pytest.mark.parametrize("reader", RESIDENCIES)
@pytest.mark.parametrize(("part", "seed"), [("train", 0), ("train", 1), ("valid", None)])
def test_windows_are_the_same_wherever_the_ids_come_from(shards, cache, writer, reader, part, seed):
    def expected(residency):
        return read_all(build_source(shards, residency, id_cache=False, part=part, seed=seed))

    plain = expected(writer)
    assert not cache.exists()
    assert_same(read_all(build_source(shards, writer, part=part, seed=seed)), plain)
    only_folder(cache)
    again = build_source(shards, reader, part=part, seed=seed)
    again._encode_texts = lambda texts: pytest.fail("tokenised again")
    assert_same(read_all(again), expected(reader))


def test_the_part_is_in_its_order_whatever_order_wrote_it(shards):
    read_all(build_source(shards, "stream", seed=3), epochs=[0])
    (whole,) = build_source(shards, seed=None).read(0)
    labels = np.concatenate([labels for _, labels in read_batches(shards, "train")])
    np.testing.assert_array_equal(whole.labels, labels)


def test_the_first_epoch_of_host_is_cut_and_all_others_are_whole(shards, cache, monkeypatch):
    source = build_source(shards)
    num_docs = shards.num_docs("train")
    for epoch in range(3):
        assert [len(w) for w in source.read(epoch)] == source.docs_of_windows(epoch)
    assert set(source.docs_of_windows(0)[:-1]) == {300}  # --window-docs
    assert source.docs_of_windows(1) == [num_docs]
    assert build_source(shards, seed=None).docs_of_windows(0) == [num_docs]
    source._window_docs = 10_000
    assert source.docs_of_windows(0)[0] == -(-num_docs // 4)
    monkeypatch.setattr(window, "_LEAST_FIRST_DOCS", 1_000)
    assert source.docs_of_windows(0) == [1_000, num_docs - 1_000]


def test_the_first_window_comes_before_the_part_is_encoded(shards, cache, monkeypatch):
    monkeypatch.setattr(encode_ahead, "_AHEAD", 0)  # it is a small part
    monkeypatch.setattr(window, "_ENCODE_DOCS", 128)
    source = build_source(shards)
    done = []
    encode = source._encode_texts
    source._encode_texts = lambda texts: done.append(len(texts)) or encode(texts)
    windows = source.read(0)
    next(windows)
    assert sum(done) < shards.num_docs("train")
    windows.close()


@pytest.mark.parametrize("residency", RESIDENCIES)
@pytest.mark.parametrize("cached", ["none", "there", "made on the way"])
@pytest.mark.parametrize("start", [(0, 2, 3), (0, 0, 1), (1, 0, 2)])
def test_a_feed_started_midway_goes_on_as_the_straight_one(shards, residency, cached, start):
    if cached == "there":
        read_all(build_source(shards, "host"), epochs=[0])
    buckets = choose_buckets(shards.length_counts, 40, PipelineConfig(batch_size=32))

    def take(start, id_cache):
        source = build_source(shards, residency, id_cache=id_cache)
        weights = np.ones(len(shards.labels), np.float32)
        feed = BatchFeed(source, buckets, seed=0, class_weights=weights, start=start)
        batches = {}
        while not batches or max(batches)[0] < 2:
            info = feed.next_window()
            for batch in range(info.num_batches):
                place = (info.epoch, info.window, info.first_batch + batch)
                batches[place] = [np.asarray(t) for t in next(feed.iterator)]
        feed.close()
        return batches

    resumed, straight = take(start, cached != "none"), take((0, 0, 0), False)
    assert sorted(resumed) == [place for place in sorted(straight) if place >= start]
    for place, batch in resumed.items():
        for a, b in zip(batch, straight[place], strict=True):
            np.testing.assert_array_equal(a, b)


def change_entry(folder, change):
    """Another cache.json, whose checksum is right."""
    made = json.loads((folder / "cache.json").read_text())["made"]
    change(made)
    crc32 = zlib.crc32(json.dumps(made, sort_keys=True).encode())
    (folder / "cache.json").write_text(json.dumps({"made": made, "crc32": crc32}))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a missing file": lambda f: (f / "labels").unlink(),
    "a file cut short": lambda f: os.truncate(f / "ids", (f / "ids").stat().st_size - 2),
    "a file too long": lambda f: (f / "lengths").write_bytes((f / "lengths").read_bytes() + b"0"),
    "an empty file": lambda f: (f / "ids").write_bytes(b""),
    "a flipped bit of the ids": lambda f: flip(f / "ids"),
    "a flipped bit of the lengths": lambda f: flip(f / "lengths"),
    "a flipped bit of the labels": lambda f: flip(f / "labels"),
    "a flipped bit of the entry": lambda f: flip(f / "cache.json"),
    "no entry": lambda f: (f / "cache.json").unlink(),
    "an entry that is none": lambda f: (f / "cache.json").write_bytes(b"[1]"),
    "deep nesting": lambda f: (f / "cache.json").write_bytes(b"[" * 100_000),
    "another format": lambda f: change_entry(f, lambda made: made.update(format=99)),
    "another key": lambda f: change_entry(f, lambda made: made.update(key="0" * 64)),
    "other shards": lambda f: change_entry(f, lambda made: made["shards"].pop()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_damaged_cache_is_noted_and_made_anew(shards, cache, capsys, damage, residency):
    plain = read_all(build_source(shards, residency, id_cache=False))
    read_all(build_source(shards, residency), epochs=[0])
    folder = only_folder(cache)
    intact = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert capsys.readouterr().out == ""
    DAMAGES[damage](folder)
    assert_same(read_all(build_source(shards, residency)), plain)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "encoding the texts again" in said
    assert {path.name: path.read_bytes() for path in only_folder(cache).iterdir()} == intact


def test_a_cache_is_raw_arrays_and_one_json(shards, cache):
    (whole,) = build_source(shards, seed=None).read(0)
    folder = only_folder(cache)
    assert {path.name for path in folder.iterdir()} == {"ids", "lengths", "labels", "cache.json"}
    assert (folder / "ids").read_bytes() == whole.ids.tobytes()
    assert (folder / "lengths").read_bytes() == whole.lengths.tobytes()
    assert (folder / "labels").read_bytes() == whole.labels.tobytes()


def test_a_cached_part_is_memory_mapped(shards):
    read_all(build_source(shards), epochs=[0])
    source = build_source(shards)
    (whole,) = source.read(1)
    (again,) = source.read(2)
    assert isinstance(whole.ids, np.memmap)
    assert not whole.ids.flags.writeable
    assert whole is again


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_without_a_place_to_write_it_goes_on(shards, tmp_path, monkeypatch, capsys, residency):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHORTLINE_CACHE", str(tmp_path / "file" / "cache"))
    plain = read_all(build_source(shards, residency, id_cache=False))
    assert_same(read_all(build_source(shards, residency)), plain)
    assert capsys.readouterr().out.count("going on without") == 1


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_a_disk_that_fills_up_is_left_as_it_was(shards, cache, monkeypatch, capsys, residency):
    plain = read_all(build_source(shards, residency, id_cache=False))
    add, calls = IdWriter.add, []

    def add_until_full(self, piece):
        calls.append(len(piece[1]))
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, piece)

    monkeypatch.setattr(IdWriter, "add", add_until_full)
    assert_same(read_all(build_source(shards, residency)), plain)
    said = capsys.readouterr().out
    assert said.count("No space left on device; going on without") == 1
    assert said.count("\n") == 1
    assert list(cache.iterdir()) == []


def test_a_nearly_full_disk_is_not_filled_up(shards, cache, monkeypatch, capsys):
    usage = shutil.disk_usage("/")._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    read_all(build_source(shards))
    assert "half of the free space" in capsys.readouterr().out
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_two_writers_do_not_hurt_each_other(shards, cache, capsys, residency):
    plain = read_all(build_source(shards, residency, id_cache=False), epochs=[0])
    readers = [build_source(shards, residency).read(0) for _ in range(2)]
    firsts = [next(reader) for reader in readers]
    assert len(list(cache.glob(".ids-*.tmp"))) == 2
    for reader, first in zip(readers, firsts, strict=True):
        assert_same([first, *reader], plain)
    assert_same(read_all(build_source(shards, residency), epochs=[0]), plain)
    only_folder(cache)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_nothing_is_left_of_an_epoch_that_was_broken_off(shards, cache, residency):
    windows = build_source(shards, residency).read(0)
    next(windows)
    id_writer.sweep_killed(cache)  # another process sees that this one lives
    assert len(list(cache.iterdir())) == 1
    windows.close()
    assert list(cache.iterdir()) == []


def test_what_a_killed_process_left_is_swept_away(shards, cache):
    left, empty, fresh, written, other = (
        cache / name
        for name in (".ids-a.1.tmp", ".ids-b.2.tmp", ".ids-c.3.tmp", ".ids-d.4.tmp", ".other.tmp")
    )
    for folder in (left, empty, fresh, written, other):
        folder.mkdir(parents=True)
    for folder in (left, written, other):
        (folder / "ids").write_bytes(b"x")
    long_ago = time.time() - lock._STALE_SECONDS - 60
    os.utime(empty, (long_ago, long_ago))
    with open(written / "ids", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # its process still writes
        read_all(build_source(shards), epochs=[0])
    assert not left.exists()
    assert not empty.exists()
    for folder in (fresh, written, other):
        assert folder.exists()


def test_the_place_depends_on_all_that_makes_the_ids_and_on_nothing_else(shards):
    def place(config=None, max_len=40, words=None, **options):
        config = config or TokenizerConfig()
        vocabulary = Vocabulary.build(shards.words if words is None else words, config)
        encoder = Encoder(config, vocabulary, max_len)
        options = {"residency": "host", "part": "train", "seed": 0, "made_of": shards} | options
        pipeline = PipelineConfig(residency=options["residency"], batch_size=32)
        source = WindowSource(
            options["made_of"], options["part"], encoder,
            vocab_size=options.get("vocab_size", len(vocabulary)), config=pipeline,
            shuffle_seed=options["seed"],
        )  # fmt: skip
        assert source._cache is not None
        return source._cache.folder

    first = place()
    assert place() == place(residency="stream") == place(seed=None) == first
    swapped = [shards.words[1], shards.words[0], *shards.words[2:]]
    others = [
        place(max_len=41), place(TokenizerConfig(truncate="left")), place(vocab_size=2**16 + 1),
        place(TokenizerConfig(unknown="drop")), place(TokenizerConfig(filters="x")),
        place(words=swapped), place(part="valid"),
        place(made_of=dataclasses.replace(shards, fingerprint="other")),
    ]  # fmt: skip
    assert len({first, *others}) == 1 + len(others)


def test_pieces_have_their_own_place(shards):
    pieces = ["[PAD]", "[UNK]", "word", "##s", "a"]
    config = TokenizerConfig(tokenizer="wordpiece")
    folders = set()
    for words in (pieces, pieces, [*pieces, "b"]):
        vocabulary = Vocabulary.build(words, config)
        source = WindowSource(
            shards, "train", Encoder(config, vocabulary, 40), vocab_size=len(vocabulary),
            config=PipelineConfig(), shuffle_seed=0,
        )  # fmt: skip
        assert source._cache is not None
        folders.add(source._cache.folder)
    assert len(folders) == 2


def test_a_closed_feed_stops_writing(shards, cache):
    buckets = choose_buckets(shards.length_counts, 40, PipelineConfig(batch_size=32))
    weights = np.ones(len(shards.labels), np.float32)
    source = build_source(shards)
    feed = BatchFeed(source, buckets, seed=0, class_weights=weights)
    feed.next_window()
    feed.close()
    assert not feed._thread.is_alive()
    assert list(cache.glob(".ids-*.tmp")) == []


def test_an_empty_part_needs_no_cache(shards, cache):
    source = build_source(shards, part="test")
    assert source.docs_of_windows(0) == []
    assert read_all(source) == []
    assert not cache.exists()


def test_a_part_of_one_window_is_the_same_object_in_every_epoch(shards, monkeypatch):
    monkeypatch.setattr(window, "_LEAST_FIRST_DOCS", 1_000)
    for seed in (0, None):  # so that a device is sent it once
        source = build_source(shards, part="valid", seed=seed)
        first, *others = read_all(source)
        assert len(others) == 2
        assert all(other is first for other in others)
