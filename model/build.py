"""A training put together: flags → data → network → feeds and compiled loops."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from model.batch_size import find_batch_size
from model.checkpoint import (
    CheckpointWriter,
    DamagedCheckpoint,
    find_versions,
    load_best,
    load_newest,
    restore,
)
from model.classifier import Classifier
from model.devices import Devices
from model.finish import build_predict_part
from model.flags import Flags, lasting_settings
from model.losses import class_weights
from model.lstm import count_blocks
from model.made_up import make_batch, repeat_batches
from model.network import build_network, settle_precision, settle_route
from model.opened import describe_words
from model.optimizer import Adam, choose_lazy
from model.origin import describe_origin, is_same
from model.pairs import find_pairs
from model.run import RunPaths, complete_run, create_run, drop_refit, restore_last
from model.startup import StartupClock, warm_up
from model.state import State
from model.step import ChunkMetrics, Predictions, build_train_chunk
from model.workers import Workers
from shortline import UserError, flat_values, printable
from tfdata.checkup.brief import check_briefly, describe_briefly
from tfdata.checkup.finding import sort_findings
from tfdata.config import BASE_BATCH_SIZE
from tfdata.device_feed import DeviceFeed, build_feed
from tfdata.encode import Encoder
from tfdata.generated import generate_cached
from tfdata.ingest import ingest_cached
from tfdata.locate import locate_batch
from tfdata.pipeline import Batch, BatchFeed, find_replicas
from tfdata.plan import Buckets, choose_buckets, count_steps
from tfdata.shards import PARTS, ShardSet, is_shard_set, open_shards
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource

TrainChunk = Callable[[int, int], ChunkMetrics]


@dataclass
class Trainer:
    """What the loop works with."""

    flags: Flags
    paths: RunPaths
    origin: dict[str, Any]
    """Of model.origin, for the checkpoints."""
    classifier: Classifier
    optimizer: Adam
    encoder: Encoder
    variables: dict[str, tf.Variable]
    checkpoints: CheckpointWriter
    feed: BatchFeed | DeviceFeed
    train_chunk: TrainChunk
    locate: Callable[[tuple[int, int, int]], str]
    """The rows of the batch at (epoch, window, batch), in words."""
    predict_valid: Callable[[], Predictions] | None
    docs_per_epoch: int
    num_epochs: int
    label_counts: np.ndarray
    workers: Workers
    facts: dict[str, Any]
    """Route, precision and the like, for summary.json."""
    is_refit: bool = False
    """Whether the validation documents train, too: nothing is left to tell the best epoch by."""


class TrainInput(NamedTuple):
    """The training part: what encodes it, its windows, and the batches they are to make."""

    vocabulary: Vocabulary
    encoder: Encoder
    source: WindowSource
    buckets: Buckets
    epoch_steps: list[int]
    """Batches of each epoch."""


def open_data(flags: Flags) -> ShardSet:
    """The shard set: as given, or ingested into the cache, or generated and ingested."""
    inputs = [Path(name) for name in flags.data]
    if len(inputs) == 1 and is_shard_set(inputs[0]):
        return open_shards(inputs[0])
    # what only encoding needs is not part of the cache's key
    counted = dataclasses.replace(
        flags.tokenizer, max_len=None, truncate="right", unknown="map", stems=0
    )
    return ingest_cached(inputs or [generate_cached(flags.docs)], flags.ingest, counted)


def open_input(flags: Flags, shard_set: ShardSet) -> TrainInput:
    """Args:
    flags: as `settle` filled them in.
    """
    max_len, num_epochs = flags.tokenizer.max_len, flags.train.epochs
    assert max_len is not None
    assert num_epochs is not None
    vocabulary = Vocabulary.build(shard_set.words, flags.tokenizer)
    encoder = Encoder(flags.tokenizer, vocabulary, max_len)
    source = WindowSource(
        shard_set, "train", encoder,
        vocab_size=len(vocabulary), config=flags.pipeline, shuffle_seed=flags.train.seed,
    )  # fmt: skip
    buckets = choose_buckets(shard_set.length_counts, max_len, flags.pipeline)
    epoch_steps = [
        count_steps(shard_set.length_counts, buckets, source.docs_of_windows(epoch))
        for epoch in range(num_epochs)
    ]
    return TrainInput(vocabulary, encoder, source, buckets, epoch_steps)


def settle_batch_size(flags: Flags, shard_set: ShardSet, devices: Devices) -> Flags:
    """`--batch-size auto` as a number, and its learning rate, by steps of a network of its own."""
    assert flags.tokenizer.max_len is not None  # `settle` filled it in

    def build_probe() -> tuple[Classifier, Adam]:
        vocabulary = Vocabulary.build(shard_set.words, flags.tokenizer)
        with contextlib.redirect_stdout(None):  # the run's own network will say the same
            return choose_network(flags, shard_set, devices, vocabulary, num_steps=1_000)

    size, learning_rate = find_batch_size(
        flags.model, flags.train, build_probe, Batch,
        base=BASE_BATCH_SIZE, num_train=shard_set.num_docs("train"),
        num_tokens=flags.tokenizer.max_len, gpu_bytes=devices.memory_bytes or 0,
        has_gpu=devices.has_gpu,
    )  # fmt: skip
    pipeline = dataclasses.replace(flags.pipeline, batch_size=size)
    try:
        training = dataclasses.replace(flags.train, learning_rate=learning_rate)
    except ValueError as error:  # it was near the bound before it was scaled
        raise UserError(f"{error}; it was scaled by --batch-size auto") from error
    return dataclasses.replace(flags, pipeline=pipeline, train=training)


def build_trainer(
    flags: Flags, shard_set: ShardSet, devices: Devices, state: State, clock: StartupClock,
    refit_epochs: int = 0,
) -> Trainer:  # fmt: skip
    """Network, optimizer, feeds and compiled loops; a resumed run's checkpoint is restored.

    Call it within `hold_run`, if this is the process that writes the folder.

    Args:
      refit_epochs: of a training anew on `shard_set.join_valid()`, of a run that has its folder;
        0: it is the first training.
    """
    config, strategy = flags.train, devices.strategy
    workers = Workers(strategy)
    data = open_input(flags, shard_set)
    with contextlib.redirect_stdout(None) if refit_epochs else contextlib.nullcontext():
        classifier, optimizer = choose_network(
            flags, shard_set, devices, data.vocabulary, sum(data.epoch_steps)
        )
    findings = []
    if not refit_epochs:
        announce(flags, shard_set, data)
        findings = tell_findings(flags, shard_set) if flags.doctor and workers.is_chief else []
    variables = classifier.state_by_name | optimizer.state_by_name
    origin = collect_origin(flags, shard_set, devices)
    assert flags.out is not None  # `settle` filled it in
    paths = RunPaths(Path(flags.out))
    if workers.is_chief and refit_epochs:
        restore_refit(paths, variables, state, origin, refit_epochs)
    elif workers.is_chief:
        open_folder(flags, shard_set, data.vocabulary, variables, state, origin)
        hint_resume(devices, flags.out)
    vars(state).update(workers.gather_values(vars(state))[0])
    hint_resume(devices, flags.out)  # now the others, too, know that the folder is there
    clock.lap("network")
    data.source.share(workers)
    if classifier.config.pairs and not state.step:
        classifier.words.list_pairs(find_pairs(data.source, classifier.config.pairs - 1))
    workers.set_as_chief(variables)
    clock.lap("pairs")
    weights = class_weights(shard_set.label_counts, config.class_weights, config.normalize_weights)
    feed = build_feed(
        data.source, data.buckets, seed=config.seed, class_weights=weights, strategy=strategy,
        start=(state.epoch, state.window, state.batch),
    )  # fmt: skip
    build_chunk = prepare_steps(flags, devices, data, classifier, optimizer, state.step)
    train_chunk = build_chunk(feed.iterator)
    train_chunk(state.step, 0)  # the graph is made ready to run when it is first called
    predict_valid = None
    if shard_set.num_docs("valid"):
        predict_valid = build_predict_part(
            classifier, data.encoder, shard_set, "valid", flags.pipeline
        )
    clock.lap("graphs")
    if devices.has_gpu and not refit_epochs:
        # in `stream` an evaluation may take minutes; the first after an epoch is warm-up enough
        predict = predict_valid if data.source.residency != "stream" else None
        warm_up_shapes(build_chunk, classifier, data.buckets, variables, predict)
        clock.lap("warm-up")
    facts = collect_facts(flags, shard_set, devices, classifier, data) | {"findings": findings}
    locate = functools.partial(locate_batch, shard_set, data.source, data.buckets, config.seed)
    return Trainer(
        flags, paths, origin, classifier, optimizer, data.encoder, variables,
        CheckpointWriter(flags.keep), feed, train_chunk, locate, predict_valid,
        data.source.num_docs, refit_epochs or len(data.epoch_steps), shard_set.label_counts,
        workers, facts, is_refit=bool(refit_epochs),
    )  # fmt: skip


def choose_network(
    flags: Flags, shard_set: ShardSet, devices: Devices, vocabulary: Vocabulary, num_steps: int
) -> tuple[Classifier, Adam]:
    """`build_network` for this data on these devices; tells which route it takes, and why."""
    route, why = settle_route(flags.model, devices.has_gpu)
    precision = settle_precision(flags.model)
    print(f"training on {devices.description} in {precision}; LSTM route {route}: {why}")
    return build_network(
        flags.model, flags.train, route, precision, vocab_size=len(vocabulary),
        num_classes=len(shard_set.labels), unknown_id=vocabulary.unknown_id, num_steps=num_steps,
        parts=describe_words(vocabulary, flags.tokenizer, flags.model),
    )  # fmt: skip


def announce(flags: Flags, shard_set: ShardSet, data: TrainInput) -> None:
    """Tells what there is to train on, and in which batches."""
    source, buckets = data.source, data.buckets
    print(
        f"{source.num_docs:,} documents, {len(shard_set.labels):,} classes, "
        f"{len(data.vocabulary):,} token ids, {source.residency} residency, "
        f"{describe_ids(flags, data)}; {data.epoch_steps[-1]:,} batches an epoch of "
        f"{max(buckets.sizes):,} documents, padded to {', '.join(map(str, buckets.widths))}"
    )


def tell_findings(flags: Flags, shard_set: ShardSet) -> list[dict[str, Any]]:
    """Tells in a few lines what is wrong with the data; all of it, for summary.json."""
    assert flags.tokenizer.max_len is not None
    found = sort_findings(check_briefly(shard_set, flags.tokenizer.max_len, flags.ingest))
    lines = describe_briefly(found)
    if lines:
        more = "FILE, for the files it was made from,"
        if not (flags.data and is_shard_set(Path(flags.data[0]))):
            words = [*flags.data, *flags.ingest.given()] or ["FILE"]
            more = " ".join(printable(shlex.quote(word)) for word in words)
        print(f"data (python -m tfdata.doctor {more} tells more; --no-doctor: none of this):")
        print("\n".join(lines))
    return [finding.to_json() for finding in found]


def describe_ids(flags: Flags, data: TrainInput) -> str:
    """When the texts become token ids, in words."""
    if data.source.has_cached_ids:
        return "token ids cached"
    if data.source.residency == "stream" and not flags.pipeline.id_cache:
        return "tokenising in every epoch"
    return "tokenising once"


def open_folder(
    flags: Flags, shard_set: ShardSet, vocabulary: Vocabulary,
    variables: dict[str, tf.Variable], state: State, origin: dict[str, Any],
) -> RunPaths:  # fmt: skip
    """The run's folder: a new one, or a resumed one, from which variables and state are set."""
    assert flags.out is not None  # `settle` filled it in
    if flags.resume is None:
        return create_run(Path(flags.out), flat_values(flags), shard_set.labels, vocabulary)
    paths = RunPaths(Path(flags.out))
    if not find_versions(paths.last):  # it was stopped before its first checkpoint: begins again
        complete_run(paths, shard_set.labels, vocabulary)
        return paths
    vars(state).update(restore_last(paths, variables, origin))
    if state.best_epoch:
        load_best(paths.best)  # the end wants it: a damaged one is told now, not then
    complete_run(paths, shard_set.labels, vocabulary)
    where = f"epoch {state.epoch + 1}, step {state.step}"
    print(f"going on from the last checkpoint: {'it had finished' if state.is_done else where}")
    return paths


