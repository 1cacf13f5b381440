"""After the network's training: the linear classifier that is to answer along with it."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled  # not public as yet

from model.calibration import Calibration, read_calibration
from model.classifier import Classifier
from model.examination import ask
from model.infer import build_infer
from model.linear import LinearPath, from_arrays, read_linear, to_arrays, write_linear
from model.linear_fit import choose_num_pairs, fit_linear
from model.mixture import LEAST_DOCS, Mixture, choose_weight
from model.opened import open_run
from model.run import RunPaths
from model.workers import Workers
from tfdata.config import PipelineConfig
from tfdata.shards import ShardSet
from tfdata.window import WindowSource


def add_linear(
    paths: RunPaths, shard_set: ShardSet, config: PipelineConfig, seed: int
) -> dict[str, Any]:
    """Trains it on the training part and writes it to the run, as far as it helps; what came of it,
    for the summary.

    It may be called under a strategy's scope.
    """
    if shard_set.num_docs("valid") < LEAST_DOCS or len(shard_set.labels) < 2:
        return {}
    started, is_stopped = time.perf_counter(), threading.Event()
    # a thread of its own has no strategy scope: there, variables would be mirrored
    with ThreadPoolExecutor(1) as outside:
        future = outside.submit(_fit, paths, shard_set, config, seed, is_stopped)
        try:
            found = future.result()
        except BaseException:
            is_stopped.set()
            raise
    if found is None or not found.weight:  # one of a finish before stays until here
        remove_linear(paths)
    if found is None:
        return {}
    seconds = time.perf_counter() - started
    print(_describe(found, seconds), flush=True)
    return {"linear": dataclasses.asdict(found) | {"seconds": round(seconds, 3)}}


def remove_linear(paths: RunPaths) -> None:
    """Of a finish before; and what was calibrated with it, which the finish makes anew."""
    if paths.linear.exists() or read_calibration(paths.calibration).has_linear:
        paths.calibration.unlink(missing_ok=True)
        paths.linear.unlink(missing_ok=True)


def _fit(
    paths: RunPaths, shard_set: ShardSet, config: PipelineConfig, seed: int,
    is_stopped: threading.Event,
) -> Mixture | None:  # fmt: skip
    run = open_run(paths.folder, is_calibrated=False, has_linear=False)
    residency = "stream" if config.residency == "stream" else "host"
    source = WindowSource(
        shard_set, "train", run.build_encoder(), vocab_size=len(run.vocabulary),
        config=dataclasses.replace(config, residency=residency), shuffle_seed=None,
    )  # fmt: skip
    num_tokens = int(shard_set.length_counts @ np.arange(len(shard_set.length_counts)))
    with tf.device("CPU:0") if is_op_determinism_enabled() else contextlib.nullcontext():
        linear = fit_linear(
            source, len(run.vocabulary), len(run.labels), num_pairs=choose_num_pairs(num_tokens),
            seed=seed, is_stopped=is_stopped,
        )  # fmt: skip
    if linear is None:
        return None
    has_gpu = bool(tf.config.list_logical_devices("GPU"))
    logits, labels = ask(build_infer(run, has_gpu), run, shard_set, "valid")
    both = dataclasses.replace(run, linear=linear, calibration=Calibration())
    mixed, _ = ask(build_infer(both, has_gpu), both, shard_set, "valid")
    found = choose_weight(logits, mixed - logits, labels)
    if found is not None and found.weight and not is_stopped.is_set():
        write_linear(paths.linear, linear.scaled(found.weight))
    return found


def _describe(found: Mixture, seconds: float) -> str:
    alone, (accuracy_before, f1_before), (accuracy, f1) = found.alone, found.before, found.after
    what = f"linear classifier, {seconds:.1f} s: accuracy {alone[0]:.4f}, macro-F1 {alone[1]:.4f}; "
    if not found.weight:
        return f"{what}it does not better the network's {accuracy_before:.4f}, {f1_before:.4f}"
    return (
        f"{what}added to the network's logits {found.weight:g} times, as halves of the validation "
        f"part chose for each other: accuracy {accuracy_before:.4f} → {accuracy:.4f}, macro-F1 "
        f"{f1_before:.4f} → {f1:.4f} (--linear none: the network alone)"
    )


def attach_linear(paths: RunPaths, classifier: Classifier, workers: Workers) -> bool:
    """Gives the classifier what the chief has written, if it has; whether it had.

    All workers call it, under the strategy's scope.
    """
    found = None
    if workers.is_chief:
        found = read_linear(paths.linear, classifier.num_classes, classifier.vocab_size)
    arrays = workers.take_chiefs(None if found is None else to_arrays(found))
    if arrays is None:
        return False
    classifier.linear = LinearPath(from_arrays(arrays))
    return True
