"""Step 3: codes to clusters. Every point ends in a cluster or is noise.

DBSCAN as scikit-learn has it (Ester et al. 1996), but joined cell by cell: its own keeps the
neighbours of all points, which for 50,000 near-identical texts are 2.5 billion.
Legend: P points, C numbers of a code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labels.config import ClusterConfig
from labels.folder import ASSIGNED
from labels.neighbours import connect, find_nearest, nearest, normalize, reach_distances
from shortline import UserError

NOISE = -1
_LEAST_KNEE = 0.3
"""How far a curve must hang below its chord for its knee to mean something, of the chord's box."""
_LEAST_EPS, _MOST_EPS = 0.01, 0.5
"""Between them is what is chosen unasked; the larger is a cosine of .875."""
_MOST_HDBSCAN = 50_000
_SHOWN = 1_000
"""Points of the curve that are kept for the report."""


def choose_eps(curve: np.ndarray) -> tuple[float, str]:
    """The distance to cluster at, of the sorted curve float32[n] of reach distances, and why.

    The knee is where the curve is farthest below its chord (Satopaa et al. 2011, Kneedle); texts
    that have near neighbours are before it, those that have none after it.

    >>> choose_eps(np.array([0.125] * 8 + [0.1875, 1.0]))
    (0.1875, 'knee')
    """
    place, why = len(curve) // 4, "lower quartile"
    low, high = float(curve[0]), float(curve[-1])
    if high > low:
        hang = np.linspace(0, 1, len(curve)) - (curve - low) / (high - low)
        if hang.max() >= _LEAST_KNEE:
            place, why = int(hang.argmax()), "knee"
    return float(np.clip(curve[place], _LEAST_EPS, _MOST_EPS)), why


def dbscan(codes: np.ndarray, weights: np.ndarray, eps: float, min_weight: int) -> np.ndarray:
    """int32[P]: a cluster from 0 on, the one with the most documents first; NOISE.

    A point is core where `min_weight` documents are within eps; core points within eps of one
    another are one cluster; others join the nearest core point within eps.

    Args:
      codes: float32[P, C] of length 1.
    """
    found = find_nearest(codes, min_weight)
    reached = reach_distances(codes, weights, found, min_weight, with_self=True)
    return dbscan_of_reach(codes, weights, eps, reached)


def dbscan_of_reach(
    codes: np.ndarray, weights: np.ndarray, eps: float, reached: np.ndarray
) -> np.ndarray:
    """`dbscan` from the distances float32[P] within which points have enough documents."""
    core = np.flatnonzero(reached <= eps)
    rest = np.flatnonzero(reached > eps)
    clusters = np.full(len(codes), NOISE, np.int32)
    clusters[core] = connect(codes[core], eps)
    found, distances = nearest(codes[rest], codes[core])
    near = distances <= eps
    clusters[rest[near]] = clusters[core[found[near]]]
    return by_size(clusters, weights)


def by_size(clusters: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same clusters, numbered from 0 by falling number of documents."""
    inside = clusters >= 0
    if not inside.any():
        return clusters
    numbers, places = np.unique(clusters[inside], return_inverse=True)
    sizes = np.bincount(places, weights[inside], len(numbers))
    rank = np.empty(len(numbers), np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(numbers))
    renamed = clusters.copy()
    renamed[inside] = rank[places]
    return renamed


def hdbscan(codes: np.ndarray, weights: np.ndarray, min_docs: int) -> np.ndarray:
    """scikit-learn's HDBSCAN; it knows no weights, so a point of several documents is repeated.

    Raises:
      UserError: there are more points than its memory is for.
    """
    from sklearn.cluster import HDBSCAN

    times = np.minimum(weights, min_docs)
    rows = np.repeat(np.arange(len(codes)), times)
    if len(rows) > _MOST_HDBSCAN:
        raise UserError(
            f"--algorithm hdbscan: {len(rows):,} points are more than {_MOST_HDBSCAN:,}, which is "
            "what it has memory for; take dbscan"
        )
    if len(rows) < min_docs:  # which it refuses
        return np.full(len(codes), NOISE, np.int32)
    # its stub takes `copy` for a string
    model = HDBSCAN(min_cluster_size=min_docs, copy=True)  # pyright: ignore[reportArgumentType]
    found = model.fit(codes[rows]).labels_
    clusters = np.full(len(codes), NOISE, np.int32)
    clusters[rows] = found
    return by_size(clusters, weights)


def cluster(
    codes: np.ndarray, weights: np.ndarray, out: Path, config: ClusterConfig
) -> dict[str, Any]:
    """Writes points.parquet for codes float32[P, C]; gives eps, the curve, counts.

    Raises:
      UserError: as `hdbscan` does.
    """
    codes = normalize(codes)
    told: dict[str, Any] = {"points": len(codes)}
    if config.algorithm == "hdbscan":
        clusters = hdbscan(codes, weights, config.min_docs)
    else:
        found = find_nearest(codes, config.min_docs)
        apart, reached = (
            reach_distances(codes, weights, found, config.min_docs, with_self)
            for with_self in (False, True)
        )
        curve = np.sort(apart)
        eps, why = (config.eps, "given") if config.eps else choose_eps(curve)
        clusters = dbscan_of_reach(codes, weights, eps, reached)
        shown = curve[np.linspace(0, len(curve) - 1, min(_SHOWN, len(curve))).astype(int)]
        told |= {"eps": eps, "eps_is": why, "curve": [round(float(d), 5) for d in shown]}
    pq.write_table(as_table(clusters), out / "points.parquet", compression="zstd")
    is_noise = clusters == NOISE
    return told | {
        "clusters": int(clusters.max(initial=-1)) + 1,
        "noise_documents": int(weights[is_noise].sum()),
    }


def as_table(clusters: np.ndarray) -> pa.Table:
    """int32[P] with NOISE, as ASSIGNED has it."""
    return pa.table([pa.array(clusters, pa.int32(), mask=clusters == NOISE)], schema=ASSIGNED)


def read_assigned(path: Path) -> np.ndarray:
    """int32[P] with NOISE, of a file of ASSIGNED."""
    column = pq.read_table(path)["cluster"]
    return column.fill_null(NOISE).to_numpy().astype(np.int32)