def restore_refit(
    paths: RunPaths, variables: dict[str, tf.Variable], state: State, origin: dict[str, Any],
    num_epochs: int,
) -> None:  # fmt: skip
    """Sets variables and state to where the other network's training was stopped, if it was."""
    if not find_versions(paths.refit):
        return
    try:
        arrays, saved = load_newest(paths.refit)
    except DamagedCheckpoint as error:
        print(f"note: {printable(str(error))}: this training begins again")
        drop_refit(paths)
        return
    if saved["epoch"] > num_epochs or not is_same(saved.pop("origin"), origin):
        print(f"note: {printable(str(paths.refit))}: is of another training, this one begins")
        drop_refit(paths)
        return
    restore(variables, arrays, paths.refit)
    vars(state).update(saved)
    print(f"going on from its last checkpoint: epoch {state.epoch + 1}, step {state.step}")


def hint_resume(devices: Devices, folder: str) -> None:
    """From now on, a run whose workers lose one another is to be resumed, not begun again."""
    if devices.lifeline is not None:
        devices.lifeline.resume_hint = f"go on with --resume {folder} on all workers"


def collect_origin(flags: Flags, shard_set: ShardSet, devices: Devices) -> dict[str, Any]:
    """What this training is made from, for its checkpoints."""
    data = {
        "fingerprint": shard_set.fingerprint, "classes": len(shard_set.labels),
        "words": len(shard_set.words),
    }  # fmt: skip
    data |= {f"{part} documents": shard_set.num_docs(part) for part in PARTS}
    num_replicas = devices.strategy.num_replicas_in_sync
    return describe_origin(data, lasting_settings(flags), devices.description, num_replicas)


