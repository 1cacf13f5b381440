"""Merging by difflib's ratio, and what is said of the clusters."""

from __future__ import annotations

import difflib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Indel

from labels.cluster import NOISE, read_assigned
from labels.config import MergeConfig
from labels.folder import CLUSTERS, MERGES, POINTS
from labels.merge import find_merges, find_representatives, merge
from labels.neighbours import normalize
from labels.profile import describe_clusters, find_means, find_typical, name_clusters, near_means
from labels.run import tell_noise


def _ratio(a, b):
    return difflib.SequenceMatcher(None, a, b).ratio()


@given(st.text("abc de", max_size=30), st.text("abc de", max_size=30))
def test_the_candidates_bound_is_above_difflib(a, b):
    assert Indel.normalized_similarity(a, b) >= _ratio(a, b) - 1e-12


@given(
    st.lists(st.tuples(st.text("abc ", max_size=10), st.booleans()), min_size=1, max_size=20),
    st.sampled_from([0.5, 0.7, 0.85, 1.0]),
)
@settings(max_examples=150)
def test_merged_are_those_that_difflib_connects(drawn, least):
    texts = [text for text, _ in drawn]
    owners = np.cumsum([is_new for _, is_new in drawn])
    groups = owners.tolist()
    for i in range(len(texts)):
        for j in range(i):
            if _ratio(texts[j], texts[i]) >= least:
                low, high = sorted((groups[i], groups[j]))
                groups = [low if g == high else g for g in groups]
    merges = find_merges(texts, owners, least)
    found = owners.tolist()
    for pair in merges:
        assert pair.ratio == _ratio(texts[pair.first], texts[pair.second]) >= least
        low, high = sorted((found[pair.first], found[pair.second]))
        assert low != high  # each joins two
        found = [low if g == high else g for g in found]
    assert len(set(found)) == len(set(groups))
    assert len(set(zip(found, groups, strict=True))) == len(set(groups))


@given(st.lists(st.text("ab ", max_size=8), min_size=2, max_size=30), st.integers(1, 9))
@settings(max_examples=100)
def test_a_part_of_the_pairs_at_a_time_merges_the_same(texts, held):
    owners = np.arange(len(texts)) // 2
    whole = find_merges(texts, owners, 0.7)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("labels.merge._MOST_HELD", held)
        patched.setattr("labels.merge._LOOKED_AT", 2)
        patched.setattr("labels.merge._BLOCK_PAIRS", 2 * len(texts))  # two rows at a time
        assert find_merges(texts, owners, 0.7) == whole


def _points(masked, weights):
    keys = np.arange(len(masked)) + 7
    return pa.table([masked, keys, weights, np.arange(len(masked))], schema=POINTS)


@pytest.fixture
def small():
    masked = [
        "card was lost",
        "card was lost!",
        "pin is wrong",
        "card was losd",
        "hello",
        "pim is wrong",
    ]
    codes = normalize(np.array([[9, 0], [8, 1], [0, 9], [7, 2], [-5, 1], [1, 9]], np.float32))
    return _points(masked, np.array([5, 3, 4, 1, 2, 1], np.int32)), codes


def test_noise_joins_what_it_is_like(small, tmp_path):
    points, codes = small
    clusters = np.array([0, 2, 1, NOISE, NOISE, NOISE], np.int32)
    told = merge(points, codes, clusters, 3, tmp_path, MergeConfig())
    merged = read_assigned(tmp_path / "points.parquet").tolist()
    assert merged == [0, 0, 1, 0, NOISE, 1]
    assert (told["clusters_before"], told["clusters"], told["noise_documents"]) == (3, 2, 2)
    assert (told["clusters_merged_into_others"], told["clusters_made_of_noise"]) == (1, 0)
    evidence = pq.read_table(tmp_path / "merges.parquet")
    assert evidence.schema == MERGES
    assert told["merges"] == len(evidence) == 3
    for row in evidence.to_pylist():
        assert row["ratio"] == pytest.approx(_ratio(row["text_a"], row["text_b"]))
        assert row["ratio"] >= 0.88


def test_a_cluster_is_compared_by_its_most_frequent_texts(tmp_path):
    """One text for 786 documents missed 143 of the same template (loghub's OpenStack)."""
    masked = ["GET <path> in <num>", "POST <path> of <num> <uuid>", "POST <path> of <num> <id>"]
    masked += ["rarest", "rarest of all"]
    points = _points(masked, np.array([5, 4, 3, 2, 3], np.int32))
    codes = normalize(np.array([[9, 0], [7, 2], [0, 9], [8, 0], [-9, 0]], np.float32))
    clusters = np.array([0, 0, 1, 0, 2], np.int32)
    merge(points, codes, clusters, 3, tmp_path, MergeConfig(representatives=1))
    assert read_assigned(tmp_path / "points.parquet").tolist() == [0, 0, 1, 0, 2]
    told = merge(points, codes, clusters, 3, tmp_path, MergeConfig(merge_ratio=0.6))
    assert read_assigned(tmp_path / "points.parquet").tolist() == [0] * 5
    assert told["merges"] == 2
    evidence = pq.read_table(tmp_path / "merges.parquet").to_pylist()
    assert [(row["cluster_a"], row["cluster_b"], row["merged"]) for row in evidence] == [
        (0, 1, 0), (0, 2, 0),
    ]  # fmt: skip
    assert [(row["text_a"], row["text_b"]) for row in evidence] == [
        (masked[1], masked[2]), (masked[3], masked[4]),
    ]  # fmt: skip
    two = MergeConfig(merge_ratio=0.6, representatives=2)
    merge(points, codes, clusters, 3, tmp_path, two)
    assert read_assigned(tmp_path / "points.parquet").tolist() == [0, 0, 0, 0, 1]


