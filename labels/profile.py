"""What there is to say of each cluster: its mean, most typical text, words, examples, neighbours.

Legend: P points, C clusters, H numbers of a code.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from labels.folder import CLUSTERS, key_name
from labels.neighbours import normalize

_WORDS, _EXAMPLES, _NEIGHBOURS = 8, 12, 6
_LABEL_WORDS = 3
_LONGEST_WORD = 40


def find_means(codes: np.ndarray, weights: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """float32[C, H] of length 1: the mean direction of each cluster's documents."""
    num = int(clusters.max(initial=-1)) + 1
    inside = np.flatnonzero(clusters >= 0)
    sums = np.zeros((num, codes.shape[1]), np.float64)
    order = inside[np.argsort(clusters[inside], kind="stable")]
    if len(order):
        starts = np.searchsorted(clusters[order], np.arange(num))
        weighted = codes[order] * weights[order, np.newaxis]
        sums = np.add.reduceat(weighted, starts, axis=0, dtype=np.float64)
    return normalize(sums.astype(np.float32))


def typicality(codes: np.ndarray, clusters: np.ndarray, means: np.ndarray) -> np.ndarray:
    """float32[P]: cosine of each point's code to its cluster's mean; 0 for noise."""
    similar = np.zeros(len(codes), np.float32)
    inside = np.flatnonzero(clusters >= 0)
    for start in range(0, len(inside), 2**18):
        rows = inside[start : start + 2**18]
        similar[rows] = np.einsum("ph,ph->p", codes[rows], means[clusters[rows]])
    return similar


def find_typical(
    codes: np.ndarray, weights: np.ndarray, clusters: np.ndarray, means: np.ndarray
) -> np.ndarray:
    """int64[C]: the point nearest to each cluster's mean; of several, the one of most documents."""
    similar = np.round(typicality(codes, clusters, means), 5)
    order = np.lexsort((-weights, -similar, clusters))
    order = order[clusters[order] >= 0]
    return order[np.unique(clusters[order], return_index=True)[1]]


def telling_words(masked: pa.ChunkedArray, weights: np.ndarray, clusters: np.ndarray):
    """For each cluster its words, those first that set it apart: list of lists of str.

    A word's score is the share p of the cluster's documents that have it, times the logarithm of
    p over the share in all documents.
    """
    from tfdata.words import cut_words

    words = cut_words(pc.replace_substring_regex(masked, "<[a-z]+>", " "))
    num_words = max(1, len(words.names))
    pairs = np.unique(words.documents().astype(np.int64) * num_words + words.ids)
    point, word = pairs // num_words, pairs % num_words
    share = np.bincount(word, weights[point], num_words) / weights.sum()
    inside = clusters[point] >= 0
    point, word = point[inside], word[inside]
    keys, places = np.unique(
        clusters[point].astype(np.int64) * num_words + word, return_inverse=True
    )
    counts = np.bincount(places, weights[point], len(keys))
    cluster, word = keys // num_words, keys % num_words
    num = int(clusters.max(initial=-1)) + 1
    sizes = np.bincount(clusters[clusters >= 0], weights[clusters >= 0], num)
    has = counts / sizes[cluster]
    score = has * np.log(has / share[word])
    order = np.lexsort((word, -score, cluster))
    starts = np.searchsorted(cluster[order], np.arange(num + 1))
    return [
        words.names.take(pa.array(word[order[a : min(b, a + _WORDS)]])).to_pylist()
        for a, b in itertools.pairwise(starts.tolist())
    ]