def prepare_steps(
    flags: Flags, devices: Devices, data: TrainInput, classifier: Classifier, optimizer: Adam,
    step: int,
) -> Callable[[Any], TrainChunk]:  # fmt: skip
    """`build_train_chunk` of an iterator of batches, with kernels and optimizer as fit this input.

    Args:
      step: that training goes on from.
    """
    buckets, config = data.buckets, flags.train
    most_tokens = max(map(operator.mul, buckets.sizes, buckets.widths))
    weights = classifier.weights_by_name
    optimizer.begin(step, () if devices.has_gpu else choose_lazy(most_tokens, weights))
    num_rows = min(buckets.sizes) // devices.strategy.num_replicas_in_sync
    return functools.partial(
        build_train_chunk, classifier, optimizer, seed=config.seed,
        label_smoothing=config.label_smoothing or 0.0,
        num_blocks=count_blocks(classifier.route, num_rows),
    )  # fmt: skip


def warm_up_shapes(
    build_chunk: Callable[[Any], TrainChunk], classifier: Classifier, buckets: Buckets,
    variables: dict[str, tf.Variable], predict: Callable[[], Predictions] | None,
) -> None:  # fmt: skip
    """One step on a made-up batch of each bucket, and `predict`; the variables stay as they are."""
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    batches = [
        make_batch(
            Batch, -(-size // num_replicas), width,
            vocab_size=classifier.vocab_size, num_classes=classifier.num_classes,
        )
        for size, width in zip(buckets.sizes, buckets.widths, strict=True)
    ]  # fmt: skip
    here = find_replicas(tf.distribute.get_strategy())  # a process feeds its own replicas
    train_chunk = build_chunk(repeat_batches(batches, copies=len(here)))
    warm_up(variables, train_chunk, len(batches), predict)


def collect_facts(
    flags: Flags, shard_set: ShardSet, devices: Devices, classifier: Classifier, data: TrainInput
) -> dict[str, Any]:
    """What summary.json says of data, network and devices."""
    return {
        "num_train": data.source.num_docs, "num_valid": shard_set.num_docs("valid"),
        "num_classes": len(shard_set.labels), "route": classifier.route,
        "precision": classifier.dtype_policy.name, "device": devices.description,
        "num_replicas": devices.strategy.num_replicas_in_sync,
        "residency": data.source.residency, "seed": flags.train.seed, "preset": flags.preset,
        "class_weights": flags.train.class_weights, "label_smoothing": flags.train.label_smoothing,
        "bucket_widths": data.buckets.widths, "batch_sizes": data.buckets.sizes,
    }  # fmt: skip
