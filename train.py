"""Trains a text classifier: flags → data → network → loop → scores, report and export.

python train.py                                            # a generated corpus
python train.py --data tickets.csv --text body --label team --gpus all
python train.py --resume runs/a
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model.cluster import Cluster, find_cluster
from model.flags import read_flags, settle
from model.startup import StartupClock
from model.state import State
from shortline import EXIT_STOPPED, UserError, import_tensorflow, printable, run_command

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from model.build import Trainer
    from model.devices import Devices, GpuMonitor
    from model.events import MetricsLog
    from model.flags import Flags
    from model.lifeline import Lifeline
    from model.progress import TrainProgress
    from model.refit import Final
    from model.step import ChunkMetrics
    from tfdata.shards import ShardSet

SHOWN_SCORES = ("loss", "accuracy", "macro_f1", "weighted_f1")
_CHUNK_SECONDS = 1.0  # a signal is answered, and the display moves, about this often


def main(argv: Sequence[str] | None = None) -> int:
    clock = StartupClock(from_process=argv is None)
    flags = read_flags(argv)
    cluster = find_cluster()
    import_tensorflow(is_alone=cluster is None)
    from model.checkpoint import find_versions
    from model.failures import tell_memory
    from model.run import RunPaths
    from tfdata.lock import own_temporary

    with tell_memory(), own_temporary():
        try:
            if flags.tune is not None:
                from model.tune import tune

                tuned = tune(flags, cluster)
                if tuned is None:
                    return EXIT_STOPPED
                flags, clock = tuned, StartupClock(from_process=False)
            if cluster is None:
                return train(flags, clock)
            return train_as_worker(flags, clock, cluster)
        except KeyboardInterrupt:  # a resumed run that had not come to its training again
            if flags.resume is None or not find_versions(RunPaths(Path(flags.resume)).last):
                raise
            return stop(flags.resume)


def train_as_worker(flags: Flags, clock: StartupClock, cluster: Cluster) -> int:
    """`train` together with other machines; of the workers, number 0 is the one that speaks."""
    from model.devices import count_gpus
    from model.lifeline import Lifeline

    if flags.pipeline.batch_size == "auto":
        raise UserError("--batch-size auto: only on a single machine; name a number")
    with contextlib.ExitStack() as held:
        if cluster.index:
            silence = held.enter_context(open(os.devnull, "w"))
            held.enter_context(contextlib.redirect_stdout(silence))
        num_gpus = count_gpus(flags.gpus)
        lifeline = Lifeline(cluster, num_gpus, flags.wait_minutes * 60)
        try:
            with lifeline:  # it names the worker by itself
                return train(flags, clock, lifeline)
        except UserError as error:
            raise UserError(f"worker {cluster.index}: {error}") from error


def train(flags: Flags, clock: StartupClock, lifeline: Lifeline | None = None) -> int:
    """All of it, from the data to the report; the exit code."""
    from model.agreement import agree
    from model.build import open_data
    from model.devices import choose_devices
    from model.network import make_deterministic, settle_route
    from model.run import check_free, hold_run
    from model.workers import Workers

    clock.lap("imports")
    is_chief = lifeline is None or lifeline.cluster.index == 0
    if is_chief and flags.resume is None and flags.out is not None:
        check_free(Path(flags.out))  # before the data is read, not after
    devices = choose_devices(flags.gpus, flags.cpu_replicas, lifeline)
    if flags.gpus == "all" and not devices.has_gpu:
        print("no GPU found (TF_CPP_MIN_LOG_LEVEL=0 shows why): training on the CPU")
    if flags.deterministic:
        make_deterministic(devices.has_gpu)
    settle_route(flags.model, devices.has_gpu)  # before the data is read, likewise
    clock.lap("devices")
    with contextlib.ExitStack() as held:
        if is_chief and flags.resume is not None:
            held.enter_context(hold_run(Path(flags.resume)))
        shard_set = open_data(flags)
        flags = settle(flags, shard_set, devices.memory_bytes)
        flags = agree(flags, shard_set, Workers(devices.strategy))
        clock.lap("data")
        assert flags.out is not None  # `settle` filled it in
        if is_chief and flags.resume is None:
            held.enter_context(hold_run(Path(flags.out)))
            check_free(Path(flags.out))
        return train_held(flags, shard_set, devices, clock)


def train_held(flags: Flags, shard_set: ShardSet, devices: Devices, clock: StartupClock) -> int:
    """In a folder that is this process's alone; a new one goes again if nothing came of it."""
    from model.build import build_trainer, settle_batch_size
    from model.checkpoint import find_versions
    from model.lifeline import is_lost
    from model.refit import explain_none, wants_refit
    from model.run import InTheWay, RunPaths, discard_run

    assert flags.out is not None
    paths, state = RunPaths(Path(flags.out)), State()
    folder = printable(flags.out)
    try:
        with devices.strategy.scope():
            if flags.pipeline.batch_size == "auto":  # a resumed run goes on with what was settled
                flags = settle_batch_size(flags, shard_set, devices)
                clock.lap("batch size")
            trainer = build_trainer(flags, shard_set, devices, state, clock)
            with contextlib.closing(trainer.feed):
                is_stopped = run_epochs(trainer, state, devices, clock)
            is_done, final = state.is_done, None
            if flags.scores_only and not is_done:
                raise KeyboardInterrupt  # nothing was saved
            is_done = is_done and (flags.scores_only or not is_stopped)
            if is_done and not flags.scores_only:
                if wants_refit(flags.train.refit, shard_set):
                    is_done, final = train_again(trainer, state.best_epoch, shard_set, devices)
                elif flags.train.refit == "auto":
                    print(explain_none())
                if is_done:
                    finish(trainer, state, shard_set, final)
            trainer.workers.wait()  # all is written
        if devices.lifeline is not None:
            devices.lifeline.part()
        if is_done:
            return 0
        print(f"stopped, and saved; go on with: python train.py --resume {folder}")
    except InTheWay:  # what is in the folder is not of this run
        raise
    except BaseException as error:
        if not find_versions(paths.last):
            is_own, is_over = True, True
            if devices.lifeline is not None:
                is_own = devices.lifeline.cluster.index == 0
                is_over = not (isinstance(error, Exception) and is_lost(error))
            if is_own and is_over and flags.resume is None:
                discard_run(paths)  # nothing in it is of use
            raise
        if not isinstance(error, KeyboardInterrupt):
            raise
        return stop(str(paths.folder))
    return EXIT_STOPPED


