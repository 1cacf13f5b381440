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
from typing import TYPE_CHECKING

import numpy as np
import tyro

from shortline import (
    UserError,
    __version__,
    import_tensorflow,
    parse_flags,
    printable,
    run_command,
    umask,
)
from tfdata.config import IngestConfig, TokenizerConfig
from tfdata.pool import Pool, Source, find_sources
from tfdata.progress import show_progress
from tfdata.read import list_files
from tfdata.shard_writer import ShardWriter, write_manifest
from tfdata.shards import (
    PARTS,
    SCHEMA,
    Shard,
    ShardSet,
    file_sha256,
    is_shard_set,
    open_shards,
    read_batches,
)
from tfdata.split import TRAIN, VALID, Split, SplitCounts
from tfdata.summary import collect_counts, summarize

if TYPE_CHECKING:
    from tfdata.vocab import VocabularyBuilder


def ingest(
    inputs: Sequence[Path],
    out: Path,
    ingest_config: IngestConfig,
    tokenizer_config: TokenizerConfig,
    progress: bool = False,
) -> ShardSet:
    """Makes the shard set `out` from files or folders, whole or not at all.

    The same inputs and settings give the same bytes. Progress goes to stderr.

    Raises:
      UserError: `out` is not empty, an input cannot be read, or no classifier can be learned
        from what it holds.
    """
    out = Path(os.path.abspath(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: exists and is not empty; choose another or delete it")
    sources = find_sources(inputs, ingest_config)
    with _folder_beside(out) as folder:
        work = folder / "work"
        work.mkdir()
        with contextlib.closing(Pool(work, sources, ingest_config)) as pool:
            pool.fill(progress)
            split, found = pool.builder.build(len(pool.labels))
            _check_learnable(pool, found, ingest_config)
            _write_set(folder, pool, split, found, tokenizer_config, progress)
        shutil.rmtree(work)
        _sync(folder)
        folder.rename(out)
        _sync(out.parent)
    return open_shards(out)


@contextlib.contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A temporary folder on the file system of `out`, gone afterwards unless it was renamed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        folder.chmod(0o777 & ~umask())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Makes the names in a folder outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        raise UserError(
            f"--valid {config.valid}: no class has the three documents, of two texts, that a split "
            "needs; name a file with --valid, or train without validation by --valid 0"
        )


def _write_set(
    folder: Path,
    pool: Pool,
    split: Split,
    found: SplitCounts,
    config: TokenizerConfig,
    progress: bool,
) -> None:
    """The second pass: shards, vocabulary and manifest into `folder`."""
    from tfdata.vocab import VocabularyBuilder, count_lengths

    trained = found.part_docs[:, TRAIN]
    # by name where counts are equal, so that ids do not depend on the order of files
    order = sorted(range(len(trained)), key=lambda code: (-trained[code], pool.labels[code]))
    names = tuple(pool.labels[code] for code in order)
    num_classes = int((trained > 0).sum())
    builder = VocabularyBuilder(config)
    parts = _write_shards(folder, pool, split, np.argsort(order), builder, progress)
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
        texts = (texts for texts, _ in read_batches(shard_set, "train"))
        lengths = count_lengths(texts, config, shard_set.words)
    shard_set = dataclasses.replace(shard_set, length_counts=lengths)
    label_counts = {part: found.part_docs[order, i] for i, part in enumerate(PARTS)}
    settings = pool.settings() | {"tokenizer": shard_set.tokenizer}
    write_manifest(shard_set, label_counts, settings)


def _write_shards(
    folder: Path,
    pool: Pool,
    split: Split,
    id_of_code: np.ndarray,
    vocabulary: VocabularyBuilder,
    progress: bool,
) -> dict[str, tuple[Shard, ...]]:
    ids = id_of_code.astype(np.int32)
    done = 0
    with contextlib.ExitStack() as stack, show_progress("writing", progress) as update:
        writers = [stack.enter_context(ShardWriter(folder, part)) for part in PARTS]
        for batch in pool.buckets.read():
            hashes, codes, sources = (
                batch.column(c).to_numpy() for c in ("hash", "code", "source")
            )
            parts = split.parts(hashes, codes, sources)
            for part, writer in enumerate(writers):
                rows = np.flatnonzero(parts == part)
                texts = batch.column("text").take(rows)
                writer.write(texts, ids[codes[rows]])
                if part == TRAIN:
                    vocabulary.add(texts)
            done += len(batch)
            update(done, done / pool.counts.rows_kept)
        return {part: writer.finish() for part, writer in zip(PARTS, writers, strict=True)}


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
    folder = (cache_folder() if cache_dir is None else cache_dir) / key[:32]
    if folder.exists():
        with contextlib.suppress(UserError):
            shard_set = open_shards(folder)
            print(f"data ingested before, unchanged: {folder}")
            return shard_set
        shutil.rmtree(folder)
    print(f"ingesting into {folder}")
    try:
        shard_set = ingest(inputs, folder, ingest_config, tokenizer_config, progress=True)
    except (UserError, OSError):
        if not is_shard_set(folder):
            raise
        shard_set = open_shards(folder)  # another process was faster
    print(summarize(shard_set))
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
    ingest: IngestConfig = field(default_factory=IngestConfig)
    tokens: TokenizerConfig = field(default_factory=TokenizerConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; ends stdout with one line of JSON."""
    flags = parse_flags(
        IngestFlags, argv, prog="python -m tfdata.ingest",
        description="Make a shard set, which train.py --data takes, from raw files.",
    )  # fmt: skip
    if not flags.inputs:
        raise UserError("no INPUT: name the files or folders to read")
    import_tensorflow()
    started = time.monotonic()
    shard_set = ingest(flags.inputs, flags.out, flags.ingest, flags.tokens, progress=True)
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
