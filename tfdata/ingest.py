"""Raw files to a shard set: `python -m tfdata.ingest INPUT... --out DIR`.

Two passes over the disk. The first reads, cleans and hashes, and scatters documents to shuffle
buckets; then the split is settled; the second gives each document its part and label id, writes
the shards, and counts the vocabulary on the training part alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from shortline import (
    UserError,
    __version__,
    import_tensorflow,
    parse_flags,
    printable,
    run_command,
    sync_folder,
    umask,
)
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.lock import alone_beside, own_temporary
from tfdata.pool import LocalPool, Pool, Source, find_sources
from tfdata.read import list_files
from tfdata.shard_writer import write_manifest
from tfdata.shards import PARTS, SCHEMA, ShardSet, file_sha256, open_shards
from tfdata.split import TRAIN, VALID, Split, SplitCounts
from tfdata.summary import collect_counts, summarize
from tfdata.time_split import TimeSplit


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where ingest runs; it gives the same bytes anywhere."""

    engine: Literal["local", "ray"] = "local"
    """local: in this process; ray: as tasks of a Ray cluster (pip install -e '.[ray]'), whose
    nodes all see the inputs and the folder of --out. One task reads one file."""
    ray_address: str | None = None
    """Ray cluster to join, like HOST:6379 or auto (default: $RAY_ADDRESS, else one of this machine,
    for this command alone)."""

    def __post_init__(self) -> None:
        if self.ray_address is not None and self.engine != "ray":
            raise ValueError(f"--ray-address {self.ray_address}: needs --engine ray")


def ingest(
    inputs: Sequence[Path],
    out: Path,
    ingest_config: IngestConfig,
    tokenizer_config: TokenizerConfig,
    progress: bool = False,
    engine: EngineConfig = EngineConfig(),
) -> ShardSet:
    """Makes the shard set `out` from files or folders, whole or not at all.

    The same inputs and settings give the same bytes. Progress goes to stderr.

    Raises:
      UserError: `out` is not empty, an input cannot be read, or no classifier can be learned
        from what it holds.
    """
    out = Path(os.path.abspath(out))
    _check_free(out)
    sources = find_sources(inputs, ingest_config)
    with alone_beside(out):
        _check_free(out)  # another process may have made it meanwhile
        return _ingest(sources, out, ingest_config, tokenizer_config, progress, engine)


def _check_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: exists and is not empty; choose another or delete it")


def _ingest(
    sources: Sequence[Source],
    out: Path,
    ingest_config: IngestConfig,
    tokenizer_config: TokenizerConfig,
    progress: bool,
    engine: EngineConfig,
) -> ShardSet:
    with _folder_beside(out) as folder:
        work = folder / "work"
        work.mkdir()
        with contextlib.closing(_open_pool(work, sources, ingest_config, engine)) as pool:
            pool.fill(progress)
            split, found = pool.build_split()
            _check_learnable(pool, found, ingest_config)
            _write_set(folder, pool, split, found, tokenizer_config, progress)
        shutil.rmtree(work)
        sync_folder(folder)
        folder.rename(out)
        sync_folder(out.parent)
    return open_shards(out)


