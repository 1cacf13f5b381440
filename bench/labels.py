"""What each step of `labels` brings: `python -m bench.labels FILE.parquet --out RECORD`.

Labels the texts of a file without a look at its labels, all automatic, and compares: V-measure and
the adjusted Rand index, overall and within the groups that `--group-by` names, after the masks
alone, after clustering and after merging, beside TF-IDF + DBSCAN and k-means on TF-IDF. A document
of noise counts as a cluster of its own.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from bench.checks import check_least
from bench.record import check_out, write_record
from bench.timing import describe_machine
from shortline import UserError, import_tensorflow, parse_flags, run_command

_APART = 0.01
"""The least eps: little is within reach but what is masked to the same text."""


@dataclass(frozen=True, kw_only=True)
class LabelsBenchFlags:
    """The flags of `python -m bench.labels`."""

    data: tyro.conf.Positional[Path]
    """Parquet file with columns text and label; the labels are for scoring alone."""
    out: Path | None = None
    """Folder of the record to write."""
    groups: bool = False
    """Score within groups, too: what labels begin with up to their last _ (systems of loghub)."""
    kmeans: bool = False
    """Also k-means on TF-IDF, told the number of classes."""
    hdbscan: bool = False
    """Also HDBSCAN in place of DBSCAN."""
    encode_steps: int = 1_000
    """Of the auto-encoder."""
    merge_ratio: float = 0.88
    """Of `labels merge`."""
    seed: int = 0
    """Of the auto-encoder and of k-means."""

    def __post_init__(self) -> None:
        check_least(self, encode_steps=1)


@dataclass(frozen=True)
class Truth:
    """What is known of the documents."""

    labels: Any
    """int64[R]"""
    groups: Any
    """string[R], or None."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark; ends stdout with one line of JSON."""
    flags = parse_flags(
        LabelsBenchFlags, argv, prog="python -m bench.labels",
        description="Score the steps of labels on a file of labelled texts.",
    )  # fmt: skip
    check_out(flags.out, "labels")
    import_tensorflow()
    arms = []
    with tempfile.TemporaryDirectory(prefix="shortline-labels-") as name:
        source, truth = prepare(flags, Path(name))
        for arm, clusters in run_arms(flags, source, Path(name)):
            arms.append({"arm": arm, **score(truth, clusters)})
            print(format_row(arms[-1]), flush=True)
    result = {
        "benchmark": "labels", "data": flags.data.parent.name, "machine": describe_machine("CPU"),
        "num_docs": len(truth.labels), "num_classes": len(set(truth.labels.tolist())), "arms": arms,
    }  # fmt: skip
    if flags.out is not None:
        write_record(flags.out, result, [*map(format_row, arms), *format_groups(arms).splitlines()])
    print(json.dumps(result))


def prepare(flags: LabelsBenchFlags, folder: Path) -> tuple[Path, Truth]:
    """A file of the texts alone, and the truth.

    Raises:
      UserError: the file lacks a column.
    """
    import numpy as np
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(flags.data, columns=["text", "label"])
    except (OSError, ValueError) as error:
        raise UserError(f"{flags.data}: must be Parquet with text and label: {error}") from error
    source = folder / "texts.parquet"
    pq.write_table(table.select(["text"]), source)
    names = np.array(table["label"].to_pylist())
    groups = np.array([name.rpartition("_")[0] for name in names]) if flags.groups else None
    return source, Truth(np.unique(names, return_inverse=True)[1], groups)


def run_arms(flags: LabelsBenchFlags, source: Path, folder: Path) -> Iterator[tuple[str, Any]]:
    """Each arm's name, and its clusters int64[R], -1 for noise."""
    from labels.clean import CleanConfig
    from labels.config import ClusterConfig, EncodeConfig, MergeConfig
    from labels.masks import MASKS
    from labels.run import Settings

    lstm = EncodeConfig(encode_steps=flags.encode_steps, seed=flags.seed)
    tfidf = dataclasses.replace(lstm, encoder="tfidf")
    off: dict[str, Any] = {f"mask_{name}": False for name in MASKS}
    unmasked = CleanConfig(**off)
    merging = MergeConfig(merge_ratio=flags.merge_ratio)
    apart, density = ClusterConfig(eps=_APART), ClusterConfig(algorithm="hdbscan")
    yield "masks alone", run_until(folder / "lstm", source, "clean", Settings(encode=lstm))
    if flags.kmeans:
        yield "TF-IDF + k-means, k given", kmeans(folder / "lstm", flags, source)
    plain = Settings(clean=unmasked, encode=tfidf)
    yield "TF-IDF + DBSCAN", run_until(folder / "plain", source, "cluster", plain)
    masked = Settings(encode=tfidf, merge=merging)
    yield "masks + TF-IDF + DBSCAN", run_until(folder / "tfidf", source, "cluster", masked)
    yield "masks + TF-IDF + DBSCAN + merge", run_until(folder / "tfidf", source, "merge", masked)
    alone = Settings(encode=lstm, cluster=apart, merge=merging)
    yield "masks + merge", run_until(folder / "lstm", source, "merge", alone)
    if flags.hdbscan:
        dense = Settings(encode=lstm, cluster=density, merge=merging)
        yield "masks + LSTM + HDBSCAN", run_until(folder / "lstm", source, "cluster", dense)
        yield "masks + LSTM + HDBSCAN + merge", run_until(folder / "lstm", source, "merge", dense)
    whole = Settings(encode=lstm, merge=merging)
    yield "masks + LSTM + DBSCAN", run_until(folder / "lstm", source, "cluster", whole)
    yield "masks + LSTM + DBSCAN + merge", run_until(folder / "lstm", source, "merge", whole)


