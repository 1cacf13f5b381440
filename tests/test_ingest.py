"""Ingest end to end: nothing lost, nothing leaked, whole or not at all."""

import csv
import errno
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shortline import UserError
from tfdata import pool, shuffle, split_log
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.ingest import cache_folder, ingest, ingest_cached, main
from tfdata.shard_writer import ShardWriter
from tfdata.shards import open_shards, read_batches
from tfdata.summary import summarize
from tfdata.synthetic import write_corpus

PARTS = ("train", "valid", "test")


def make(inputs, out, vocab_size=1000, **config):
    inputs = inputs if isinstance(inputs, list) else [inputs]
    return ingest(inputs, out, IngestConfig(**config), TokenizerConfig(vocab_size=vocab_size))


def docs(shard_set, part):
    names = shard_set.labels + shard_set.unseen_labels
    return [
        (text, names[label])
        for texts, labels in read_batches(shard_set, part)
        for text, label in zip(texts.to_pylist(), labels.tolist(), strict=True)
    ]


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


@pytest.fixture(scope="module")
def rows():
    """1,500 documents: awkward characters, duplicates, shared texts, rare classes."""
    random = np.random.default_rng(0)
    rows = [(f"word{random.integers(90)} tail\0 \n{i}", f"c{i % 7}") for i in range(1_350)]
    rows += [("the same, \r again", f"c{i % 3}") for i in range(90)]
    rows += [(f"rare {i}", "rare") for i in range(3)] + [("lonely", "lonely")]
    rows += [(f"twice {i // 2}", "c6") for i in range(56)]
    return [rows[i] for i in random.permutation(len(rows))]


@pytest.fixture
def small_buckets(monkeypatch):
    """So that a small corpus is scattered over several buckets and logs."""
    monkeypatch.setattr(shuffle, "_BUCKET_BYTES", 5_000)
    monkeypatch.setattr(shuffle, "_FLUSH_BYTES", 3_000)
    monkeypatch.setattr(split_log, "_PENDING_ROWS", 100)


@pytest.fixture
def made(tmp_path, rows, small_buckets):
    source = write_csv(tmp_path / "a.csv", rows)
    return make(source, tmp_path / "out", valid="0.1", test="0.2")


def test_every_document_is_in_one_part(made, rows):
    parts = {part: docs(made, part) for part in PARTS}
    assert Counter(row for part in PARTS for row in parts[part]) == Counter(rows)
    texts = [{text for text, _ in parts[part]} for part in PARTS]
    assert sum(map(len, texts)) == len(set.union(*texts)), "a text stands in two parts"
    assert 0.08 < len(parts["valid"]) / len(rows) < 0.12
    assert 0.17 < len(parts["test"]) / len(rows) < 0.23
    assert len(parts["train"]) == made.num_docs("train")


def test_labels_stand_by_falling_training_count(made):
    counted = Counter(label for _, label in docs(made, "train"))
    expected = sorted(counted, key=lambda label: (-counted[label], label))
    assert list(made.labels) == expected
    assert made.label_counts.tolist() == [counted[label] for label in expected]
    assert made.unseen_labels == ()
    manifest = json.loads((made.folder / "manifest.json").read_text())
    for part in PARTS:
        counted = Counter(label for _, label in docs(made, part))
        in_order = [counted[label] for label in expected]
        assert manifest["parts"][part]["label_counts"] == in_order


def test_counts_say_what_was_found(made, rows):
    labels = {}
    for text, label in rows:
        labels.setdefault(text, set()).add(label)
    counts = made.counts
    assert counts["rows_read"] == counts["rows_kept"] == len(rows)
    assert counts["duplicates"] == len(rows) - len(set(rows))
    assert counts["texts_with_several_labels"] == sum(len(some) > 1 for some in labels.values())
    assert counts["columns"] == [["text", "label"]]
    assert counts["one_text_classes"] == []
    assert counts["classes_without_valid"] == 1
    assert "1 classes have no validation documents" in summarize(made)


def test_vocabulary_and_lengths_are_of_training_texts_alone(made):
    words, lengths = Counter(), Counter()
    split_at = re.compile(r"""[!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~\t\n\r\v\f ]+""")
    for text, _ in docs(made, "train"):
        found = [word for word in split_at.split(text.lower()) if word]
        words.update(found)
        lengths[len(found)] += 1
    assert set(made.words[:50]) <= set(words)
    counted = [words[word] for word in made.words]
    assert counted == sorted(words.values(), reverse=True)[:1000]
    assert {n: int(c) for n, c in enumerate(made.length_counts) if c} == dict(lengths)