def stop(folder: str) -> int:
    """Of a run that has a checkpoint, but was not saved now."""
    folder = printable(folder)
    print(f"stopped; go on from the last checkpoint with: python train.py --resume {folder}")
    return EXIT_STOPPED


def run_epochs(trainer: Trainer, state: State, devices: Devices, clock: StartupClock) -> bool:
    """train chunk → log → evaluate → save, until epochs or patience end or a signal asks to stop.

    Whether it was asked to, if only while the last epoch was evaluated and saved. Either way there
    is a checkpoint; `state.is_done` tells whether any epoch is left.
    """
    from model.devices import GpuMonitor
    from model.events import MetricsLog, SilentLog
    from model.progress import TrainProgress
    from model.signals import catch_signals

    monitor = GpuMonitor(devices.gpus)
    log = SilentLog()
    if trainer.workers.is_chief and not trainer.is_refit:
        log = MetricsLog(trainer.paths.metrics, trainer.paths.tensorboard, state.step)
    done_docs = state.epoch * trainer.docs_per_epoch + state.num_docs
    display = TrainProgress(trainer.num_epochs, trainer.docs_per_epoch, done_docs)
    with catch_signals() as signals, trainer.checkpoints, display, contextlib.closing(log):
        saved_at = time.monotonic()
        while not state.is_done:
            started, window = time.perf_counter(), None
            while window is None and not (signals and trainer.workers.num == 1):
                window = trainer.feed.poll_window(timeout=0.2)
            if clock.is_running:
                display.say(clock.stop("first batch"))
                state.startup_seconds = state.startup_seconds or clock.total
                state.startup = state.startup or clock.seconds
            else:  # waiting for later input is training time
                state.seconds += time.perf_counter() - started
            num_left = window.num_batches if window else 0
            while num_left and not is_to_stop(trainer, state, signals):
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
            if not state.is_done and is_to_stop(trainer, state, signals):
                save(trainer, state)
                break
    return is_to_stop(trainer, state, signals)


def is_to_stop(trainer: Trainer, state: State, signals: list[int]) -> bool:
    """Whether any worker was told to stop; sets all their clocks by worker 0's.

    Workers must run as many steps as one another: the clock decides how many.
    """
    import numpy as np

    asked = trainer.workers.gather(np.array([state.seconds, bool(signals)]))
    state.seconds = float(asked[0][0])
    return any(is_asked for _, is_asked in asked)


