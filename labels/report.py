"""The report of a labelling: what became of the documents, the clusters, a picture, examples.

Legend: P points, C clusters, H numbers of a code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from labels.cluster import NOISE, read_assigned
from labels.neighbours import normalize
from labels.profile import find_means, take_examples, typicality
from labels.step import RESULTS, read_record
from model.page import build_page, bullet_list, escape, section, side_by_side, table
from model.plots import to_figure
from shortline import write_whole

_SHOWN_CLUSTERS, _SHOWN_MERGES, _SHOWN_COPIES = 60, 30, 20
_PICTURED = 4_000
"""Points of the picture; more would not show."""
_PICTURED_OF_ALL = 20
"""Of each cluster's, at least, where it has as many."""
_FITTED = 20_000
_COLOURS = ("#4c78c8", "#e0752d", "#2f9e77", "#c44e88", "#8a6fd1", "#b08a1e", "#3aa6b9", "#a3503c")
_GREY = "#999999"


def write_report(folder: Path, out: Path) -> dict[str, Any]:
    """Writes report.html; gives the funnel."""
    counts = {
        step: read_record(folder, step)["counts"]
        for step in ("clean", "encode", "cluster", "merge", "decide", "dedupe", "label")
    }
    funnel = count_funnel(counts)
    after = ", after the review's decisions" if counts["decide"]["decisions"] else ""
    source = Path(counts["clean"]["source"]).name
    labels = counts["label"]["labels"]
    told = f"{funnel['documents in']:,} documents, {labels:,} label{'s' * (labels != 1)}"
    sections = [
        f"<header><h1>{escape(source, 80)}, labelled</h1><p>{told}</p></header>",
        section("What became of the documents", table(("", "documents"), funnel.items())),
        section("Codes", _show_codes(folder, counts), _tell_codes(counts)),
        section("Clusters", _show_clusters(folder), f"The largest{after}."),
        section(
            "Merged",
            _show_merges(folder),
            "Texts for which clusters were merged or noise taken in, the most doubtful first.",
        ),
        section("Near copies", _show_copies(folder), "Removed, and what was kept instead."),
        section("Cleaning", _show_rules(counts["clean"]["rules"])),
    ]
    with write_whole(out / RESULTS["report"]) as file:
        file.write(build_page(f"{source}, labelled", sections))
    return {name.replace(" ", "_"): value for name, value in funnel.items()}


def count_funnel(counts: dict[str, Any]) -> dict[str, int]:
    """Documents at each stage; each but the indented is what is left of the one above."""
    clean, decide, dedupe = counts["clean"], counts["decide"], counts["dedupe"]
    with_text = clean["documents"] - clean["without_text"]
    return {
        "documents in": clean["documents"],
        "without a text": clean["without_text"],
        "cleaned": with_text,
        "distinct when masked": clean["points"],
        "clustered": with_text - counts["cluster"]["noise_documents"],
        "clustered after merging": with_text - counts["merge"]["noise_documents"],
        "noise": decide["noise_documents"],
        "dropped in review": decide["dropped_documents"],
        "labelled": dedupe["labelled"],
        "exact duplicates": dedupe["exact_duplicates"],
        "near duplicates": dedupe["near_duplicates"],
        "out": dedupe["kept"],
    }


def _tell_codes(counts: dict[str, Any]) -> str:
    encode, cluster = counts["encode"], counts["cluster"]
    told = f"Encoder {encode['encoder']}"
    if "reconstruction_accuracy" in encode:
        told += f", {encode['reconstruction_accuracy']:.1%} of the tokens reconstructed"
    if "eps" in cluster:
        told += f"; eps {cluster['eps']:.4g} ({cluster['eps_is']})"
    return told + ". Left: codes in their two main directions; noise is grey."


def _show_codes(folder: Path, counts: dict[str, Any]) -> str:
    codes = np.load(folder / "encode" / "codes.npy", mmap_mode="r", allow_pickle=False)
    clusters = read_assigned(folder / "decide" / "points.parquet")
    order = np.random.default_rng(0).permutation(len(codes))
    sample = np.sort(choose_points(clusters, order))
    fitted = normalize(np.asarray(codes[np.sort(order[:_FITTED])]))
    flat = flatten(normalize(np.asarray(codes[sample])), fitted)
    shown = clusters[sample]
    colours = np.array([*_COLOURS, _GREY])[np.where(shown == NOISE, -1, shown % len(_COLOURS))]

    def draw(axes) -> None:
        axes.scatter(flat[:, 0], flat[:, 1], s=4, c=colours, linewidths=0)
        axes.set(title="Codes", xlabel="first direction", ylabel="second direction")

    figures = [to_figure("codes", draw)]
    sizes = pq.read_table(folder / "decide" / "clusters.parquet")["size"].to_numpy()

    def draw_sizes(axes) -> None:
        axes.plot(np.arange(1, len(sizes) + 1), sizes, color=_COLOURS[0])
        axes.set(
            title="Clusters, the largest first", xlabel="cluster", ylabel="documents",
            xscale="log", yscale="log",
        )  # fmt: skip

    if len(sizes):
        figures.append(to_figure("sizes", draw_sizes))
    cluster = counts["cluster"]
    if "curve" in cluster:

        def draw_curve(axes) -> None:
            curve = cluster["curve"]
            axes.plot(np.linspace(0, 1, len(curve)), curve, color=_COLOURS[0])
            axes.axhline(cluster["eps"], color=_COLOURS[1], linewidth=1)
            axes.set(
                title="Distance to the nearest documents; eps",
                xlabel="share of the distinct texts, sorted", ylabel="distance",
            )  # fmt: skip

        figures.append(to_figure("k_distance", draw_curve))
    return side_by_side(*figures)


