"""A labelling's folder as the steps before the review leave it, of made-up tickets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labels import folder as schemas

_THEMES = (
    "reset cancel refund change lost block order update close charge verify report",
    "card account transfer invoice password address loan statement limit order pin app",
    "abroad online yesterday twice again branch weekend urgently phone email tomorrow",
)
_FILL = "please hello i want to the my can you help me with a it does not work why is"


def write_folder(
    folder: Path, num_clusters: int = 12, points_per_cluster: int = 8, seed: int = 0,
    texts: dict[int, str] | None = None, labels: dict[int, str] | None = None,
) -> Path:  # fmt: skip
    """Writes clean/, encode/, cluster/ and merge/; an eighth of the points is noise.

    Clusters 0 and 1 are nearest neighbours, and cluster 2 was merged of two. `texts` replaces
    texts of points, `labels` the labels of clusters.
    """
    random = np.random.default_rng(seed)
    sizes = np.maximum(2, points_per_cluster * random.pareto(1.5, num_clusters)).astype(int)
    assigned = np.repeat(np.arange(num_clusters, dtype=np.int32), np.minimum(sizes, 2_000))
    assigned = np.append(assigned, np.full(len(assigned) // 8 + 1, -1, np.int32))
    random.shuffle(assigned)
    themes = [_theme(random) for _ in range(num_clusters)]
    made = [_write_text(random, themes[c] if c >= 0 else _theme(random)) for c in assigned]
    for point, text in (texts or {}).items():
        made[point] = text
    centres = random.normal(size=(num_clusters, 16))
    centres[1] = centres[0] + 0.3 * random.normal(size=16)
    codes = random.normal(size=(len(made), 16)) * 0.35
    codes += np.where(assigned[:, None] >= 0, centres[assigned], 0)
    _write_clean(folder, made, random)
    (folder / "encode").mkdir()
    np.save(folder / "encode" / "codes.npy", codes.astype(np.float32))
    unmerged = np.where((assigned == 2) & (random.random(len(assigned)) < 0.4), 900, assigned)
    _write_assigned(folder / "cluster", unmerged)
    _write_assigned(folder / "merge", assigned)
    names = {c: " ".join(themes[c][:3]) + f" {c}" for c in range(num_clusters)}
    _write_clusters(folder / "merge", assigned, names | (labels or {}))
    (folder / "merge" / "step.json").write_text('{"key": "of these clusters", "counts": {}}')
    return folder


def _theme(random: np.random.Generator) -> list[str]:
    return [str(random.choice(words.split())) for words in _THEMES]


def _write_text(random: np.random.Generator, theme: list[str]) -> str:
    words = [
        *theme,
        *random.choice(_FILL.split(), random.integers(4, 30)),
        str(random.integers(1e6)),
    ]
    random.shuffle(words[1:])
    return " ".join(map(str, words))


def _write_clean(folder: Path, texts: list[str], random: np.random.Generator) -> None:
    weights = np.minimum(random.zipf(1.8, len(texts)), 500).astype(np.int32)
    point = np.repeat(np.arange(len(texts), dtype=np.int32), weights)
    (folder / "clean").mkdir(parents=True)
    keys = random.choice(1 << 62, len(texts), replace=False).astype(np.uint64)
    masked = [text.rsplit(" ", 1)[0] + " <NUM>" for text in texts]
    first = np.concatenate([[0], np.cumsum(weights)[:-1]]).astype(np.int64)
    points = pa.table([masked, keys, weights, first], schema=schemas.POINTS)
    pq.write_table(points, folder / "clean" / "points.parquet")
    documents = pa.table([pa.array(texts).take(point), point], schema=schemas.DOCUMENTS)
    pq.write_table(documents, folder / "clean" / "documents.parquet")


def _write_assigned(folder: Path, assigned: np.ndarray) -> None:
    folder.mkdir()
    clusters = pa.array(assigned.astype(np.int32), mask=assigned < 0)
    pq.write_table(pa.table([clusters], schema=schemas.ASSIGNED), folder / "points.parquet")


def _write_clusters(folder: Path, assigned: np.ndarray, names: dict[int, str]) -> None:
    rows = [
        {"cluster": c, "key": "0" * 16, "label": names[c], "num_points": int((assigned == c).sum())}
        for c in np.unique(assigned).tolist()
        if c >= 0
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schemas.CLUSTERS), folder / "clusters.parquet")