def run_chunk(
    trainer: Trainer, state: State, most: int, display: TrainProgress, monitor: GpuMonitor,
    log: MetricsLog,
) -> int:  # fmt: skip
    """Some steps, about a second's, and what is shown and logged of them; returns how many."""
    steps_per_s = state.num_steps / state.seconds if state.num_steps else 4
    num_steps = min(most, trainer.flags.train.steps_per_call)
    num_steps = max(1, min(num_steps, round(steps_per_s * _CHUNK_SECONDS)))
    started = time.perf_counter()
    with trainer.feed.tell_end():
        sums = trainer.train_chunk(state.step, num_steps)
    seconds = time.perf_counter() - started
    if sums.num_bad_steps:
        check_bad_steps(trainer, state, sums, num_steps, display)
    state.add_chunk(sums, num_steps, seconds)
    gpu = monitor.read()
    values = {"accuracy": sums.num_correct / sums.num_docs, "docs_per_s": sums.num_docs / seconds}
    if sums.num_loss_docs:  # JSON has no NaN
        values = {"loss": sums.mean_loss, **values}
    values |= gpu
    log.log("train", state.step, values)
    display.advance(
        state.epoch, sums.num_docs, state.num_docs / state.seconds, state.mean_loss,
        state.num_correct / state.num_docs, gpu,
    )  # fmt: skip
    return num_steps


def check_bad_steps(
    trainer: Trainer, state: State, sums: ChunkMetrics, num_steps: int, display: TrainProgress
) -> None:
    """Stops at a loss that is not finite, or says how many updates --skip-nonfinite left out."""
    from model.failures import describe_bad_step

    first = state.step + sums.num_good_steps
    if not trainer.flags.train.skip_nonfinite:
        rows = trainer.locate((state.epoch, state.window, state.batch + sums.num_good_steps))
        raise UserError(describe_bad_step(first, state.epoch, rows))
    display.say(
        f"skipped {sums.num_bad_steps} of the steps {state.step} to {state.step + num_steps - 1}, "
        f"the first of them {first}: loss or gradient not finite (--skip-nonfinite)"
    )


def end_epoch(trainer: Trainer, state: State, display: TrainProgress, log: MetricsLog) -> None:
    """Evaluates, keeps the best weights, decides on going on, saves, and begins the next epoch."""
    from model.scores import score

    if state.skipped == state.num_steps:
        raise UserError(
            f"every step of epoch {state.epoch + 1} was skipped, its loss or gradient not finite; "
            "what was saved before is kept; try a smaller --learning-rate or --precision float32"
        )
    patience = trainer.flags.train.patience
    trainer.optimizer.catch_up(state.step)
    state.add_epoch()
    values = {
        "epoch": state.epoch,
        "loss": state.mean_loss,
        "accuracy": state.num_correct / state.num_docs,
        "seconds": state.seconds,
        "docs_per_s": state.num_docs / state.seconds,
        "skipped_steps": state.skipped,
    }
    line = (
        f"epoch {state.epoch}/{trainer.num_epochs}  loss {values['loss']:.4f}  accuracy "
        f"{values['accuracy']:.4f}  {values['docs_per_s']:,.0f} docs/s  {state.seconds:.1f} s"
    )
    is_best = gains = True
    if trainer.predict_valid is not None:
        scores = score(trainer.predict_valid(), trainer.label_counts)
        gains = scores.mean > state.best_score
        # where all is right early, probabilities go on getting better
        is_best = gains or (scores.mean == state.best_score and scores.loss < state.best_loss)
        shown = scores.summary()  # without a loss, where training knows no label of them
        values |= {f"valid_{name}": shown[name] for name in SHOWN_SCORES if shown[name] is not None}
        values["best"] = is_best
        line += (
            f"  |  validation loss {scores.shown_loss}  accuracy {scores.accuracy:.4f}  "
            f"macro-F1 {scores.macro_f1:.4f}{'  best' if is_best else ''}"
        )
        if is_best:
            state.best_score, state.best_loss = scores.mean, scores.loss
    log.log("epoch", state.step, values)
    display.say(line)
    state.epochs_without_gain = 0 if gains else state.epochs_without_gain + 1
    state.best_epoch = state.epoch if is_best else state.best_epoch
    tired = patience and state.epochs_without_gain >= patience
    state.is_done = bool(tired) or state.epoch >= trainer.num_epochs
    if tired and state.epoch < trainer.num_epochs:
        display.say(
            f"stopping early: no better accuracy and macro-F1 for {patience} epochs (--patience)"
        )
    state.begin_epoch()
    save(trainer, state, is_best)


