"""Trains a text classifier: flags → data → network → loop → scores, report and export.

python train.py                                            # a generated corpus
python train.py --data tickets.csv --text body --label team --gpus all
python train.py --resume runs/a
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.flags import Flags, read_flags, settle
from model.startup import StartupClock
from model.state import State
from shortline import (
    EXIT_STOPPED,
    UserError,
    __version__,
    flat_values,
    import_tensorflow,
    printable,
    run_command,
)

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    import numpy as np

    from model.checkpoint import CheckpointWriter
    from model.classifier import Classifier
    from model.devices import Devices, GpuMonitor
    from model.events import MetricsLog
    from model.optimizer import Adam
    from model.progress import TrainProgress
    from model.run import RunPaths
    from model.step import ChunkMetrics, Predictions
    from tfdata.device_feed import DeviceFeed
    from tfdata.encode import Encoder
    from tfdata.pipeline import BatchFeed
    from tfdata.plan import Buckets
    from tfdata.shards import ShardSet
    from tfdata.vocab import Vocabulary
    from tfdata.window import WindowSource

SHOWN_SCORES = ("loss", "accuracy", "macro_f1", "weighted_f1")
_CHUNK_SECONDS = 1.0  # a signal is answered, and the display moves, about this often


@dataclass
class Trainer:
    """What the loop works with."""

    flags: Flags
    paths: RunPaths
    fingerprint: str
    classifier: Classifier
    optimizer: Adam
    encoder: Encoder
    variables: dict[str, Any]
    checkpoints: CheckpointWriter
    feed: BatchFeed | DeviceFeed
    train_chunk: Callable[[int, int], ChunkMetrics]
    predict_valid: Callable[[], Predictions] | None
    docs_per_epoch: int
    num_epochs: int
    label_counts: np.ndarray
    facts: dict[str, Any]
    """Route, precision and the like, for summary.json."""


def main(argv: Sequence[str] | None = None) -> int:
    clock = StartupClock(from_process=argv is None)
    flags = read_flags(argv)
    import_tensorflow()
    from model.devices import choose_devices
    from model.run import check_free

    clock.lap("imports")
    if flags.resume is None and flags.out is not None:
        check_free(Path(flags.out))  # before the data is read, not after
    devices = choose_devices(flags.gpus, flags.cpu_replicas)
    if flags.gpus == "all" and not devices.has_gpu:
        print("no GPU found (TF_CPP_MIN_LOG_LEVEL=0 shows why): training on the CPU")
    clock.lap("devices")
    shard_set = open_data(flags)
    flags = settle(flags, shard_set, devices.memory_bytes)
    clock.lap("data")
    state = State()
    with devices.strategy.scope():
        if flags.pipeline.batch_size == "auto":  # a resumed run goes on with what was settled
            flags = settle_batch_size(flags, shard_set, devices)
            clock.lap("batch size")
        trainer = build(flags, shard_set, devices, state, clock)
        try:
            run_epochs(trainer, state, devices, clock)
            if state.is_done:
                finish(trainer, state, shard_set)
                return 0
        except KeyboardInterrupt:
            if not state.is_done:
                raise
        except (UserError, OSError):
            if flags.resume is None and not trainer.paths.last.exists():
                shutil.rmtree(trainer.paths.folder)  # nothing in it is of use
            raise
        finally:
            trainer.feed.close()
    folder = printable(str(trainer.paths.folder))
    print(f"stopped, and saved; go on with: python train.py --resume {folder}")
    return EXIT_STOPPED


def open_data(flags: Flags) -> ShardSet:
    """The shard set: as given, or ingested into the cache, or generated and ingested."""
    from tfdata.ingest import cache_folder, ingest_cached
    from tfdata.shards import is_shard_set, open_shards

    inputs = [Path(name) for name in flags.data]
    if len(inputs) == 1 and is_shard_set(inputs[0]):
        return open_shards(inputs[0])
    if not inputs:
        from tfdata.synthetic import write_corpus

        corpus = cache_folder() / f"generated-{__version__}-{flags.docs}.parquet"
        if not corpus.exists():
            corpus.parent.mkdir(parents=True, exist_ok=True)
            print(f"generating a corpus of {flags.docs:,} documents: {corpus}")
            write_corpus(corpus, flags.docs)
        inputs = [corpus]
    # what only encoding needs is not part of the cache's key
    counted = dataclasses.replace(flags.tokenizer, max_len=None, truncate="right", unknown="map")
    return ingest_cached(inputs, flags.ingest, counted)


def settle_batch_size(flags: Flags, shard_set: ShardSet, devices: Devices) -> Flags:
    """`--batch-size auto` as a number, and its learning rate, by steps of a network of its own."""
    from model.batch_size import find_batch_size
    from tfdata.config import BASE_BATCH_SIZE
    from tfdata.pipeline import Batch
    from tfdata.vocab import Vocabulary

    assert flags.tokenizer.max_len is not None  # `settle` filled it in

    def build_probe() -> tuple[Classifier, Adam]:
        vocabulary = Vocabulary.build(shard_set.words, flags.tokenizer)
        with contextlib.redirect_stdout(None):  # the run's own network will say the same
            return build_network(flags, shard_set, devices, vocabulary, num_steps=1_000)

    size, learning_rate = find_batch_size(
        flags.model, flags.train, build_probe, Batch,
        base=BASE_BATCH_SIZE, num_train=shard_set.num_docs("train"),
        num_tokens=flags.tokenizer.max_len, gpu_bytes=devices.memory_bytes,
        has_gpu=devices.has_gpu,
    )  # fmt: skip
    pipeline = dataclasses.replace(flags.pipeline, batch_size=size)
    try:
        training = dataclasses.replace(flags.train, learning_rate=learning_rate)
    except ValueError as error:  # it was near the bound before it was scaled
        raise UserError(f"{error}; it was scaled by --batch-size auto") from error
    return dataclasses.replace(flags, pipeline=pipeline, train=training)


def build(
    flags: Flags, shard_set: ShardSet, devices: Devices, state: State, clock: StartupClock
) -> Trainer:
    """Network, optimizer, feeds and compiled loops; a resumed run's checkpoint is restored."""
    from model.checkpoint import CheckpointWriter
    from model.finish import build_predict_part
    from model.losses import class_weights
    from model.lstm import count_blocks
    from model.optimizer import is_lazy_faster
    from model.run import RunPaths, create_run, restore_last
    from model.startup import repeat_shapes, warm_up
    from model.step import build_train_chunk
    from tfdata.device_feed import build_feed
    from tfdata.encode import Encoder
    from tfdata.pipeline import Batch
    from tfdata.plan import choose_buckets, count_steps
    from tfdata.vocab import Vocabulary
    from tfdata.window import WindowSource

    config, tokenizer = flags.train, flags.tokenizer
    assert tokenizer.max_len is not None  # `settle` filled in all three
    assert flags.out is not None
    assert config.epochs is not None
    vocabulary = Vocabulary.build(shard_set.words, tokenizer)
    encoder = Encoder(tokenizer, vocabulary, tokenizer.max_len)
    source = WindowSource(
        shard_set, "train", encoder,
        vocab_size=len(vocabulary), config=flags.pipeline, shuffle_seed=config.seed,
    )  # fmt: skip
    buckets = choose_buckets(shard_set.length_counts, tokenizer.max_len, flags.pipeline)
    steps = [
        count_steps(shard_set.length_counts, buckets, source.docs_of_windows(epoch))
        for epoch in range(config.epochs)
    ]
    classifier, optimizer = build_network(flags, shard_set, devices, vocabulary, sum(steps))
    announce(shard_set, source, buckets, vocabulary, steps[-1])
    variables = classifier.weights_by_name | optimizer.state_by_name
    if flags.resume is None:
        paths = create_run(Path(flags.out), flat_values(flags), shard_set.labels, vocabulary)
    else:
        paths = RunPaths(Path(flags.out))
    if paths.last.exists():  # a run that was stopped before its first checkpoint begins again
        vars(state).update(restore_last(paths, variables, shard_set.fingerprint))
        where = (
            "it had finished" if state.is_done else f"epoch {state.epoch + 1}, step {state.step}"
        )
        print(f"going on from the last checkpoint: {where}")
    weights = class_weights(shard_set.label_counts, config.class_weights, config.normalize_weights)
    feed = build_feed(
        source, buckets, seed=config.seed, class_weights=weights, strategy=devices.strategy,
        start=(state.epoch, state.window, state.batch),
    )  # fmt: skip
    clock.lap("network")
    num_rows = min(buckets.sizes) // devices.strategy.num_replicas_in_sync
    if classifier.route == "cudnn" and flags.model.route == "auto":
        shapes = list(zip(buckets.sizes, buckets.widths, strict=True))
        print(f"LSTM route {classifier.choose_kernel(shapes)}")
    most_tokens = max(map(operator.mul, buckets.sizes, buckets.widths))
    is_lazy = not devices.has_gpu and is_lazy_faster(most_tokens, len(vocabulary))
    optimizer.begin(state.step, is_lazy)
    build_chunk = functools.partial(
        build_train_chunk, classifier, optimizer, seed=config.seed,
        label_smoothing=config.label_smoothing, num_blocks=count_blocks(classifier.route, num_rows),
    )  # fmt: skip
    train_chunk = build_chunk(feed.iterator)
    train_chunk(state.step, 0)  # the graph is made ready to run when it is first called
    predict_valid = None
    if shard_set.num_docs("valid"):
        predict_valid = build_predict_part(classifier, encoder, shard_set, "valid", flags.pipeline)
    clock.lap("graphs")
    if devices.has_gpu:
        num_replicas = devices.strategy.num_replicas_in_sync
        each = (-(-size // num_replicas) for size in buckets.sizes)
        shapes = list(zip(each, buckets.widths, strict=True))
        made_up = build_chunk(repeat_shapes(Batch, shapes))
        # in `stream` an evaluation may take minutes; the first after an epoch is warm-up enough
        predict = predict_valid if source.residency != "stream" else None
        warm_up(variables, made_up, len(shapes), predict)
        clock.lap("warm-up")
    facts = collect_facts(flags, shard_set, devices, classifier, source, buckets)
    return Trainer(
        flags, paths, shard_set.fingerprint, classifier, optimizer, encoder, variables,
        CheckpointWriter(), feed, train_chunk, predict_valid, source.num_docs, config.epochs,
        shard_set.label_counts, facts,
    )  # fmt: skip


def build_network(
    flags: Flags, shard_set: ShardSet, devices: Devices, vocabulary: Vocabulary, num_steps: int
) -> tuple[Classifier, Adam]:
    """The network by the best route there is, and its optimizer; tells which route, and why.

    Args:
      num_steps: of all epochs.
    """
    from model.classifier import Classifier
    from model.lstm import choose_route
    from model.optimizer import Adam

    precision = "float32" if flags.model.precision == "auto" else flags.model.precision
    try:
        route, why = choose_route(flags.model.route, devices.has_gpu, precision)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(f"training on {devices.description} in {precision}; LSTM route {route}: {why}")
    classifier = Classifier(
        flags.model, vocab_size=len(vocabulary), num_classes=len(shard_set.labels),
        unknown_id=vocabulary.unknown_id, route=route, precision=precision, seed=flags.train.seed,
    )  # fmt: skip
    optimizer = Adam(
        classifier.weights_by_name, flags.train, num_steps,
        scale_loss=precision == "mixed_float16",
    )  # fmt: skip
    return classifier, optimizer


def announce(
    shard_set: ShardSet, source: WindowSource, buckets: Buckets, vocabulary: Vocabulary,
    num_steps: int,
) -> None:  # fmt: skip
    """Tells what there is to train on, and in which batches."""
    print(
        f"{source.num_docs:,} documents, {len(shard_set.labels):,} classes, "
        f"{len(vocabulary):,} token ids, {source.residency} residency; {num_steps:,} batches an "
        f"epoch of {max(buckets.sizes):,} documents, padded to "
        f"{', '.join(map(str, buckets.widths))}"
    )


def collect_facts(
    flags: Flags, shard_set: ShardSet, devices: Devices, classifier: Classifier,
    source: WindowSource, buckets: Buckets,
) -> dict[str, Any]:  # fmt: skip
    """What summary.json says of data, network and devices."""
    return {
        "num_train": source.num_docs, "num_valid": shard_set.num_docs("valid"),
        "num_classes": len(shard_set.labels), "route": classifier.route,
        "precision": classifier.dtype_policy.name, "device": devices.description,
        "num_replicas": devices.strategy.num_replicas_in_sync, "residency": source.residency,
        "seed": flags.train.seed, "preset": flags.preset,
        "class_weights": flags.train.class_weights, "label_smoothing": flags.train.label_smoothing,
        "bucket_widths": buckets.widths, "batch_sizes": buckets.sizes,
    }  # fmt: skip


def run_epochs(trainer: Trainer, state: State, devices: Devices, clock: StartupClock) -> None:
    """train chunk → log → evaluate → save, until epochs or patience end or a signal asks to stop.

    Either way there is a checkpoint; `state.is_done` tells which it was.
    """
    from model.devices import GpuMonitor
    from model.events import MetricsLog
    from model.progress import TrainProgress

    monitor = GpuMonitor(devices.gpus)
    log = MetricsLog(trainer.paths.metrics, trainer.paths.tensorboard, state.step)
    done_docs = state.epoch * trainer.docs_per_epoch + state.num_docs
    display = TrainProgress(trainer.num_epochs, trainer.docs_per_epoch, done_docs)
    with catch_signals() as signals, trainer.checkpoints, display, contextlib.closing(log):
        saved_at = time.monotonic()
        while not state.is_done:
            started, window = time.perf_counter(), None
            while window is None and not signals:
                window = trainer.feed.poll_window(timeout=0.2)
            if clock.is_running:
                display.say(clock.stop("first batch"))
                state.startup_seconds = state.startup_seconds or clock.total
                state.startup = state.startup or clock.seconds
            else:  # waiting for later input is training time
                state.seconds += time.perf_counter() - started
            num_left = window.num_batches if window else 0
            while num_left and not signals:
                num_left -= run_chunk(trainer, state, num_left, display, monitor, log)
                trainer.checkpoints.check()
                if time.monotonic() - saved_at > trainer.flags.save_minutes * 60:
                    save(trainer, state)
                    saved_at = time.monotonic()
            if window and not num_left:
                state.num_tokens += window.num_tokens
                state.num_padded += window.num_padded
                state.window, state.batch = state.window + 1, 0
                if window.is_last:
                    end_epoch(trainer, state, display, log)
                    saved_at = time.monotonic()
            if signals and not state.is_done:
                save(trainer, state)
                return


def run_chunk(
    trainer: Trainer, state: State, most: int, display: TrainProgress, monitor: GpuMonitor,
    log: MetricsLog,
) -> int:  # fmt: skip
    """Some steps, about a second's, and what is shown and logged of them; returns how many."""
    steps_per_s = state.num_steps / state.seconds if state.num_steps else 4
    num_steps = min(most, trainer.flags.train.steps_per_call)
    num_steps = max(1, min(num_steps, round(steps_per_s * _CHUNK_SECONDS)))
    started = time.perf_counter()
    sums = trainer.train_chunk(state.step, num_steps)
    seconds = time.perf_counter() - started
    if sums.num_bad_steps:
        last = state.step + num_steps
        raise UserError(
            f"the loss is not finite in {sums.num_bad_steps} of the steps {state.step} to "
            f"{last - 1}; the checkpoint of the last good epoch is kept; try a smaller "
            "--learning-rate, a --clip-norm, or --precision float32"
        )
    state.add_chunk(sums, num_steps, seconds)
    gpu = monitor.read()
    loss, accuracy = sums.loss / sums.num_docs, sums.num_correct / sums.num_docs
    docs_per_s = sums.num_docs / seconds
    values = {"loss": loss, "accuracy": accuracy, "docs_per_s": docs_per_s, **gpu}
    log.log("train", state.step, values)
    display.advance(
        state.epoch, sums.num_docs, state.num_docs / state.seconds, state.loss / state.num_docs,
        state.num_correct / state.num_docs, gpu,
    )  # fmt: skip
    return num_steps


def end_epoch(trainer: Trainer, state: State, display: TrainProgress, log: MetricsLog) -> None:
    """Evaluates, keeps the best weights, decides on going on, saves, and begins the next epoch."""
    from model.scores import score

    patience = trainer.flags.train.patience
    trainer.optimizer.catch_up(state.step)
    state.add_epoch()
    values = {
        "epoch": state.epoch,
        "loss": state.loss / state.num_docs,
        "accuracy": state.num_correct / state.num_docs,
        "seconds": state.seconds,
        "docs_per_s": state.num_docs / state.seconds,
    }
    line = (
        f"epoch {state.epoch}/{trainer.num_epochs}  loss {values['loss']:.4f}  accuracy "
        f"{values['accuracy']:.4f}  {values['docs_per_s']:,.0f} docs/s  {state.seconds:.1f} s"
    )
    is_best = True
    if trainer.predict_valid is not None:
        scores = score(trainer.predict_valid(), trainer.label_counts)
        is_best = scores.macro_f1 > state.best_macro_f1
        values |= {f"valid_{name}": getattr(scores, name) for name in SHOWN_SCORES}
        line += (
            f"  |  validation loss {scores.loss:.4f}  accuracy {scores.accuracy:.4f}  "
            f"macro-F1 {scores.macro_f1:.4f}{'  best' if is_best else ''}"
        )
        state.best_macro_f1 = max(scores.macro_f1, state.best_macro_f1)
    log.log("epoch", state.step, values)
    display.say(line)
    state.epochs_without_gain = 0 if is_best else state.epochs_without_gain + 1
    state.best_epoch = state.epoch if is_best else state.best_epoch
    tired = patience and state.epochs_without_gain >= patience
    state.is_done = bool(tired) or state.epoch >= trainer.num_epochs
    if tired and state.epoch < trainer.num_epochs:
        display.say(f"stopping early: no better macro-F1 for {patience} epochs (--patience)")
    state.begin_epoch()
    save(trainer, state, is_best)


def save(trainer: Trainer, state: State, is_best: bool = False) -> None:
    """Begins to write the last checkpoint, and the best if it is that too."""
    paths = trainer.paths
    saved = {**dataclasses.asdict(state), "fingerprint": trainer.fingerprint}
    trainer.checkpoints.save(
        (paths.best, paths.last) if is_best else (paths.last,), trainer.variables, saved
    )


@contextlib.contextmanager
def catch_signals() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM are added to, instead of ending the process."""
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(trainer: Trainer, state: State, shard_set: ShardSet) -> None:
    """Scores, report and export of the best weights, and the summary last: then all is there."""
    from model.checkpoint import load_checkpoint, restore
    from model.finish import finish_run

    arrays, _ = load_checkpoint(trainer.paths.best)
    restore(trainer.classifier.weights_by_name, arrays, trainer.paths.best)
    steady = state.epoch_seconds[1:] or state.epoch_seconds
    facts = trainer.facts | {
        "best_epoch": state.best_epoch,
        "epochs": state.epoch,
        "steps": state.step,
        "epoch_seconds": state.epoch_seconds,
        "docs_per_s": trainer.docs_per_epoch * len(steady) / sum(steady),
        "startup_seconds": state.startup_seconds,
        "startup": {phase: round(seconds, 3) for phase, seconds in state.startup.items()},
        "padding_fraction": state.padding_fraction,
    }
    finish_run(
        trainer.paths, trainer.classifier, trainer.encoder, shard_set, trainer.flags.pipeline,
        trainer.predict_valid, facts,
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