def name_clusters(words: list[list[str]]) -> list[str]:
    """Labels made of the most telling words, no two alike.

    >>> name_clusters([["card", "lost"], ["card", "lost"], []])
    ['card lost', 'card lost 2', 'cluster 2']
    """
    taken: dict[str, int] = {}
    labels = []
    for number, found in enumerate(words):
        plain = [w for w in found if re.fullmatch(r"[\w'-]+", w) and len(w) <= _LONGEST_WORD]
        label = " ".join(plain[:_LABEL_WORDS]) or f"cluster {number}"
        name = label
        while name in taken:
            taken[label] += 1
            name = f"{label} {taken[label]}"
        taken.setdefault(label, 1)
        taken[name] = 1
        labels.append(name)
    return labels


def describe_clusters(
    points: pa.Table, texts: pa.ChunkedArray, codes: np.ndarray, clusters: np.ndarray, path: Path
) -> None:
    """Writes clusters.parquet.

    Args:
      points: as POINTS; texts: cleaned, string[R]; codes: float32[P, H]; clusters: int32[P].
    """
    weights = points["weight"].to_numpy()
    codes = normalize(codes)
    means = find_means(codes, weights, clusters)
    typical = find_typical(codes, weights, clusters, means)
    similar = typicality(codes, clusters, means)
    num = len(means)
    inside = clusters >= 0
    sizes = np.bincount(clusters[inside], weights[inside], num)
    total = np.bincount(clusters[inside], weights[inside] * similar[inside], num)
    words = telling_words(points["masked"], weights, clusters)
    neighbours, similarities = near_means(means)
    keys = points["key"].to_numpy()[typical]
    columns = [
        pa.array(np.arange(num, dtype=np.int32)),
        pa.array([key_name(int(key)) for key in keys], pa.string()),
        pa.array(name_clusters(words), pa.string()),
        pa.array(sizes.astype(np.int64)),
        pa.array(np.bincount(clusters[inside], minlength=num).astype(np.int32)),
        pa.array((total / np.maximum(sizes, 1)).astype(np.float32)),
        points["masked"].take(pa.array(typical)),
        pa.array(words, pa.list_(pa.string())),
        pa.array(take_examples(points, texts, clusters, similar), pa.list_(pa.string())),
        pa.array(neighbours, pa.list_(pa.int32())),
        pa.array(similarities, pa.list_(pa.float32())),
    ]
    pq.write_table(pa.table(columns, schema=CLUSTERS), path, compression="zstd")


def take_examples(
    points: pa.Table, texts: pa.ChunkedArray, clusters: np.ndarray, similar: np.ndarray
) -> list[list[str]]:
    """For each cluster some of its cleaned texts, from the most typical to the least."""
    order = np.lexsort((-similar, clusters))
    order = order[clusters[order] >= 0]
    num = int(clusters.max(initial=-1)) + 1
    starts = np.searchsorted(clusters[order], np.arange(num + 1))
    chosen = [
        order[np.unique(np.linspace(a, b - 1, min(_EXAMPLES, b - a)).round().astype(int))]
        for a, b in itertools.pairwise(starts.tolist())
    ]
    flat = np.concatenate([*chosen, np.empty(0, np.int64)]).astype(np.int64)
    rows = points["first_row"].to_numpy()[flat]
    shown = iter(texts.take(pa.array(rows)).to_pylist())
    return [[next(shown) for _ in some] for some in chosen]


def near_means(means: np.ndarray) -> tuple[list[list[int]], list[list[float]]]:
    """For each cluster the nearest others, nearest first, and their cosines."""
    count = max(0, min(_NEIGHBOURS, len(means) - 1))
    found: list[list[int]] = []
    cosines: list[list[float]] = []
    for start in range(0, len(means), 1024):
        products = means[start : start + 1024] @ means.T
        rows = np.arange(len(products))
        products[rows, start + rows] = -2
        most = np.argpartition(-products, count, axis=1)[:, :count]
        cosine = np.take_along_axis(products, most, axis=1)
        order = np.lexsort((most, -cosine), axis=1)
        found += np.take_along_axis(most, order, axis=1).tolist()
        cosines += np.take_along_axis(cosine, order, axis=1).tolist()
    return found, cosines
