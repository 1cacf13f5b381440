"""Trains a text classifier: flags → data → network → loop → scores, report and export.

python train.py                                            # a generated corpus
python train.py --data tickets.csv --text body --label team --gpus all
python train.py --resume runs/a
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model.flags import read_flags, settle
from model.startup import StartupClock
from model.state import State
from shortline import EXIT_STOPPED, UserError, import_tensorflow, printable, run_command

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from model.build import Trainer
    from model.devices import Devices, GpuMonitor
    from model.events import MetricsLog
    from model.progress import TrainProgress
    from tfdata.shards import ShardSet

SHOWN_SCORES = ("loss", "accuracy", "macro_f1", "weighted_f1")
_CHUNK_SECONDS = 1.0  # a signal is answered, and the display moves, about this often


def main(argv: Sequence[str] | None = None) -> int:
    clock = StartupClock(from_process=argv is None)
    flags = read_flags(argv)
    import_tensorflow()
    from model.build import build_trainer, open_data, settle_batch_size
    from model.devices import choose_devices
    from model.network import settle_route
    from model.run import check_free

    clock.lap("imports")
    if flags.resume is None and flags.out is not None:
        check_free(Path(flags.out))  # before the data is read, not after
    devices = choose_devices(flags.gpus, flags.cpu_replicas)
    if flags.gpus == "all" and not devices.has_gpu:
        print("no GPU found (TF_CPP_MIN_LOG_LEVEL=0 shows why): training on the CPU")
    settle_route(flags.model, devices.has_gpu)  # before the data is read, likewise
    clock.lap("devices")
    shard_set = open_data(flags)
    flags = settle(flags, shard_set, devices.memory_bytes)
    clock.lap("data")
    state = State()
    with devices.strategy.scope():
        if flags.pipeline.batch_size == "auto":  # a resumed run goes on with what was settled
            flags = settle_batch_size(flags, shard_set, devices)
            clock.lap("batch size")
        trainer = build_trainer(flags, shard_set, devices, state, clock)
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


def run_epochs(trainer: Trainer, state: State, devices: Devices, clock: StartupClock) -> None:
    """train chunk → log → evaluate → save, until epochs or patience end or a signal asks to stop.

    Either way there is a checkpoint; `state.is_done` tells which it was.
    """
    from model.devices import GpuMonitor
    from model.events import MetricsLog
    from model.progress import TrainProgress
    from model.signals import catch_signals

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
