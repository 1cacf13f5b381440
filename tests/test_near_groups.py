"""--split group: near copies stand on one side, and classes keep what they can."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from shortline import UserError
from tests.test_ingest import docs, make, write_csv
from tfdata.minhash import BAND_ROWS, band_keys
from tfdata.near_groups import NearGroupFinder
from tfdata.split import hash_texts
from tfdata.summary import summarize


def family(number, copies, words=20):
    """Texts of one group: each differs from the one before in one word."""
    random = np.random.default_rng(number)
    text = [f"w{word}" for word in random.integers(0, 5_000, words)]
    texts = []
    for copy in range(copies):
        text[copy % words] = f"v{number}x{copy:04d}"
        texts.append(" ".join(text))
    return texts


def find(tmp_path, texts, chunk=1_000):
    finder = NearGroupFinder(tmp_path / "near")
    for start in range(0, len(texts), chunk):
        some = pa.array(texts[start : start + chunk], pa.string())
        finder.add(some, hash_texts(some, 0))
    return finder.find(), hash_texts(pa.array(texts, pa.string()), 0)


def test_chains_are_groups_and_others_are_none(tmp_path):
    families = [family(number, copies=2 + number % 7) for number in range(300)]
    lonely = [family(number, 1)[0] for number in range(1_000, 1_400)]
    texts = [text for some in families for text in some] + lonely + lonely[:50] + ["", " ", "!"]
    order = np.random.default_rng(0).permutation(len(texts))
    groups, hashes = find(tmp_path, [texts[i] for i in order])
    found = np.empty(len(texts), np.uint64)
    found[order] = groups.of(hashes)
    start = 0
    for some in families:
        assert len(set(found[start : start + len(some)].tolist())) == 1
        start += len(some)
    assert len(set(found.tolist())) == 300 + 400 + 3
    assert len(groups) == 300
    assert groups.largest == 8


def test_group_hashes_are_spread_like_those_of_texts(tmp_path):
    groups, _ = find(tmp_path, [text for n in range(200) for text in family(n, 30)])
    assert len(groups) == 200
    low = np.unique(groups.groups) < 2**62 * 0.5
    assert 0.5 - 5 * (0.25 / 200) ** 0.5 < low.mean() < 0.5 + 5 * (0.25 / 200) ** 0.5


def test_the_same_groups_whatever_the_order_and_the_batches(tmp_path):
    texts = [text for number in range(50) for text in family(number, 4)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, _ = find(tmp_path / "a", texts, chunk=1_000)
    other, _ = find(tmp_path / "b", texts[::-1], chunk=7)
    assert one.hashes.tolist() == other.hashes.tolist()
    assert one.groups.tolist() == other.groups.tolist()


def test_texts_that_share_most_words_share_a_band():
    random = np.random.default_rng(0)
    words = random.integers(0, 2**62, 60).astype(np.uint64)
    other = words.copy()
    other[5] = 7
    lengths = np.array([60, 60, 0])
    keys = list(band_keys(np.concatenate([words, other]), lengths))
    assert len(keys) == len(BAND_ROWS)
    assert sum(key[0] == key[1] for key in keys) >= len(BAND_ROWS) // 2
    assert all(key[2] == 0 for key in keys)


@pytest.fixture
def rows():
    """Three classes of families, one of a single family, one of three texts, one of one."""
    rows = [(text, f"c{n % 3}") for n in range(120) for text in family(n, 1 + n % 6)]
    rows += [(text, "alike") for text in family(500, 40)]
    rows += [(family(n, 1)[0], "few") for n in (600, 601, 602)] + [("lonely words", "one")]
    return [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]


def test_no_family_stands_on_two_sides(tmp_path, rows):
    path = write_csv(tmp_path / "a.csv", rows)
    shard_set = make(path, tmp_path / "out", split="group", valid="0.2", test="0.1")
    sides = {text: part for part in ("train", "valid", "test") for text, _ in docs(shard_set, part)}
    for number in range(120):
        assert len({sides[text] for text in family(number, 1 + number % 6)}) == 1
    assert {sides[text] for text in family(500, 40)} == {"train"}
    assert [sides[family(n, 1)[0]] for n in (600, 601, 602)].count("train") >= 1
    assert any(label == "few" for _, label in docs(shard_set, "valid"))
    assert sides["lonely words"] == "train"
    counts = shard_set.counts
    assert counts["one_group_classes"] == ["alike"]
    assert counts["near_groups"] == 101
    assert counts["largest_near_group"] == 40
    assert "1 classes are one group of near copies each, which trains: alike" in summarize(
        shard_set
    )
    assert abs(shard_set.num_docs("valid") / (len(rows) - 40) - 0.2) < 0.05


def test_random_lets_families_fall_apart(tmp_path, rows):
    """What the other split is for: so that the test above cannot pass by chance."""
    shard_set = make(write_csv(tmp_path / "a.csv", rows), tmp_path / "out", valid="0.2")
    sides = {text: part for part in ("train", "valid") for text, _ in docs(shard_set, part)}
    apart = [len({sides[t] for t in family(n, 1 + n % 6)}) > 1 for n in range(120)]
    assert sum(apart) > 30
    assert "near_groups" not in shard_set.counts


def test_a_missing_package_and_ray_are_refused_by_name(tmp_path, rows, monkeypatch):
    from tfdata.config import IngestConfig, TokenizerConfig
    from tfdata.ingest import EngineConfig, ingest

    path, config = write_csv(tmp_path / "a.csv", rows), IngestConfig(split="group")
    with pytest.raises(UserError, match=r"--split group: .* use --engine local"):
        ingest(
            [path], tmp_path / "out", config, TokenizerConfig(), False, EngineConfig(engine="ray")
        )
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    with pytest.raises(UserError, match=r"--split group: rapidfuzz is not .* '\.\[doctor\]'"):
        make(path, tmp_path / "out", split="group")
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
