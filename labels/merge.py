"""Step 4: clusters of texts that are alike are one.

Two clusters are merged where difflib's ratio of two of their representatives, the texts that many
of their documents have, reaches the threshold, and what is merged with the same is merged. Noise
takes part: a text that is like a cluster's joins it.
difflib compares (cydifflib, where it is installed), as in the scripts this comes from; rapidfuzz
finds what is worth comparing: its similarity by the longest common subsequence is never below
difflib's ratio, so none is missed.
Legend: P points, E entities: clusters, then points that are noise; T texts that stand for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labels.bags import bag_distances, count_characters
from labels.cluster import NOISE, as_table, by_size
from labels.config import MergeConfig
from labels.folder import MERGES
from labels.neighbours import normalize
from labels.profile import find_means, typicality
from labels.roots import Roots

try:
    from cydifflib import SequenceMatcher  # the same in C, three times as fast
except ImportError:
    from difflib import SequenceMatcher

_BLOCK_PAIRS = 2**21
_THREADS = 2
_MOST_HELD = 2**22
"""Pairs: 100 MB."""
_LEAST_SHARE = 0.01
"""Of a cluster's documents, for a text to stand for it."""
_LOOKED_AT = 2**16
"""Pairs at once, of which those that are joined by then are left out together."""


class Merge(NamedTuple):
    """Two texts, of T, whose groups were merged for them."""

    first: int
    second: int
    ratio: float
    """difflib's."""
    similarity: float
    """By longest common subsequence: never below the ratio."""


def find_merges(texts: Sequence[str], owners: np.ndarray, least: float) -> list[Merge]:
    """Merges of texts, the most alike first, each of two groups that no merge before had joined.

    Args:
      owners: int64[T], from 0: texts of the same owner are joined from the start.
    """
    held: list[np.ndarray] = []
    merges: list[Merge] = []
    for pairs in find_candidates(texts, least):
        held.append(pairs)
        if sum(map(len, held)) > _MOST_HELD:
            held, merges = [], choose_merges(texts, owners, least, held, merges)
    return choose_merges(texts, owners, least, held, merges)


def choose_merges(
    texts: Sequence[str], owners: np.ndarray, least: float, candidates: Sequence[np.ndarray],
    earlier: Sequence[Merge],
) -> list[Merge]:  # fmt: skip
    """Those of the candidates and of earlier merges that join groups, the most alike first.

    It is a spanning forest (Kruskal 1956): a pair that a part of all pairs leaves out, all would.
    """
    roots = Roots(int(owners.max(initial=-1)) + 1)
    ratios = {(merge.first, merge.second): merge.ratio for merge in earlier}
    known = [[merge.first, merge.second, merge.similarity] for merge in earlier]
    pairs = np.concatenate([np.array(known).reshape(-1, 3), *candidates])
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -pairs[:, 2]))
    merges = []
    for start in range(0, len(order), _LOOKED_AT):
        some = pairs[order[start : start + _LOOKED_AT]]
        ends = some[:, :2].astype(np.int64)
        groups = roots.of(owners[ends])
        apart = np.flatnonzero(groups[:, 0] != groups[:, 1])
        for (first, second), (ours, theirs), similarity in zip(
            ends[apart].tolist(), groups[apart].tolist(), some[apart, 2].tolist(), strict=True
        ):
            if roots.one(ours) == roots.one(theirs):
                continue
            ratio = ratios.get((first, second))
            if ratio is None:
                ratio = SequenceMatcher(None, texts[first], texts[second]).ratio()
            if ratio >= least:
                roots.join(ours, theirs)
                merges.append(Merge(first, second, ratio, similarity))
    return merges


