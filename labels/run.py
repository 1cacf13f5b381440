"""The steps one after the other; each is made only if it is not there already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labels.clean import CleanConfig
from labels.config import ClusterConfig, DedupeConfig, EncodeConfig, MergeConfig, ShardConfig
from labels.step import ORDER, read_record, run_step, write_record
from shortline import UserError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of all steps."""

    clean: CleanConfig = field(default_factory=CleanConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    merge: MergeConfig = field(default_factory=MergeConfig)
    dedupe: DedupeConfig = field(default_factory=DedupeConfig)
    shards: ShardConfig = field(default_factory=ShardConfig)


def make(folder: Path, source: Path, step: str, settings: Settings) -> dict[str, Any]:
    """One step, unless it is there; its record.

    Raises:
      UserError: the input cannot be read, a step before is missing, or there is nothing to learn.
    """
    return _MAKERS[step](folder, source, settings)


def _make_clean(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    from labels.clean import clean

    record = run_step(
        folder, "clean", settings.clean, lambda out: clean(source, out, settings.clean),
        inputs=_fingerprint(source),
    )  # fmt: skip
    place = str(source.absolute())
    if record["counts"]["source"] != place:  # the same content, moved
        record["counts"]["source"] = place
        write_record(folder / "clean", record)
    return record


def _fingerprint(source: Path) -> str:
    """Of the input's content: where it lies does not matter."""
    from tfdata.raw import check_regular
    from tfdata.shards import file_sha256

    if not source.exists():
        raise UserError(f"{source}: no such file")
    if source.is_dir():
        raise UserError(f"{source}: is a folder; give one file")
    check_regular(source)
    return file_sha256(source) + source.suffix


def _make_encode(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    def fill(out: Path) -> dict[str, Any]:
        from labels.encode import encode

        return encode(_read_points(folder, "masked")["masked"], out, settings.encode)

    return run_step(folder, "encode", settings.encode, fill)


def _make_cluster(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    def fill(out: Path) -> dict[str, Any]:
        from labels.cluster import cluster

        weights = _read_points(folder, "weight")["weight"].to_numpy()
        return cluster(_read_codes(folder), weights, out, settings.cluster)

    return run_step(folder, "cluster", settings.cluster, fill)


def _make_merge(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    def fill(out: Path) -> dict[str, Any]:
        import pyarrow.parquet as pq

        from labels.cluster import read_assigned
        from labels.merge import merge
        from labels.profile import describe_clusters

        points, codes = _read_points(folder), _read_codes(folder)
        clusters = read_assigned(folder / "cluster" / "points.parquet")
        min_docs = read_record(folder, "cluster")["config"]["min_docs"]
        told = merge(points, codes, clusters, min_docs, out, settings.merge)
        texts = pq.read_table(folder / "clean" / "documents.parquet", columns=["text"])["text"]
        merged = read_assigned(out / "points.parquet")
        describe_clusters(points, texts, codes, merged, out / "clusters.parquet")
        tell_noise(told["noise_documents"], int(points["weight"].to_numpy().sum()))
        return told

    return run_step(folder, "merge", settings.merge, fill)


def tell_noise(noise: int, documents: int) -> None:
    """Says so where texts are not of the kind that clustering is for."""
    if noise > documents / 2:
        print(
            f"merge: {noise:,} of {documents:,} documents are noise: they repeat one another too "
            "little to be labelled by likeness; label some hundred by hand and train on those"
        )


def _make_decide(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    from labels.decide import decide, fingerprint

    return run_step(
        folder, "decide", None, lambda out: decide(folder, out), inputs=fingerprint(folder)
    )


def _make_dedupe(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    def fill(out: Path) -> dict[str, Any]:
        import numpy as np
        import pyarrow.parquet as pq

        from labels.cluster import read_assigned
        from labels.dedupe import dedupe
        from labels.label import read_labelled
        from labels.neighbours import normalize
        from labels.profile import find_means, typicality

        documents = pq.read_table(folder / "clean" / "documents.parquet")
        clusters = read_assigned(folder / "decide" / "points.parquet")
        codes = normalize(_read_codes(folder))
        weights = _read_points(folder, "weight")["weight"].to_numpy()
        means = find_means(codes, weights, clusters)
        similar = np.append(typicality(codes, clusters, means), np.float32(0))
        point = documents["point"].fill_null(-1).to_numpy()
        classes = read_labelled(folder).classes
        return dedupe(documents["text"], classes, similar[point], out, settings.dedupe)

    return run_step(folder, "dedupe", settings.dedupe, fill)


def check_review(folder: Path, step: str) -> None:
    """Raises a UserError where `step` would leave decisions of the review out."""
    from labels.decide import fingerprint

    is_after = ORDER.index(step) > ORDER.index("decide")
    if is_after and read_record(folder, "decide")["inputs"] != fingerprint(folder):
        raise UserError(
            f"{folder}: the review has gone on after the step decide was made; make it again: "
            f"python -m labels decide {folder}"
        )


def _make_label(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    def fill(out: Path) -> dict[str, Any]:
        from labels.label import label

        if not source.exists():
            raise UserError(
                f"{source}: is not there any more; say where it is: python -m labels clean INPUT "
                f"--out {folder}"
            )
        if _fingerprint(source) != read_record(folder, "clean").get("inputs"):
            raise UserError(
                f"{source}: was changed after the step clean had read it; python -m labels run "
                f"INPUT --out {folder} reads it again"
            )
        return label(folder, source, out, settings.clean)

    return run_step(folder, "label", None, fill)


def _make_report(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    from labels.report import write_report

    return run_step(folder, "report", None, lambda out: write_report(folder, out))


def _make_shards(folder: Path, source: Path, settings: Settings) -> dict[str, Any]:
    def fill(out: Path) -> dict[str, Any]:
        from tfdata.config import IngestConfig, TokenizerConfig
        from tfdata.ingest import ingest
        from tfdata.shards import PARTS
        from tfdata.summary import summarize

        num_labels = read_record(folder, "label")["counts"]["labels"]
        if num_labels == 1:
            raise UserError(
                f"{folder}: all that has a label has the same: there is nothing to learn; again: "
                f"python -m labels cluster {folder}, with a smaller --eps or --min-docs"
            )
        config = IngestConfig(valid=settings.shards.valid, split=settings.shards.split)
        tokens = TokenizerConfig(vocab_size=settings.shards.vocab_size)
        shard_set = ingest([folder / "label" / "training.parquet"], out, config, tokens)
        print(summarize(shard_set))
        return {f"{part}_documents": shard_set.num_docs(part) for part in PARTS} | {
            "classes": len(shard_set.labels),
            "classes_without_validation": shard_set.counts["classes_without_valid"],
        }

    return run_step(folder, "shards", settings.shards, fill)


_MAKERS: dict[str, Callable[[Path, Path, Settings], dict[str, Any]]] = {
    "clean": _make_clean, "encode": _make_encode, "cluster": _make_cluster,
    "merge": _make_merge, "decide": _make_decide, "dedupe": _make_dedupe,
    "label": _make_label, "report": _make_report, "shards": _make_shards,
}  # fmt: skip
assert tuple(_MAKERS) == ORDER


def _read_points(folder: Path, *columns: str):
    import pyarrow.parquet as pq

    return pq.read_table(folder / "clean" / "points.parquet", columns=list(columns) or None)


def _read_codes(folder: Path):
    import numpy as np

    return np.load(folder / "encode" / "codes.npy", allow_pickle=False)