def choose_points(clusters: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Points to picture: the first of a random order int[P], and of each cluster the first few.

    So few of a cluster are pictured where all clusters' few are not too many.
    """
    chosen = order[:_PICTURED]
    num = int(clusters.max(initial=-1)) + 1
    few = min(_PICTURED_OF_ALL, _PICTURED // max(1, num))
    by_cluster = order[np.argsort(clusters[order], kind="stable")]
    numbers = clusters[by_cluster]
    places = np.arange(len(numbers)) - np.searchsorted(numbers, numbers)
    return np.union1d(chosen, by_cluster[(numbers != NOISE) & (places < few)])


def flatten(codes: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """float32[n, H] → float32[n, 2]: the two main directions of `fitted` float32[m, H]."""
    centre = fitted.mean(axis=0)
    centred = fitted - centre
    _, directions = np.linalg.eigh(centred.T @ centred)
    flat = (codes - centre) @ directions[:, ::-1][:, :2]
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def _show_clusters(folder: Path) -> str:
    decided = pq.read_table(folder / "decide" / "clusters.parquet").slice(0, _SHOWN_CLUSTERS)
    points = pq.read_table(folder / "clean" / "points.parquet", columns=["weight", "first_row"])
    texts = pq.read_table(folder / "clean" / "documents.parquet", columns=["text"])["text"]
    of_point = read_assigned(folder / "decide" / "points.parquet")
    numbers = decided["cluster"].to_numpy()
    places = np.full(max(int(of_point.max(initial=-1)), int(numbers.max(initial=-1))) + 2, NOISE)
    places[numbers] = np.arange(len(numbers))  # the last place is NOISE's
    shown = places[of_point].astype(np.int32)
    codes = normalize(np.load(folder / "encode" / "codes.npy", allow_pickle=False))
    weights = points["weight"].to_numpy()
    similar = typicality(codes, shown, find_means(codes, weights, shown))
    examples = take_examples(points, texts, shown, similar)
    inside = shown >= 0
    total = np.bincount(shown[inside], weights[inside] * similar[inside], len(numbers))
    rows = []
    for place, row in enumerate(decided.to_pylist()):
        state = "dropped" if row["dropped"] else "confirmed" if row["confirmed"] else ""
        some = examples[place][:: max(1, len(examples[place]) // 3)][:3]
        cohesion = float(total[place] / max(1, row["size"]))
        rows.append((row["label"], row["size"], cohesion, state, some))
    return table(("label", "documents", "cohesion", "review", "examples"), rows)


def _show_merges(folder: Path) -> str:
    merges = pq.read_table(folder / "merge" / "merges.parquet")
    if not len(merges):
        return bullet_list(["none"])
    shown = merges.sort_by("ratio").slice(0, _SHOWN_MERGES).to_pylist()  # the most doubtful
    rows = [(float(m["ratio"]), [m["text_a"]], [m["text_b"]]) for m in shown]
    return table(("ratio", "one", "other"), rows)


def _show_copies(folder: Path) -> str:
    duplicates = pq.read_table(folder / "dedupe" / "documents.parquet")
    of, distance = duplicates["duplicate_of"], duplicates["distance"].fill_null(0).to_numpy()
    removed = np.flatnonzero(distance)
    removed = removed[np.argsort(-distance[removed], kind="stable")][:_SHOWN_COPIES]
    if not len(removed):
        return bullet_list(["none"])
    texts = pq.read_table(folder / "clean" / "documents.parquet", columns=["text"])["text"]
    rows = [
        (int(distance[i]), [texts[int(i)].as_py()], [texts[of[int(i)].as_py()].as_py()])
        for i in removed
    ]
    return table(("edits", "removed", "kept"), rows)


def _show_rules(rules: dict[str, Any]) -> str:
    rows = [
        (name, rule["documents"], [before for before, _ in rule["examples"][:2]],
         [after for _, after in rule["examples"][:2]])
        for name, rule in rules.items()
    ]  # fmt: skip
    return table(("rule", "documents changed", "before", "after"), rows)