def find_candidates(texts: Sequence[str], least: float) -> Iterator[np.ndarray]:
    """All pairs whose similarity by longest common subsequence is `least` or more.

    Gives float64[n, 3]: first < second, and the similarity: 2 LCS / (length + length).
    """
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    lengths = np.array([len(text) for text in texts])
    counts = count_characters(texts)
    size = max(1, _BLOCK_PAIRS // max(1, len(texts)))
    for start in range(0, len(texts), size):
        rows = np.arange(start, min(start + size, len(texts)))
        bags = bag_distances(counts[rows], counts[start:])
        most = (1 - least) * (lengths[rows, np.newaxis] + lengths[np.newaxis, start:]) + 1e-6
        first, second = np.nonzero(np.triu(bags <= most, 1))
        if not len(first):
            continue
        first, second = first + start, second + start
        similar = process.cpdist(
            [texts[i] for i in first.tolist()], [texts[j] for j in second.tolist()],
            scorer=Indel.normalized_similarity, score_cutoff=least - 1e-6, dtype=np.float64,
            workers=_THREADS,
        )  # fmt: skip
        near = similar >= least - 1e-9
        yield np.stack([first[near], second[near], similar[near]], axis=1)


def merge(
    points: pa.Table, codes: np.ndarray, clusters: np.ndarray, min_docs: int, out: Path,
    config: MergeConfig,
) -> dict[str, Any]:  # fmt: skip
    """Writes points.parquet and merges.parquet.

    Args:
      points: as POINTS.
      codes: float32[P, C].
      clusters: int32[P] with NOISE.
      min_docs: documents below which texts that were noise make no cluster of their own.
    """
    weights = points["weight"].to_numpy()
    codes = normalize(codes)
    num_clusters = int(clusters.max(initial=-1)) + 1
    noise = np.flatnonzero(clusters == NOISE)
    chosen = find_representatives(codes, weights, clusters, config.representatives)
    rows = np.concatenate([chosen, noise])
    num_entities = num_clusters + len(noise)
    owners = np.concatenate([clusters[chosen], np.arange(num_clusters, num_entities)])
    owners = owners.astype(np.int64)
    texts = points["masked"].take(pa.array(rows)).to_pylist()
    merges = find_merges(texts, owners, config.merge_ratio) if config.merge_ratio <= 1 else []
    roots = Roots(num_entities)
    for pair in merges:
        roots.join(int(owners[pair.first]), int(owners[pair.second]))
    group_of = roots.of(np.arange(num_entities))
    of_point = clusters.copy()
    of_point[clusters >= 0] = group_of[clusters[clusters >= 0]]
    of_point[noise] = group_of[num_clusters:]
    sizes = np.bincount(of_point, weights, num_entities)
    too_small = (sizes < min_docs) & (np.arange(num_entities) >= num_clusters)
    of_point[too_small[of_point]] = NOISE
    merged = by_size(of_point, weights)
    pq.write_table(as_table(merged), out / "points.parquet", compression="zstd")
    merges = [pair for pair in merges if merged[rows[pair.first]] != NOISE]
    _write_evidence(merges, rows, texts, clusters, merged, out / "merges.parquet")
    num_merged = int(merged.max(initial=-1)) + 1
    num_left = len(np.unique(group_of[:num_clusters]))
    return {
        "merges": len(merges), "clusters_before": num_clusters,
        "clusters_merged_into_others": num_clusters - num_left,
        "clusters_made_of_noise": num_merged - num_left, "clusters": num_merged,
        "documents_out_of_noise": int(weights[noise][merged[noise] >= 0].sum()),
        "noise_documents": int(weights[merged == NOISE].sum()),
    }  # fmt: skip


def find_representatives(
    codes: np.ndarray, weights: np.ndarray, clusters: np.ndarray, most: int
) -> np.ndarray:
    """int64[n]: points that stand for their clusters, up to `most` of each, cluster by cluster.

    The most frequent texts, each of several documents and of one in a hundred of its cluster: what
    one document alone says is no reason to merge thousands. Where a cluster has none, the text
    nearest to its mean.
    """
    similar = np.round(typicality(codes, clusters, find_means(codes, weights, clusters)), 5)
    sizes = np.bincount(clusters[clusters >= 0], weights[clusters >= 0])
    inside = np.flatnonzero(clusters >= 0)
    is_telling = weights > 1
    is_telling[inside] &= weights[inside] >= _LEAST_SHARE * sizes[clusters[inside]]
    order = np.lexsort((-similar, -weights * is_telling, clusters))
    order = order[clusters[order] >= 0]
    counts = np.bincount(clusters[order])
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[(place == 0) | (is_telling[order] & (place < most))]


def _write_evidence(
    merges: Sequence[Merge], rows: np.ndarray, texts: Sequence[str], clusters: np.ndarray,
    merged: np.ndarray, path: Path,
) -> None:  # fmt: skip
    first = np.array([m.first for m in merges], np.int64)
    second = np.array([m.second for m in merges], np.int64)
    after = merged[rows[first]]
    columns = [
        _nullable(clusters[rows[first]]),
        _nullable(clusters[rows[second]]),
        _nullable(after),
        pa.array([m.ratio for m in merges], pa.float32()),
        pa.array([texts[m.first] for m in merges], pa.string()),
        pa.array([texts[m.second] for m in merges], pa.string()),
    ]
    pq.write_table(pa.table(columns, schema=MERGES), path, compression="zstd")


def _nullable(clusters: np.ndarray) -> pa.Array:
    return pa.array(clusters, pa.int32(), mask=clusters == NOISE)
