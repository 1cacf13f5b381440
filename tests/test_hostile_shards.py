"""Shard sets that were made to harm: no way out of the folder, nothing believed unchecked."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortline import UserError
from tfdata.checkup.brief import check_briefly
from tfdata.shards import Shard, compute_fingerprint, file_sha256, open_shards, read_batches


@pytest.fixture
def folder(small_shards, tmp_path):
    shutil.copytree(small_shards.folder, tmp_path / "set")
    return tmp_path / "set"


def forge(folder, change):
    """Rewrites the manifest, with a fingerprint that fits, as whoever made it could."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    shard_set = open_shards(folder)
    change(manifest)
    parts = {
        part: tuple(Shard(**fields) for fields in manifest["parts"][part]["shards"])
        for part in shard_set.parts
    }
    num_labels = len(manifest["labels"])
    forged = dataclasses.replace(
        shard_set, parts=parts, labels=tuple(manifest["labels"]),
        label_counts=np.array(manifest["parts"]["train"]["label_counts"][:num_labels]),
        length_counts=np.array(manifest["length_counts"]),
    )  # fmt: skip
    manifest["fingerprint"] = compute_fingerprint(forged, manifest["vocabulary"]["sha256"])
    path.write_text(json.dumps(manifest))


def first_shard(manifest):
    return manifest["parts"]["train"]["shards"][0]


@pytest.mark.parametrize("make", [
    lambda outside: f"../{outside.name}", lambda outside: str(outside),
    lambda outside: f"sub/../../{outside.name}", lambda _: "..", lambda _: ".", lambda _: "",
])  # fmt: skip
def test_no_path_leads_out_of_the_folder(folder, make):
    outside = folder.parent / "outside.parquet"
    shutil.move(folder / "train-00000.parquet", outside)
    name = make(outside)
    with pytest.raises(UserError, match=r"manifest\.json: damaged .* is not a plain name"):
        forge_without_opening(folder, lambda manifest: first_shard(manifest).update(file=name))


def forge_without_opening(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))
    open_shards(folder)


def test_no_link_leads_out_of_the_folder(folder):
    """Not even to a file of the very content."""
    shard = folder / "train-00000.parquet"
    shutil.move(shard, folder.parent / "outside.parquet")
    for target in ("../outside.parquet", folder.parent / "outside.parquet"):
        shard.symlink_to(target)
        with pytest.raises(UserError, match=r"train-00000\.parquet: .* leads out of it"):
            open_shards(folder)
        shard.unlink()
    shutil.move(folder.parent / "outside.parquet", folder / "inside.parquet")
    shard.symlink_to("inside.parquet")
    assert open_shards(folder).num_docs("train")


def test_a_pipe_is_no_shard(folder):
    (folder / "train-00000.parquet").unlink()
    os.mkfifo(folder / "train-00000.parquet")
    with pytest.raises(UserError, match=r"train-00000\.parquet: is no file of this folder"):
        open_shards(folder)


def replace_shard(folder, table):
    """Puts another table in the place of the first shard, its manifest made to fit."""
    path = folder / "train-00000.parquet"
    open_shards(folder)
    num_docs = first_shard(json.loads((folder / "manifest.json").read_bytes()))["num_docs"]

    def change(manifest):
        pq.write_table(table, path)
        sizes = {"num_bytes": path.stat().st_size, "sha256": file_sha256(path)}
        first_shard(manifest).update(sizes, num_docs=num_docs)

    forge(folder, change)


def test_shards_that_lie(folder):
    table = pq.read_table(folder / "train-00000.parquet")
    num_docs, labels = len(table), table["label"].to_pylist()
    texts = pa.array([b"\xff"] * num_docs).view(pa.string())
    for name, column in (
        ("label", pa.array([10**6, *labels[1:]], pa.int32())),
        ("label", pa.array([-1, *labels[1:]], pa.int32())),
        ("label", pa.array([None, *labels[1:]], pa.int32())),
        ("label", table["label"].cast(pa.int64())),
        ("text", pa.array([None] * num_docs, pa.string())),
        ("text", texts),
    ):
        at = table.column_names.index(name)
        replace_shard(folder, table.set_column(at, name, column))
        with pytest.raises(UserError, match=r"train-00000\.parquet: cannot be read"):
            list(read_batches(open_shards(folder), "train"))
    replace_shard(folder, table.slice(1))
    with pytest.raises(UserError, match="does not hold the documents of its manifest"):
        list(read_batches(open_shards(folder), "train"))
    replace_shard(folder, table)
    assert list(read_batches(open_shards(folder), "train"))


@pytest.mark.parametrize("change", [
    lambda manifest: manifest.update(labels=[]),
    lambda manifest: manifest.update(length_counts=[]),
    lambda manifest: manifest["parts"]["train"].update(shards=[]),
    lambda manifest: manifest["parts"]["train"]["label_counts"].__setitem__(0, 10**9),
])  # fmt: skip
def test_a_manifest_whose_counts_do_not_add_up(folder, change):
    forge(folder, change)
    with pytest.raises(UserError, match=r"manifest\.json: damaged .*(add up|two classes)"):
        open_shards(folder)


@pytest.mark.parametrize("counts", [
    {"order": {"distance": 0.1}}, {"order": [1]}, {"order": {"x": 1}}, {"duplicates": "many"},
    {"duplicates": -1}, {"one_group_classes": [5]}, {"columns": {}}, [],
])  # fmt: skip
def test_counts_that_are_none(folder, counts):
    """What ingest counted is told again before a training."""

    def change(manifest):
        manifest["counts"] = {**manifest["counts"], **counts} if counts else counts

    with pytest.raises(UserError, match=r"manifest\.json: damaged"):
        forge_without_opening(folder, change)


def test_counts_of_older_and_of_other_sets_are_taken(folder):
    """Those of before there was an order of labels; copies of a set without validation."""

    def change(manifest):
        del manifest["counts"]["order"]
        manifest["counts"]["texts_on_both_sides"] = 3

    forge_without_opening(folder, change)
    shard_set = open_shards(folder)
    parts = {**shard_set.parts, "valid": (), "test": ()}
    check_briefly(dataclasses.replace(shard_set, parts=parts), max_len=20)