def test_of_texts_as_frequent_the_nearest_to_the_mean_stand_for_a_cluster():
    codes = normalize(np.array([[9, 1], [9, 0], [8, 3], [9, 0.5], [0, 1]], np.float32))
    clusters = np.array([0, 0, 0, 0, NOISE], np.int32)
    alike, rare_first = np.ones(5, np.int32), np.array([1, 1, 5, 1, 9], np.int32)
    nearest, means = (
        find_representatives(codes, alike, clusters, 3),
        find_means(codes, alike, clusters),
    )
    assert nearest.tolist() == find_typical(codes, alike, clusters, means).tolist()
    assert sorted(find_representatives(codes, 2 * alike, clusters, 2).tolist()) == [0, 3]
    assert find_representatives(codes, rare_first, clusters, 1).tolist() == [2]
    assert len(find_representatives(codes, 2 * alike, clusters, 9)) == 4


def test_what_few_documents_say_stands_for_no_cluster():
    """By texts of one document each, thousands of generated documents joined another class."""
    codes = normalize(np.array([[9, 0], [9, 1], [8, 3], [9, 2]], np.float32))
    clusters = np.zeros(4, np.int32)
    for weights, expected in (
        ([1, 1, 1, 1], [3]), ([2, 1, 1, 2], [0, 3]),
        ([300, 3, 2, 1], [0]), ([300, 4, 2, 1], [0, 1]),
    ):  # fmt: skip
        found = find_representatives(codes, np.array(weights, np.int32), clusters, 4)
        assert sorted(found.tolist()) == expected
    crowd = normalize(np.concatenate([np.tile([[9, 1]], (300, 1)), [[0, 9]]]).astype(np.float32))
    weights = np.array([1] * 300 + [2], np.int32)
    assert find_representatives(crowd, weights, np.zeros(301, np.int32), 3)[0] < 300


def test_nothing_is_merged_above_one(small, tmp_path):
    points, codes = small
    clusters = np.array([0, 2, 1, NOISE, NOISE, NOISE], np.int32)
    told = merge(points, codes, clusters, 3, tmp_path, MergeConfig(merge_ratio=1.1))
    assert told["merges"] == 0
    assert read_assigned(tmp_path / "points.parquet").tolist() == [0, 2, 1, NOISE, NOISE, NOISE]


def test_noise_alone_makes_a_cluster_of_documents_enough(tmp_path):
    points = _points(["removing a", "removing b", "zzz"], np.array([1, 1, 1], np.int32))
    codes, noise = np.eye(3, dtype=np.float32), np.full(3, NOISE, np.int32)
    told = merge(points, codes, noise, 2, tmp_path, MergeConfig())
    assert (told["merges"], told["clusters_made_of_noise"], told["clusters"]) == (1, 1, 1)
    assert read_assigned(tmp_path / "points.parquet").tolist() == [0, 0, NOISE]
    told = merge(points, codes, noise, 3, tmp_path, MergeConfig())
    assert read_assigned(tmp_path / "points.parquet").tolist() == [NOISE] * 3
    assert told["merges"] == len(pq.read_table(tmp_path / "merges.parquet")) == 0  # it stayed noise


@pytest.mark.parametrize(("noise", "is_told"), [(501, True), (500, False)])
def test_where_most_is_noise_it_is_said(noise, is_told, capsys):
    tell_noise(noise, 1_000)
    assert ("501 of 1,000 documents are noise" in capsys.readouterr().out) == is_told


def test_clusters_are_described(small, tmp_path):
    points, codes = small
    clusters = np.array([0, 0, 1, 0, NOISE, 1], np.int32)
    texts = pa.chunked_array([points["masked"].to_pylist()])
    describe_clusters(points, texts, codes, clusters, tmp_path / "clusters.parquet")
    table = pq.read_table(tmp_path / "clusters.parquet")
    assert table.schema == CLUSTERS
    card, pin = table.to_pylist()
    assert (card["size"], card["num_points"], pin["size"]) == (9, 3, 5)
    assert card["representative"] in ("card was lost", "card was lost!")
    assert set(card["words"][:2]) == {"card", "was"}
    assert len(card["examples"]) == 3
    assert card["neighbours"] == [1]
    assert card["similarities"][0] == pytest.approx(0.2, abs=0.2)
    assert 0.9 < card["cohesion"] <= 1


def test_no_two_labels_are_alike():
    words = [["a", "b"], ["a", "b"], ["a", "b", "2"], ["=cmd()", "x" * 99], ["a", "b"]]
    labels = name_clusters(words)
    assert labels[:3] == ["a b", "a b 2", "a b 2 2"]
    assert labels[3] == "cluster 3"
    assert len(set(labels)) == len(labels)


def test_neighbours_of_few():
    assert near_means(np.eye(1, dtype=np.float32)) == ([[]], [[]])
    assert near_means(np.eye(2, dtype=np.float32))[0] == [[1], [0]]


def test_neighbours_are_the_nearest_in_their_order():
    means = normalize(np.random.default_rng(2).normal(size=(1_030, 5)).astype(np.float32))
    found, cosines = near_means(means)
    products = means @ means.T
    np.fill_diagonal(products, -2)
    assert np.array_equal(found, np.argsort(-products, axis=1)[:, :6])
    assert np.allclose(cosines, -np.sort(-products, axis=1)[:, :6])
