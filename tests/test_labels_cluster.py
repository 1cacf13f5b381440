"""Clusters of codes: scikit-learn's DBSCAN, in little memory; every point in one, or noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN

from labels.cells import least_product
from labels.cluster import NOISE, by_size, choose_eps, cluster, dbscan, hdbscan, read_assigned
from labels.config import ClusterConfig
from labels.neighbours import connect, find_nearest, nearest, normalize, reach_distances


def _codes(seed, num=400, groups=9, spread=0.15):
    random = np.random.default_rng(seed)
    centres = random.normal(size=(groups, 8))
    codes = centres[random.integers(0, groups, num)] + spread * random.normal(size=(num, 8))
    codes[: num // 20] = random.normal(size=(num // 20, 8))  # belong to none
    codes[-5:] = codes[-6]  # copies
    return normalize(codes.astype(np.float32)), random.integers(1, 4, num).astype(np.int32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("eps", [0.02, 0.05, 0.15, 0.3])
def test_it_is_scikit_learns_dbscan(seed, eps):
    codes, weights = _codes(seed)
    ours = dbscan(codes, weights, eps, 4)
    theirs = DBSCAN(eps=eps, min_samples=4).fit(codes, sample_weight=weights)
    core = theirs.core_sample_indices_
    pairs = set(zip(ours[core].tolist(), theirs.labels_[core].tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert np.array_equal(ours == NOISE, theirs.labels_ == NOISE)
    border = np.setdiff1d(np.flatnonzero(ours >= 0), core)
    for point in border:  # in a cluster of which a core point is near
        mine = core[ours[core] == ours[point]]
        assert np.linalg.norm(codes[mine] - codes[point], axis=1).min() <= eps + 1e-4


@pytest.mark.parametrize("eps", [1e-4, 5e-4])
def test_copies_of_a_code_are_one_cluster_however_small_eps_is(eps):
    random = np.random.default_rng(0)
    codes = normalize(random.normal(size=(60, 64)).astype(np.float32))[np.repeat(np.arange(60), 5)]
    found = dbscan(codes, np.ones(300, np.int32), eps, 3)
    assert (found >= 0).all()
    assert [len(set(found[i : i + 5].tolist())) for i in range(0, 300, 5)] == [1] * 60
    assert len(set(found.tolist())) == 60


def test_codes_of_zeros_say_nothing():
    codes = np.zeros((9, 4), np.float32)
    codes[:3, 0] = 1
    weights = np.array([1] * 8 + [4], np.int32)
    found = dbscan(codes, weights, 0.3, 3)
    assert found.tolist() == [1] * 3 + [NOISE] * 5 + [0]


def test_reach_is_the_distance_at_which_there_are_documents_enough():
    codes, weights = _codes(1, num=80)
    full = np.linalg.norm(codes[:, None] - codes[None], axis=2)
    np.fill_diagonal(full, 9)
    for with_self in (True, False):
        found = find_nearest(codes, 4)
        reached = reach_distances(codes, weights, found, 4, with_self)
        for point in range(80):
            order = np.argsort(full[point])
            have = np.cumsum(weights[order]) + (weights[point] if with_self else 1)
            wanted = full[point][order][np.argmax(have >= 4)]
            if with_self and weights[point] >= 4:
                wanted = 0
            assert reached[point] == pytest.approx(wanted, abs=2e-3)


def test_a_dense_group_of_many_takes_no_memory_for_its_neighbours():
    import tracemalloc

    codes = normalize(np.ones((20_000, 8), np.float32) + np.eye(20_000, 8, dtype=np.float32))
    tracemalloc.start()
    groups = connect(codes, 0.9)
    assert tracemalloc.get_traced_memory()[1] < 600e6  # 400 million neighbours
    tracemalloc.stop()
    assert groups.max() == 0


def test_what_is_larger_comes_first_and_noise_stays():
    clusters = np.array([4, 7, 7, NOISE, 2], np.int32)
    assert by_size(clusters, np.array([1, 1, 1, 9, 5])).tolist() == [2, 1, 1, NOISE, 0]


def test_eps_is_the_knee_or_the_lower_quartile():
    knee = np.concatenate([np.linspace(0.1, 0.15, 900), np.linspace(0.2, 1.4, 100)])
    assert choose_eps(knee) == (pytest.approx(0.15, abs=0.02), "knee")
    even = np.linspace(0.2, 1.2, 1000)
    assert choose_eps(even) == (pytest.approx(0.45, abs=0.01), "lower quartile")
    assert choose_eps(np.full(5, 0.3))[1] == "lower quartile"


def test_nearest_of_none():
    found, distances = nearest(np.eye(2, dtype=np.float32), np.empty((0, 2), np.float32))
    assert found.tolist() == [0, 0]
    assert (distances == 2).all()


@pytest.mark.parametrize("algorithm", ["dbscan", "hdbscan"])
def test_every_point_is_written(tmp_path, algorithm):
    codes, weights = _codes(3)
    told = cluster(codes * 7, weights, tmp_path, ClusterConfig(algorithm=algorithm))
    clusters = read_assigned(tmp_path / "points.parquet")
    assert len(clusters) == len(codes)
    assert told["clusters"] == clusters.max() + 1 >= 5
    assert told["noise_documents"] == weights[clusters == NOISE].sum()
    assert set(clusters.tolist()) <= {NOISE, *range(told["clusters"])}


@pytest.mark.parametrize("num", [1, 2, 3])
def test_few_points(tmp_path, num):
    codes = np.eye(num, 4, dtype=np.float32)
    told = cluster(codes, np.full(num, 3, np.int32), tmp_path, ClusterConfig())
    assert told["clusters"] == num
    assert cluster(codes, np.ones(num, np.int32), tmp_path, ClusterConfig())["clusters"] == 0


def test_hdbscan_counts_documents_not_points():
    codes = normalize(np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1], [-1, -1]], np.float32))
    found = hdbscan(codes, np.array([5, 5, 5, 5, 1]), 8)
    assert found[0] == found[1] != found[2] == found[3]
    assert found[4] == NOISE


def test_hdbscan_of_too_few_is_noise():
    codes = normalize(np.eye(2, dtype=np.float32))
    assert hdbscan(codes, np.ones(2, np.int32), 3).tolist() == [NOISE, NOISE]


@pytest.mark.parametrize("most", [16, 1_024])
@pytest.mark.parametrize("seed", range(3))
def test_what_cells_leave_out_changes_nothing(seed, most, monkeypatch):
    monkeypatch.setattr("labels.cells._MOST_POINTS", most)
    codes, _ = _codes(seed, num=1_500, groups=40, spread=0.03)
    codes[100:160] = codes[99]  # more copies than are sought
    codes[200] = 0
    full = np.linalg.norm(codes[:, None].astype(float) - codes, axis=2)
    np.fill_diagonal(full, np.inf)
    full[200] = full[:, 200] = np.sqrt(2)
    found = find_nearest(codes, 4)
    truth = np.sort(full, axis=1)[:, :4]
    others = np.arange(len(codes)) != 200
    assert np.abs(found.distances - truth)[others].max() < 1e-5
    products = codes.astype(float) @ codes.T
    for eps in (0.02, 0.08, 0.5):
        _, groups = connected_components(csr_matrix(products >= least_product(eps)))
        assert np.array_equal(connect(codes, eps), groups)  # numbered by their first