def _open_pool(
    folder: Path, sources: Sequence[Source], config: IngestConfig, engine: EngineConfig
) -> Pool:
    if engine.engine == "local":
        return LocalPool(folder, sources, config)
    from tfdata.ray_engine import RayPool

    return RayPool(folder, sources, config, engine.ray_address)


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A temporary folder on the file system of `out`, gone afterwards unless it was renamed."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        folder.chmod(0o777 & ~umask())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_learnable(pool: Pool, found: SplitCounts, config: IngestConfig) -> None:
    num_docs = int(found.part_docs.sum())
    if num_docs == 0:
        raise UserError(
            f"no document has both a text and a label: {pool.counts.dropped_null_text} rows lack "
            f"the text, {pool.counts.dropped_null_label} the label; check --text and --label"
        )
    trained = np.flatnonzero(found.part_docs[:, TRAIN])
    if len(pool.labels) > max(20, num_docs // 2):
        raise UserError(pool.too_many_labels())
    if len(trained) < 2:
        only = printable(pool.labels[trained[0]], 40) if len(trained) else ""
        raise UserError(
            f"every document to train on has the label `{only}`: with one class there is nothing "
            "to learn; is --label the right column?"
        )
    if (config.share("valid") or 0) > 0 and not found.part_docs[:, VALID].any():
        is_group = config.split == "group"
        texts = "two groups of near copies" if is_group else "two texts"
        mend = "split text by text with --split random, " if is_group else ""
        raise UserError(
            f"--valid {config.valid}: no class has the three documents, of {texts}, that a split "
            f"needs; {mend}name a file with --valid, or train without validation by --valid 0"
        )


def _write_set(
    folder: Path,
    pool: Pool,
    split: Split | TimeSplit,
    found: SplitCounts,
    config: TokenizerConfig,
    progress: bool,
) -> None:
    """The second pass: shards, vocabulary and manifest into `folder`."""
    from tfdata.vocab import VocabularyBuilder

    trained = found.part_docs[:, TRAIN]
    # by name where counts are equal, so that ids do not depend on the order of files
    order = sorted(range(len(trained)), key=lambda code: (-trained[code], pool.labels[code]))
    names = tuple(pool.labels[code] for code in order)
    num_classes = int((trained > 0).sum())
    builder = VocabularyBuilder(config)
    id_of_code = np.argsort(order).astype(np.int32)
    parts = pool.write_shards(folder, split, id_of_code, builder, progress)
    shard_set = ShardSet(
        folder=folder,
        labels=names[:num_classes],
        unseen_labels=names[num_classes:],
        label_counts=trained[order[:num_classes]],
        words=builder.build(),
        tokenizer=dataclasses.asdict(config),
        length_counts=np.zeros(0, np.int64),
        parts=parts,
        counts=collect_counts(pool, found),
        fingerprint="",
    )
    lengths = builder.length_counts
    if lengths is None:  # of wordpieces, which only the finished vocabulary can cut
        lengths = pool.count_lengths(shard_set, config)
    shard_set = dataclasses.replace(shard_set, length_counts=lengths)
    label_counts = {part: found.part_docs[order, i] for i, part in enumerate(PARTS)}
    settings = pool.settings() | {"tokenizer": shard_set.tokenizer}
    write_manifest(shard_set, label_counts, settings)


def cache_folder() -> Path:
    """Where shard sets made on the way to training are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SHORTLINE_CACHE") or Path(cache) / "shortline")


def ingest_cached(
    inputs: Sequence[Path],
    ingest_config: IngestConfig,
    tokenizer_config: TokenizerConfig,
    cache_dir: Path | None = None,
) -> ShardSet:
    """The shard set of the inputs' content under these settings: from the cache, else made there.

    Raises:
      UserError: as `ingest` does.
    """
    sources = find_sources(inputs, ingest_config)
    key = _content_key(sources, ingest_config, tokenizer_config)
    folder = Path(cache_folder() if cache_dir is None else cache_dir, key[:32])
    shard_set = _open_ingested(folder)
    if shard_set is None:
        with alone_beside(folder):
            shard_set = _open_ingested(folder)  # another process may have made it meanwhile
            if shard_set is None:
                shutil.rmtree(folder, ignore_errors=True)  # damaged
                print(f"ingesting into {folder}", flush=True)
                shard_set = _ingest(
                    sources, folder, ingest_config, tokenizer_config, True, EngineConfig()
                )
    print(summarize(shard_set))
    return shard_set


def _open_ingested(folder: Path) -> ShardSet | None:
    """The shard set that is there, whole; else None."""
    if not folder.exists():
        return None
    try:
        shard_set = open_shards(folder)
    except UserError:
        return None
    print(f"data ingested before, unchanged: {folder}")
    return shard_set


def _content_key(
    sources: Sequence[Source], ingest_config: IngestConfig, tokenizer_config: TokenizerConfig
) -> str:
    """Of all that `ingest` depends on; names count because formats and columns hang on them."""
    digests = []
    for source in sources:
        for file in list_files(source.path, ingest_config.format):
            name = file.relative_to(source.path if file != source.path else file.parent)
            digests.append([source.part, str(name), file_sha256(file)])
    shares = {flag: ingest_config.share(flag) for flag in ("valid", "test")}
    settings = dataclasses.asdict(ingest_config) | shares
    made = [__version__, SCHEMA, digests, settings, dataclasses.asdict(tokenizer_config)]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class IngestFlags:
    """The flags of `python -m tfdata.ingest`."""

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Files or folders of CSV, TSV, JSONL, Parquet or fastText, plain, .gz or .zst."""
    out: Path
    """Folder to make: the shard set."""
    config: Path | None = None
    """YAML file of flags; flags on the command line win."""
    run: EngineConfig = field(default_factory=EngineConfig)
    ingest: IngestConfig = field(default_factory=IngestConfig)
    tokens: TokenizerConfig = field(default_factory=TokenizerConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; ends stdout with one line of JSON."""
    flags = parse_flags(
        IngestFlags, argv, prog="python -m tfdata.ingest",
        description="Make a shard set, which train.py --data takes, from raw files.",
        check=lambda flags: flags.ingest.check_split(),
    )  # fmt: skip
    if not flags.inputs:
        raise UserError("no INPUT: name the files or folders to read")
    import_tensorflow()
    started = time.monotonic()
    with own_temporary():
        shard_set = ingest(flags.inputs, flags.out, flags.ingest, flags.tokens, True, flags.run)
    seconds = time.monotonic() - started
    print(summarize(shard_set))
    num_docs = {part: shard_set.num_docs(part) for part in PARTS}
    result = {
        "num_docs": sum(num_docs.values()),
        **{f"num_{part}": num for part, num in num_docs.items()},
        "num_classes": len(shard_set.labels),
        "seconds": round(seconds, 3),
        "docs_per_s": round(sum(num_docs.values()) / seconds, 1),
        "out": str(flags.out),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_command(main)
