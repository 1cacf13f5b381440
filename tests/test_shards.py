"""Shard sets: written, read from any place, and refused when they are not what was written."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortline import UserError
from tfdata import shard_writer, shards
from tfdata.shard_writer import ShardWriter, write_manifest
from tfdata.shards import ShardSet, is_shard_set, open_shards, read_batches

NUM_DOCS = 230
WORDS = ["plain", "new\nline", "back\\slash", "\u2028", "\x85", "\x1c", "", "nul\0", "é"]


@pytest.fixture
def shard_set(tmp_path, monkeypatch):
    """230 documents in row groups of 16 and shards of 64."""
    monkeypatch.setattr(shard_writer, "ROW_GROUP_DOCS", 16)
    monkeypatch.setattr(shard_writer, "SHARD_DOCS", 64)
    folder = tmp_path / "set"
    folder.mkdir()
    with ShardWriter(folder, "train") as writer, ShardWriter(folder, "valid") as valid:
        for start in range(0, NUM_DOCS, 23):
            texts = pa.array([f"text\0 {i}\n" for i in range(start, start + 23)])
            writer.write(texts, np.arange(start, start + 23) % 7)
        valid.write(pa.array(["v"]), np.array([8]))
        parts = {"train": writer.finish(), "valid": valid.finish(), "test": ()}
    counts = np.bincount(np.arange(NUM_DOCS) % 7)
    made = ShardSet(
        folder=folder,
        labels=tuple("abcdef\u2028"),
        unseen_labels=("x", "y"),
        label_counts=counts,
        words=WORDS,
        tokenizer={"tokenizer": "word"},
        length_counts=np.array([0, NUM_DOCS]),
        parts=parts,
        counts={"rows_read": NUM_DOCS},
        fingerprint="",
    )
    train = np.append(counts, [0, 0])
    write_manifest(
        made,
        {"train": train, "valid": np.eye(9, dtype=int)[8], "test": np.zeros(9, int)},
        {"tokenizer": {"tokenizer": "word"}},
    )
    return open_shards(folder)


def all_docs(shard_set, **options):
    batches = list(read_batches(shard_set, "train", **options))
    texts = [text for batch, _ in batches for text in batch.to_pylist()]
    labels = [label for _, batch in batches for label in batch.tolist()]
    assert all(batch.dtype == np.int32 for _, batch in batches)
    return list(zip(texts, labels, strict=True))


DOCS = [(f"text\0 {i}\n", i % 7) for i in range(NUM_DOCS)]


def test_what_was_written_comes_back(shard_set):
    assert all_docs(shard_set) == DOCS
    assert [shard.num_docs for shard in shard_set.parts["train"]] == [64, 64, 64, 38]
    assert shard_set.words == WORDS
    assert shard_set.labels[-1] == "\u2028"
    assert [shard_set.num_docs(part) for part in ("train", "valid", "test")] == [230, 1, 0]
    assert shard_set.label_counts.sum() == NUM_DOCS
    assert list(read_batches(shard_set, "test")) == []
    file = pq.ParquetFile(shard_set.folder / "train-00000.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(4)] == [16] * 4


@pytest.mark.parametrize("batch_docs", [1, 16, 30, 1000])
def test_skipping_equals_reading_and_leaving_out(shard_set, batch_docs):
    order = [2, 0, 3, 1]
    starts = [0, 64, 128, 192, 230]
    expected = [doc for index in order for doc in DOCS[starts[index] : starts[index + 1]]]
    for skip in (0, 1, 15, 16, 17, 63, 64, 65, 101, 102, 166, 229, 230, 999):
        got = all_docs(shard_set, shard_order=order, skip_docs=skip, batch_docs=batch_docs)
        assert got == expected[skip:], skip
    assert max(len(labels) for _, labels in read_batches(shard_set, "train", batch_docs=5)) == 5


def test_long_texts_end_a_shard_early(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "ROW_GROUP_DOCS", 4)
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 1000)
    with ShardWriter(tmp_path, "train") as writer:
        writer.write(pa.array(["x" * 200] * 10), np.zeros(10))
        assert [shard.num_docs for shard in writer.finish()] == [8, 2]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes, not"),
    ],
)
def test_a_missing_or_cut_shard_is_named_on_opening(shard_set, damage, said):
    damage(shard_set.folder / "train-00002.parquet")
    with pytest.raises(UserError, match=rf"train-00002\.parquet: .*{said}.* ingest the data again"):
        open_shards(shard_set.folder)
    with pytest.raises(UserError, match=r"train-00002\.parquet"):
        all_docs(shard_set)


def test_an_altered_shard_is_named_on_reading(shard_set):
    path = shard_set.folder / "train-00001.parquet"
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-00001\.parquet: its content has changed"):
        all_docs(open_shards(shard_set.folder))


def test_a_shard_is_checked_once_a_process(shard_set, monkeypatch):
    all_docs(shard_set)
    monkeypatch.setattr(shards, "file_sha256", lambda path: pytest.fail("read twice"))
    all_docs(shard_set)


def change(manifest, path, value):
    *parents, last = path
    for key in parents:
        manifest = manifest[key]
    manifest[last] = value


FILE = ["parts", "train", "shards", 0, "file"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["schema"], 99, "schema 99"),
        (["schema"], None, "schema None"),
        (FILE, "../train-00000.parquet", "plain name"),
        (FILE, "/etc/passwd", "plain name"),
        (FILE, "..", "plain name"),
        (FILE, "a\\b", "plain name"),
        (FILE, 3, "damaged"),
        (["parts", "train", "shards", 0, "num_docs"], -1, "damaged"),
        (["parts", "train", "shards", 0, "num_docs"], 2.5, "damaged"),
        (["parts", "train", "shards", 0, "num_docs"], 63, "fingerprint"),
        (["parts", "train", "shards", 0, "more"], 1, "damaged"),
        (["parts", "train", "label_counts"], [1], "damaged"),
        (["parts"], [], "damaged"),
        (["labels"], "abcdefg", "labels must be strings"),
        (["labels", 0], "other", "fingerprint"),
        (["length_counts", 1], "230", "damaged"),
        (["settings"], {}, "damaged"),
        (["counts"], 7, "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(shard_set, path, value, said):
    file = shard_set.folder / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest, path, value)
    file.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=rf"manifest\.json: .*{said}.*ingest the data again"):
        open_shards(shard_set.folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(shard_set, content):
    (shard_set.folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        open_shards(shard_set.folder)


def test_a_changed_vocabulary_or_another_folder_is_refused(shard_set, tmp_path):
    (shard_set.folder / "vocab.txt").write_text("other\n")
    with pytest.raises(UserError, match=r"vocab\.txt: differs"):
        open_shards(shard_set.folder)
    assert is_shard_set(shard_set.folder)
    assert not is_shard_set(tmp_path)
    with pytest.raises(UserError, match="no shard set"):
        open_shards(tmp_path)


def test_a_set_can_be_moved(shard_set, tmp_path):
    shutil.move(shard_set.folder, tmp_path / "elsewhere")
    moved = open_shards(tmp_path / "elsewhere")
    assert moved.fingerprint == shard_set.fingerprint
    assert all_docs(moved) == DOCS