def test_documents_are_shuffled_globally(tmp_path, small_buckets):
    """Sorted by class in, every tenth of the shards holds every class in its share."""
    source = write_csv(tmp_path / "a.csv", [(f"t {i}", f"c{i // 1000}") for i in range(5_000)])
    shard_set = make(source, tmp_path / "out", valid="0")
    got = docs(shard_set, "train")
    numbers = np.array([int(text[2:]) for text, _ in got])
    # correlation of 5,000 shuffled numbers with their place: standard deviation 1/sqrt(5000)
    assert abs(np.corrcoef(numbers, np.arange(5_000))[0, 1]) < 5 / 5_000**0.5
    for tenth in np.array_split(numbers // 1000, 10):
        assert abs(np.bincount(tenth, minlength=5) - 100).max() < 50


def test_same_input_same_bytes(tmp_path, made, rows):
    again = make(tmp_path / "a.csv", tmp_path / "again", valid="0.1", test="0.2")
    for file in made.folder.iterdir():
        assert (again.folder / file.name).read_bytes() == file.read_bytes()
    assert again.fingerprint == made.fingerprint
    other = make(tmp_path / "a.csv", tmp_path / "other", valid="0.1", test="0.2", split_seed=1)
    assert other.fingerprint != made.fingerprint


def test_the_split_does_not_depend_on_the_order_of_files_and_rows(tmp_path, made, rows):
    one = write_csv(tmp_path / "b.csv", rows[1000:][::-1])
    two = tmp_path / "c.jsonl"
    two.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in rows[:1000]))
    other = make([one, two], tmp_path / "other", valid="0.1", test="0.2")
    for part in PARTS:
        assert Counter(docs(other, part)) == Counter(docs(made, part))
    assert other.labels == made.labels


def test_named_files_are_the_parts(tmp_path, rows):
    train = write_csv(tmp_path / "train.csv", rows)
    valid = write_csv(tmp_path / "valid.csv", [("new one", "c1"), ("new two", "never seen")])
    test = tmp_path / "test.parquet"
    pq.write_table(pa.table({"body": [rows[0][0], "x"], "team": ["c1", "also not"]}), test)
    shard_set = make(train, tmp_path / "out", valid=str(valid), test=str(test))
    assert sorted(docs(shard_set, "valid")) == [("new one", "c1"), ("new two", "never seen")]
    assert Counter(docs(shard_set, "train")) == Counter(rows)
    assert shard_set.unseen_labels == ("also not", "never seen")
    assert len(shard_set.label_counts) == len(shard_set.labels)
    assert shard_set.counts["texts_on_both_sides"] == 1
    summary = summarize(shard_set)
    assert "texts of the training part are also in" in summary
    assert "2 labels stand in validation or test alone" in summary
    manifest = json.loads((shard_set.folder / "manifest.json").read_text())
    assert manifest["settings"]["ingest"]["valid"] == "valid.csv"
    assert str(tmp_path) not in json.dumps(manifest)


def test_a_named_file_beside_a_share(tmp_path, rows):
    source = write_csv(tmp_path / "a.csv", rows)
    test = write_csv(tmp_path / "t.csv", [("unheard of", "c1")])
    shard_set = make(source, tmp_path / "out", valid="0.2", test=str(test))
    assert docs(shard_set, "test") == [("unheard of", "c1")]
    assert Counter(docs(shard_set, "train") + docs(shard_set, "valid")) == Counter(rows)
    assert 0.17 < shard_set.num_docs("valid") / len(rows) < 0.23