def run_until(folder: Path, source: Path, last: str, settings: Any):
    """The steps up to `last`, of which those that are there are not made again; its clusters."""
    import numpy as np
    import pyarrow.parquet as pq

    from labels.cluster import read_assigned
    from labels.run import make
    from labels.step import ORDER, hold_folder

    with hold_folder(folder, is_new=True):
        for step in ORDER[: ORDER.index(last) + 1]:
            make(folder, source, step, settings)
    point = pq.read_table(folder / "clean" / "documents.parquet")["point"].fill_null(-1).to_numpy()
    if last == "clean":
        return point.astype(np.int64)
    return np.append(read_assigned(folder / last / "points.parquet"), -1)[point].astype(np.int64)


def kmeans(folder: Path, flags: LabelsBenchFlags, source: Path):
    """k-means on the TF-IDF of the cleaned texts, with as many clusters as there are classes."""
    import pyarrow.parquet as pq
    from sklearn.cluster import KMeans

    from labels.tfidf import build_tfidf

    labels = pq.read_table(flags.data, columns=["label"])["label"]
    texts = pq.read_table(folder / "clean" / "documents.parquet")["text"].fill_null("")
    matrix, _ = build_tfidf(texts, 20_000)
    model = KMeans(len(labels.unique()), n_init="auto", random_state=flags.seed)
    return model.fit_predict(matrix).astype(int)


def score(truth: Truth, clusters: Any) -> dict[str, Any]:
    """V-measure and adjusted Rand index, overall and by group; each document of noise is alone."""
    import numpy as np
    from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

    is_noise = clusters < 0
    alone = clusters.copy()
    alone[is_noise] = clusters.max(initial=0) + 1 + np.arange(is_noise.sum())
    purity, completeness, v = homogeneity_completeness_v_measure(truth.labels, alone)
    told: dict[str, Any] = {
        "v_measure": v, "ari": adjusted_rand_score(truth.labels, alone), "homogeneity": purity,
        "completeness": completeness, "clusters": len(np.unique(clusters[~is_noise])),
        "noise_share": float(is_noise.mean()),
        "ari_noise_as_one": adjusted_rand_score(truth.labels, clusters),
    }  # fmt: skip
    if truth.groups is not None:
        told["groups"] = {
            str(group): {
                "v_measure": homogeneity_completeness_v_measure(truth.labels[here], alone[here])[2],
                "ari": adjusted_rand_score(truth.labels[here], alone[here]),
            }
            for group in np.unique(truth.groups)
            for here in [truth.groups == group]
        }
        for name in ("v_measure", "ari"):
            told[f"least_{name}"] = min(found[name] for found in told["groups"].values())
    return told


def format_row(arm: dict[str, Any]) -> str:
    """One arm as a line."""
    line = (
        f"{arm['arm']:<34} V {arm['v_measure']:.3f}  ARI {arm['ari']:.3f}  homogeneity "
        f"{arm['homogeneity']:.3f}  completeness {arm['completeness']:.3f}  "
        f"{arm['clusters']:>6,} clusters  noise {arm['noise_share']:.1%}"
    )
    if "groups" in arm:
        line += f"  least of a group: V {arm['least_v_measure']:.3f}  ARI {arm['least_ari']:.3f}"
    return line


def format_groups(arms: Sequence[dict[str, Any]]) -> str:
    """The last arm's figures by group."""
    groups = arms[-1].get("groups", {})
    lines = [f"  {g:<14} V {f['v_measure']:.3f}  ARI {f['ari']:.3f}" for g, f in groups.items()]
    return "\n".join([f"{arms[-1]['arm']}, by group:", *lines]) + "\n" if groups else ""


if __name__ == "__main__":
    run_command(main)
