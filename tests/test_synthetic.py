"""The generated corpus has the shape it claims."""

import json
import time
from collections import Counter

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shortline import UserError
from tfdata.synthetic import class_sizes, main, write_corpus


def read(path):
    table = pq.read_table(path)
    return table["text"].to_pylist(), table["label"].to_pylist()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "a.parquet"
    write_corpus(path, 30_000)
    return path


def test_sizes_follow_the_curve():
    sizes = class_sizes(710_900, 60)
    assert sizes.sum() == 710_900
    assert sizes[0] == 48_548
    assert sizes[-1] == 3
    for num_docs, num_classes in ((120, 60), (121, 60), (5_000, 60), (10**7, 300), (4, 2)):
        sizes = class_sizes(num_docs, num_classes)
        assert sizes.sum() == num_docs
        assert sizes.min() >= 2
        assert (np.diff(sizes) <= 0).all()
    with pytest.raises(ValueError, match="too few"):
        class_sizes(119, 60)


def test_texts_are_short_varied_and_skewed(corpus):
    texts, labels = read(corpus)
    assert sorted(Counter(labels).values()) == sorted(class_sizes(30_000, 60).tolist())
    lengths = np.array([len(text.split()) for text in texts])
    assert 36 < lengths.mean() < 44
    assert lengths.min() >= 20
    assert lengths.max() <= 66
    words = Counter(word for text in texts for word in text.split())
    assert len(words) > 20_000
    assert words.most_common(1)[0][1] > 1000 * sorted(words.values())[len(words) // 2]
    assert len(set(texts)) > 0.99 * len(texts)
    assert all(text == " ".join(text.split()) for text in texts[:1000])


@pytest.mark.parametrize("words", [10, 120, 400])
def test_texts_of_another_length(words, tmp_path):
    write_corpus(tmp_path / "a.parquet", 1_000, num_classes=30, mean_length=words)
    texts, _ = read(tmp_path / "a.parquet")
    lengths = np.array([len(text.split()) for text in texts])
    assert 0.9 * words < lengths.mean() < 1.1 * words
    assert lengths.max() <= 1.65 * words
    slots = [len(set(column)) for column in zip(*map(str.split, texts), strict=False)]
    assert max(slots) > 50  # the texts of a template are not all the same
    with pytest.raises(ValueError, match="10 or more"):
        write_corpus(tmp_path / "b.parquet", 1_000, mean_length=9)


def test_thousands_of_classes(tmp_path):
    write_corpus(tmp_path / "a.parquet", 3_500, num_classes=1_500)
    _, labels = read(tmp_path / "a.parquet")
    assert sorted(Counter(labels).values()) == sorted(class_sizes(3_500, 1_500).tolist())


def test_command(tmp_path, capsys):
    path = tmp_path / "a.parquet"
    main([str(path), "--docs", "1000", "--classes", "7", "--words", "20", "--seed", "3"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["num_docs"], result["num_classes"]) == (1000, 7)
    write_corpus(tmp_path / "b.parquet", 1000, 7, seed=3, mean_length=20)
    assert path.read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "1"], "--classes 1"),
        (["--docs", "119"], "--docs 119: must be 120"),
        (["--words", "9"], "--words 9"),
    ],
)
def test_wrong_flags_are_refused(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        main([str(tmp_path / "a.parquet"), *words])


def test_order(corpus, tmp_path):
    _, labels = read(corpus)
    changes = sum(a != b for a, b in zip(labels[1:], labels, strict=False))
    assert changes > 0.9 * len(labels)
    write_corpus(tmp_path / "b.parquet", 30_000, order="class")
    _, labels = read(tmp_path / "b.parquet")
    assert sum(a != b for a, b in zip(labels[1:], labels, strict=False)) == 59


def test_same_arguments_same_bytes(corpus, tmp_path):
    write_corpus(tmp_path / "again.parquet", 30_000)
    assert (tmp_path / "again.parquet").read_bytes() == corpus.read_bytes()
    write_corpus(tmp_path / "other.parquet", 30_000, seed=1)
    assert read(tmp_path / "other.parquet") != read(corpus)


def test_classes_can_be_told_apart_but_not_all_documents(corpus):
    """Words weighed one by one (naive Bayes) reach most, not all: twins and noise remain."""
    texts, labels = read(corpus)
    names = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    half = len(texts) // 2
    scores = {}
    for text, label in zip(texts[:half], labels[:half], strict=True):
        for word in set(text.split()):
            scores.setdefault(word, np.zeros(len(names)))[names[label]] += 1
    size = np.bincount([names[label] for label in labels[:half]], minlength=len(names))
    right = 0
    for text, label in zip(texts[half:], labels[half:], strict=True):
        known = [scores[word] for word in set(text.split()) if word in scores]
        total = sum(np.log((counts + 0.01) / (size + 1)) for counts in known)
        right += int(np.argmax(total + np.log(size + 0.01))) == names[label]
    assert 0.93 < right / half < 0.995


def test_speed(tmp_path):
    started = time.process_time()
    write_corpus(tmp_path / "a.parquet", 710_900)
    assert time.process_time() - started < 12
    table = pq.read_table(tmp_path / "a.parquet")
    assert pc.count_distinct(table["label"]).as_py() == 60