BAD = {
    "one class": ([("a", "x"), ("b", "x"), ("c", "x")], {}, "with one class there is nothing"),
    "no label": ([("a", ""), ("b", " ")], {}, "no document has both"),
    "nothing to validate": ([("a", "x"), ("b", "y")], {}, "name a file with --valid"),
    "ids": ([(f"t {i}", f"id {i}") for i in range(100)], {}, "texts or ids, not labels"),
    "ragged": ([("a", "b"), ("c",)], {}, r"a\.csv: row 3"),
    "wrong column": ([("a", "b")], {"text": "tezt"}, "did you mean --text text"),
    "no such share": ([("a", "b")], {"valid": "0,1"}, "neither a share like 0.1 nor a file"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_learned_leaves_nothing_behind(tmp_path, case):
    rows, config, said = BAD[case]
    source = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(UserError, match=said):
        make(source, tmp_path / "new" / "out", **config)
    left = [path.name for path in tmp_path.rglob("*") if path.name not in ("a.csv", "new")]
    assert left == []


def test_too_many_labels_stop_early(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "_MOST_LABELS", 50)
    source = write_csv(tmp_path / "a.csv", [(f"t {i}", f"{i % 60}") for i in range(10_000)])
    with pytest.raises(UserError, match="`label` has 60 distinct values"):
        make(source, tmp_path / "out")


def test_a_full_disk_leaves_nothing_behind(tmp_path, rows, monkeypatch):
    source = write_csv(tmp_path / "a.csv", rows)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "finish", fail)
    with pytest.raises(OSError, match="No space left"):
        make(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_out_must_be_new_or_empty(tmp_path, rows):
    source = write_csv(tmp_path / "a.csv", rows)
    (tmp_path / "empty").mkdir()
    shard_set = make(source, tmp_path / "empty")
    assert open_shards(tmp_path / "empty").fingerprint == shard_set.fingerprint
    assert {path.suffix for path in shard_set.folder.iterdir()} == {".parquet", ".txt", ".json"}
    for out in (tmp_path / "empty", source):
        with pytest.raises(UserError, match=r"--out .* exists and is not empty"):
            make(source, out)
    with pytest.raises(UserError, match="is a shard set already"):
        make(tmp_path / "empty", tmp_path / "new")
    with pytest.raises(UserError, match="is given twice"):
        make([source, tmp_path / "." / "a.csv"], tmp_path / "new")


def test_cache_goes_by_content_and_settings(tmp_path, rows, capsys):
    source = write_csv(tmp_path / "a.csv", rows)
    config = TokenizerConfig(vocab_size=500)

    def cached(**settings):
        shard_set = ingest_cached([source], IngestConfig(**settings), config)
        return shard_set, "ingested before" in capsys.readouterr().out

    first, was_there = cached()
    assert not was_there
    assert first.folder.parent == cache_folder()
    again, was_there = cached()
    assert was_there
    assert again.folder == first.folder
    other, was_there = cached(split_seed=1)
    assert not was_there
    assert other.folder != first.folder
    (first.folder / "train-00000.parquet").unlink()
    mended, was_there = cached()
    assert not was_there
    assert mended.fingerprint == first.fingerprint
    write_csv(source, rows[:-1])
    changed, was_there = cached()
    assert not was_there
    assert changed.counts["rows_kept"] == len(rows) - 1


def test_what_was_read_is_told_again_from_the_cache(tmp_path, rows, capsys):
    source = write_csv(tmp_path / "a.csv", [*rows, ("no label", "")])

    def told():
        ingest_cached([source], IngestConfig(), TokenizerConfig(), tmp_path / "cache")
        return capsys.readouterr().out.split("\n", 1)

    (made, first), (found, again) = told(), told()
    assert made.startswith("ingesting into ")
    assert found.startswith("data ingested before, unchanged: ")
    assert "columns: text `text`, label `label`" in first
    assert "1 rows dropped: they have no label" in first
    assert again == first
    (manifest,) = tmp_path.glob("cache/*/manifest.json")
    written = json.loads(manifest.read_text())
    del written["counts"]["open_quotes"]  # as an older version wrote it
    manifest.write_text(json.dumps(written))
    assert told() == [found, first]


def test_the_command_ends_with_one_line_of_json(tmp_path, rows, capsys):
    source = write_csv(tmp_path / "a.csv", [*rows, ("", "c1"), ("no label", "")])
    main([str(source), "--out", str(tmp_path / "out"), "--valid", "0.2", "--vocab-size", "99"])
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    shard_set = open_shards(tmp_path / "out")
    assert result["num_docs"] == len(rows) + 1
    for part in PARTS:
        assert result[f"num_{part}"] == shard_set.num_docs(part)
    assert result["num_classes"] == len(shard_set.labels)
    assert result["out"] == str(tmp_path / "out")
    assert len(shard_set.words) <= 99
    assert "1 rows dropped: they have no label" in lines
    assert "1 documents with an empty text, kept" in lines
    for argv in ([], [str(source)], ["x", "--out", "y", "--nope"]):
        with pytest.raises(UserError):
            main(argv)


def test_wordpieces(tmp_path, rows):
    config = TokenizerConfig(tokenizer="wordpiece", vocab_size=120)
    source = write_csv(tmp_path / "a.csv", rows)
    shard_set = ingest([source], tmp_path / "out", IngestConfig(), config)
    assert shard_set.length_counts.sum() == shard_set.num_docs("train")
    assert "[UNK]" in shard_set.words
    assert shard_set.tokenizer["tokenizer"] == "wordpiece"


def test_files_of_other_libraries_make_the_same_set(tmp_path, rows):
    frame = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    polars.DataFrame(frame).write_parquet(tmp_path / "polars.parquet")
    pandas.DataFrame(frame).astype({"label": "category"}).to_parquet(tmp_path / "pandas.parquet")
    sets = [make(path, tmp_path / path.stem) for path in sorted(tmp_path.glob("*.parquet"))]
    assert len({shard_set.fingerprint for shard_set in sets}) == 1


def test_generated_corpus(tmp_path):
    write_corpus(tmp_path / "a.parquet", 3_000, num_classes=12)
    shard_set = make(tmp_path / "a.parquet", tmp_path / "out")
    assert len(shard_set.labels) == 12
    assert shard_set.counts["classes_without_valid"] == 0 or shard_set.label_counts[-1] <= 2
    assert shard_set.length_counts.sum() == shard_set.num_docs("train")


def test_nvd(tmp_path, shared_data):
    shard_set = make(shared_data / "nvd_cwe" / "all.csv.gz", tmp_path / "out")
    table = pq.read_table(shared_data / "nvd_cwe" / "all.parquet")
    expected = Counter(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    train, valid = docs(shard_set, "train"), docs(shard_set, "valid")
    assert Counter(train + valid) == expected
    assert not {text for text, _ in train} & {text for text, _ in valid}
    assert abs(len(valid) / 132_680 - 0.1) < 0.002
    labels = {}
    for text, label in expected:
        labels.setdefault(text, set()).add(label)
    several = sum(len(some) > 1 for some in labels.values())
    assert shard_set.counts["texts_with_several_labels"] == several
    assert shard_set.counts["duplicates"] == 132_680 - len(expected)


@pytest.mark.parametrize(
    ("name", "num_docs", "num_classes"),
    [
        ("banking77/train.csv", 10_003, 77),
        ("goemotions_single/test_bom_crlf_semicolon.csv", 4_590, 28),
        ("loghub_2k/all.parquet", 32_000, 1_363),
    ],
)
def test_other_real_data(tmp_path, shared_data, name, num_docs, num_classes):
    shard_set = make(shared_data / name, tmp_path / "out")
    assert len(shard_set.labels) == num_classes
    train, valid = docs(shard_set, "train"), docs(shard_set, "valid")
    assert len(train + valid) == num_docs
    assert not {text for text, _ in train} & {text for text, _ in valid}
    texts = {}
    for text, label in train + valid:
        texts.setdefault(label, []).append(text)
    lacking = set(texts) - {label for _, label in valid}
    could = {label for label, some in texts.items() if len(some) >= 3 and len(set(some)) > 1}
    assert not lacking & could


def test_clinc_with_its_own_split(tmp_path, shared_data):
    folder = shared_data / "clinc150"
    shard_set = make(
        folder / "train.parquet", tmp_path / "out",
        valid=str(folder / "valid.parquet"), test=str(folder / "test.parquet"),
    )  # fmt: skip
    for part, num_docs in (("train", 15_100), ("valid", 3_100), ("test", 5_500)):
        table = pq.read_table(folder / f"{part}.parquet")
        assert table.num_rows == num_docs
        expected = zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
        assert Counter(docs(shard_set, part)) == Counter(expected)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(tmp_path, shared_data):
    """Five times the data in a process of its own: less than 1.5 GB, TensorFlow included."""
    table = pq.read_table(shared_data / "nvd_cwe" / "all.parquet")
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for _ in range(5):
            writer.write_table(table)
    # not getrusage: its maximum starts from the process that forked
    script = (
        "import sys\nfrom tfdata.ingest import main\nmain(sys.argv[1:])\n"
        "print([line for line in open('/proc/self/status') if 'VmHWM' in line][0])"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "a.parquet"), "--out", tmp_path / "out"]
    root = Path(__file__).parents[1]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    *_, result, peak = done.stdout.split("\n")[:-2]
    assert json.loads(result)["num_docs"] == 663_400
    assert int(peak.split()[1]) < 1.5e6