def save(trainer: Trainer, state: State, is_best: bool = False) -> None:
    """Begins to write the last checkpoint, and the best if it is that too."""
    paths = trainer.paths
    if not trainer.workers.is_chief or trainer.flags.scores_only:
        return
    saved = {**dataclasses.asdict(state), "origin": trainer.origin}
    if trainer.is_refit:
        written = (paths.refit,)
    else:
        written = (paths.best, paths.last) if is_best else (paths.last,)
    trainer.checkpoints.save(written, trainer.variables, saved)


def train_again(
    trainer: Trainer, num_epochs: int, shard_set: ShardSet, devices: Devices
) -> tuple[bool, Final | None]:  # fmt: skip
    """Another network, with the validation documents, too (model.refit).

    Whether it came to its end, and, for the chief, what came of it.
    """
    from model.build import build_trainer, collect_origin
    from model.failures import tell_refit
    from model.refit import keep_final, read_final

    workers, paths, flags = trainer.workers, trainer.paths, trainer.flags
    shard_set = shard_set.join_valid()
    final = None
    if workers.is_chief:
        final = read_final(paths, num_epochs, collect_origin(flags, shard_set, devices))
    if workers.gather_values(final is not None)[0]:
        return True, final
    print(
        f"training another network, on the {shard_set.num_docs('train'):,} documents of training "
        f"and validation part, for the best number of epochs, {num_epochs} (--refit none: without)"
    )
    del trainer.feed, trainer.train_chunk, trainer.optimizer, trainer.variables  # their memory
    state, clock = State(), StartupClock(from_process=False)
    with tell_refit(paths.folder):
        again = build_trainer(flags, shard_set, devices, state, clock, refit_epochs=num_epochs)
        with contextlib.closing(again.feed):
            is_stopped = run_epochs(again, state, devices, clock)
    if state.is_done and workers.is_chief:
        final = keep_final(paths, again.classifier, state, again.origin)
    return state.is_done and not is_stopped, final


def finish(trainer: Trainer, state: State, shard_set: ShardSet, final: Final | None) -> None:
    """Scores, report and export of the best weights, and the summary last: then all is there.

    Args:
      final: of `train_again`.
    """
    from model.checkpoint import load_best, restore
    from model.finish import finish_run, rebalance
    from model.linear_stage import LinearStage
    from model.opened import open_run
    from model.refit import take_over, wants_refit
    from model.run import drop_refit

    classifier, workers, training = trainer.classifier, trainer.workers, trainer.flags.train
    weights, pipeline = classifier.state_by_name, trainer.flags.pipeline
    run, changes = None, {}
    may_refit = wants_refit(training.refit, shard_set)
    linear = LinearStage(
        classifier, workers, shard_set, pipeline, training.seed,
        may_refit=may_refit, weighs_rare=training.long_tail == "auto",
    )  # fmt: skip
    if workers.is_chief:
        drop_refit(trainer.paths)
        arrays, _ = load_best(trainer.paths.best)
        restore(weights, arrays, trainer.paths.best)
        run = open_run(trainer.paths.folder, is_finished=False)
        if training.linear == "auto":
            run, changes = linear.add(run)
        if training.long_tail == "auto":
            run, adjusted = rebalance(run, classifier, shard_set)
            changes |= adjusted
    workers.set_as_chief(weights)
    has_linear = linear.attach(run)
    steady = state.epoch_seconds[1:] or state.epoch_seconds
    facts = trainer.facts | {
        "best_epoch": state.best_epoch,
        "epochs": state.epoch,
        "steps": state.step,
        "skipped_steps": state.num_skipped,
        "epoch_seconds": state.epoch_seconds,
        "docs_per_s": trainer.docs_per_epoch * len(steady) / sum(steady),
        "startup_seconds": state.startup_seconds,
        "startup": {phase: round(seconds, 3) for phase, seconds in state.startup.items()},
        "padding_fraction": state.padding_fraction,
        **changes,
    }
    finish_run(
        run, classifier, trainer.encoder, shard_set, pipeline,
        None if has_linear else trainer.predict_valid,
        lambda run: take_over(run, classifier, workers, final, linear), facts,
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main)
