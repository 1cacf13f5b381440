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
from labels.step import RESULTS, read_record
from model.page import build_page, bullet_list, section, side_by_side, table
from model.plots import to_figure
from shortline import write_whole

REPORT = RESULTS["report"]
_SHOWN_CLUSTERS, _SHOWN_MERGES, _SHOWN_COPIES = 60, 30, 20
_PICTURED = 4_000
"""Points of the picture; more would not show."""
_FITTED = 20_000
_COLOURS = ("#4c78c8", "#e0752d", "#2f9e77", "#c44e88", "#8a6fd1", "#b08a1e", "#3aa6b9", "#a3503c")
_GREY = "#999999"


def write_report(folder: Path, out: Path) -> dict[str, Any]:
    """Writes report.html beside the steps; gives the funnel."""
    counts = {
        step: read_record(folder, step)["counts"]
        for step in ("clean", "encode", "cluster", "merge", "decide", "dedupe", "label")
    }
    funnel = count_funnel(counts)
    sections = [
        section("What became of the documents", table(("", "documents"), funnel.items())),
        section("Codes", _show_codes(folder, counts), _tell_codes(counts)),
        section("Clusters", _show_clusters(folder), "The largest, after the review's decisions."),
        section("Merged", _show_merges(folder), "Texts for which clusters were merged."),
        section("Near copies", _show_copies(folder), "Removed, and what was kept instead."),
        section("Cleaning", _show_rules(counts["clean"]["rules"])),
    ]
    with write_whole(folder / REPORT) as file:
        file.write(build_page("Labelling", sections))
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
    random = np.random.default_rng(0)
    sample = np.sort(random.permutation(len(codes))[:_FITTED])
    flat = flatten(normalize(np.asarray(codes[sample])))[:_PICTURED]
    shown = clusters[sample][:_PICTURED]
    colours = np.array([*_COLOURS, _GREY])[np.where(shown == NOISE, -1, shown % len(_COLOURS))]

    def draw(axes) -> None:
        axes.scatter(flat[:, 0], flat[:, 1], s=4, c=colours, linewidths=0)
        axes.set_title("Codes")

    figures = [to_figure("codes", draw)]
    sizes = pq.read_table(folder / "decide" / "clusters.parquet")["size"].to_numpy()

    def draw_sizes(axes) -> None:
        axes.plot(np.arange(1, len(sizes) + 1), sizes, color=_COLOURS[0])
        axes.set(title="Documents of a cluster, the largest first", xscale="log", yscale="log")

    if len(sizes):
        figures.append(to_figure("sizes", draw_sizes))
    cluster = counts["cluster"]
    if "curve" in cluster:

        def draw_curve(axes) -> None:
            curve = cluster["curve"]
            axes.plot(np.linspace(0, 1, len(curve)), curve, color=_COLOURS[0])
            axes.axhline(cluster["eps"], color=_COLOURS[1], linewidth=1)
            axes.set_title("Distance to the nearest documents, sorted; eps")

        figures.append(to_figure("k_distance", draw_curve))
    return side_by_side(*figures)


def flatten(codes: np.ndarray) -> np.ndarray:
    """float32[n, H] → float32[n, 2]: their two main directions."""
    centred = codes - codes.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    flat = centred @ directions[:, ::-1][:, :2]
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def _show_clusters(folder: Path) -> str:
    decided = pq.read_table(folder / "decide" / "clusters.parquet")
    made = pq.read_table(folder / "merge" / "clusters.parquet")
    places = {number: i for i, number in enumerate(made["cluster"].to_pylist())}
    rows = []
    for row in decided.slice(0, _SHOWN_CLUSTERS).to_pylist():
        place = places.get(row["cluster"])  # None: it came of a split
        before = made.slice(place, 1).to_pylist()[0] if place is not None else {}
        cohesion = float(before["cohesion"]) if before else None
        state = "dropped" if row["dropped"] else "confirmed" if row["confirmed"] else ""
        examples = before.get("examples", [])[:: max(1, len(before.get("examples", [])) // 3)][:3]
        rows.append((row["label"], row["size"], cohesion, state, examples))
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
