"""After training: scores of the best weights, summary.json, report.html and the export."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import numpy as np

from model.calibration import show_temperature
from model.classifier import Classifier
from model.confidence import share_interval
from model.events import read_events
from model.examination import Examination, adjust_long_tail, check_test, examine
from model.export import export_run
from model.longtail import find_shift
from model.lstm import count_blocks
from model.opened import Run, keep_answers
from model.report import write_report
from model.run import RunPaths
from model.scores import (
    Confusion,
    Scores,
    score,
    surest_mistakes,
    typical_documents,
    worst_confusions,
)
from model.step import Predictions, build_predict
from model.tune_record import count_trials
from model.workers import Workers
from shortline import __version__, printable, write_whole
from tfdata.config import PipelineConfig
from tfdata.device_feed import build_feed
from tfdata.encode import Encoder
from tfdata.plan import Buckets, choose_buckets
from tfdata.shards import ShardSet, read_batches
from tfdata.window import WindowSource

_PREDICT_TOKENS, _PREDICT_DOCS = 32_768, 1024  # most in a batch, fillers included
_MOST_WRONG, _MOST_RIGHT = 8, 6  # documents whose words the report shows
_MOST_CONFUSIONS = 2000  # pairs of classes that the report's map is drawn from


def build_predict_part(
    classifier: Classifier,
    encoder: Encoder,
    shard_set: ShardSet,
    part: str,
    config: PipelineConfig,
) -> Callable[[], Predictions]:
    """`run()`: predictions for each document of a part once, in order, under this strategy."""
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    config = dataclasses.replace(config, batch_tokens=_PREDICT_TOKENS)
    source = WindowSource(
        shard_set, part, encoder, vocab_size=classifier.vocab_size, config=config,
        shuffle_seed=None,
    )  # fmt: skip
    source.share(Workers(strategy))
    buckets = choose_buckets(shard_set.length_counts, encoder.max_len, config)
    most = min(_PREDICT_DOCS, source.num_docs)
    buckets = Buckets(buckets.widths, tuple(min(size, most) for size in buckets.sizes))
    weights = np.ones(classifier.num_classes, np.float32)
    feed = build_feed(source, buckets, seed=None, class_weights=weights, strategy=strategy)
    num_rows = min(buckets.sizes) // strategy.num_replicas_in_sync
    return build_predict(classifier, feed, count_blocks(classifier.route, num_rows))


def finish_run(
    run: Run | None,
    classifier: Classifier,
    encoder: Encoder,
    shard_set: ShardSet,
    config: PipelineConfig,
    predict_valid: Callable[[], Predictions] | None,
    take_over: Callable[[Run | None], tuple[Run | None, dict[str, Any]]],
    facts: dict[str, Any],
) -> None:
    """Writes report.html, export/ and what the run answers with, and summary.json last; tells where
    they are.

    Validation documents score, calibrate and show what has not learned from them; test documents
    score what is kept.

    Args:
      run: as it is to be scored; None of a worker that only takes part in the predictions.
      classifier: the same.
      predict_valid: None: of a classifier that has changed since, or without a validation part.
      take_over: puts what has learned from the validation documents, too, into the classifier, and
        gives the run with it and facts, when they have been scored.
      facts: what the training knows for the summary: times, route, devices.
    """
    counts = shard_set.label_counts
    labels = [*shard_set.labels, *shard_set.unseen_labels]
    part = "valid" if shard_set.num_docs("valid") else "train"
    predict = predict_valid or build_predict_part(classifier, encoder, shard_set, part, config)
    predictions = predict()
    del predict, predict_valid  # they hold the linear classifier
    scores = score(predictions, counts)
    confusions = worst_confusions(predictions, len(counts), most=_MOST_CONFUSIONS)
    summary: dict[str, Any] = {**scores.summary(), "scored_on": part, **facts}
    # a thread of its own has no strategy scope: there, variables would be mirrored
    with ThreadPoolExecutor(1) as outside:
        if run is not None:
            if part == "train":
                print("no validation part: these scores are of the very documents it has learned")
            print(describe_scores(scores, confusions, labels, {"valid": "validation "}.get(part)))
            texts, examined = outside.submit(
                _look_at, run, shard_set, part, predictions, confusions
            ).result()
            run = dataclasses.replace(run, calibration=examined.calibration)
            summary |= examined.summary()
            print(_describe_calibration(examined), flush=True)
        run, taken_over = take_over(run)
        summary |= taken_over
        if shard_set.num_docs("test"):
            predict_test = build_predict_part(classifier, encoder, shard_set, "test", config)
            summary["test"] = score(predict_test(), counts).summary()
        if run is None:
            return
        print("writing the report and the export", flush=True)  # which takes seconds
        if shard_set.num_docs("test") and examined.check is not None:
            found = outside.submit(check_test, run, shard_set).result()
            summary["calibration"]["test"] = found
    summary["counts"] = dict(shard_set.counts)
    summary["versions"] = _versions()
    paths = run.paths
    if (num_trials := count_trials(paths.tune)) > 1:
        summary["tuned"] = num_trials
    write_report(
        paths.report,
        summary=summary,
        events=read_events(paths.metrics),
        scores=scores,
        confusions=confusions,
        examples=texts,
        labels=labels,
        label_counts=counts,
        length_counts=shard_set.length_counts,
        check=examined.check,
        explained=examined.explained,
    )
    export_run(run, paths.export, replace=True)
    keep_answers(run)  # at once after the export, so that the two are of one classifier
    with write_whole(paths.summary) as file:
        json.dump(summary, file, indent=2)
    print(_describe_files(paths, summary))
    print(_describe_end(paths, summary))


def _look_at(
    run: Run, shard_set: ShardSet, part: str, predictions: Predictions,
    confusions: Sequence[Confusion],
) -> tuple[dict[int, str], Examination]:  # fmt: skip
    """Texts that the report shows, by number, and what comes of asking about some of them."""
    surest = surest_mistakes(predictions, confusions, _MOST_WRONG)
    asked = [*surest, *typical_documents(predictions, shard_set.label_counts, _MOST_RIGHT)]
    listed = {doc for confusion in confusions[:20] for doc in confusion.examples}
    texts = _read_texts(shard_set, part, sorted({*listed, *asked}))
    questions = [
        (texts[doc], int(predictions.labels[doc]), int(predictions.predicted[doc])) for doc in asked
    ]
    return texts, examine(run, shard_set, questions)


def rebalance(run: Run, classifier: Classifier, shard_set: ShardSet) -> tuple[Run, dict[str, Any]]:
    """Has rare classes count, as model.longtail tells, in the run and in the classifier, which has
    the best weights; what was done, for the summary."""
    with ThreadPoolExecutor(1) as outside:
        run, found = outside.submit(adjust_long_tail, run, shard_set).result()
    if found is None or not found.power:
        return run, {"long_tail": {"power": 0.0}}
    shift = find_shift(shard_set.label_counts, found.power)
    classifier.dense.bias.value.assign_add(shift)
    (accuracy_before, f1_before), (accuracy, f1) = found.before, found.after
    print(
        f"long tail: logits less {found.power:+.2f} of the log of their class's share, as halves "
        f"of the validation part chose for each other: macro-F1 {f1_before:.4f} → {f1:.4f}, "
        f"accuracy {accuracy_before:.4f} → {accuracy:.4f} (--long-tail none: as trained)"
    )
    return run, {"long_tail": dataclasses.asdict(found)}


def _describe_calibration(examined: Examination) -> str:
    if examined.check is None:
        return "probabilities are not calibrated: that takes a validation part of 100 or more"
    found = examined.check.summary()
    return (
        f"temperature {show_temperature(examined.calibration.temperature)}: calibration error "
        f"{found['ece_before']:.4f} before, {found['ece_after']:.4f} after, on validation "
        f"documents it was not fitted on ({found['ece_by_chance']:.4f} by chance alone)"
    )


def _describe_files(paths: RunPaths, summary: Mapping[str, Any]) -> str:
    lines = [
        f"report   {paths.report}", f"export   {paths.export}", f"summary  {paths.summary}",
        f"predict  python -m model.predict {paths.folder} FILE",
    ]  # fmt: skip
    if "test" in summary:
        test = summary["test"]
        low, high = share_interval(test["accuracy"], test["num_docs"])
        lines.insert(0, f"test: accuracy {test['accuracy']:.4f}, macro-F1 {test['macro_f1']:.4f}; "
                     f"{test['num_docs']:,} documents, 95 % interval of the accuracy {low:.4f} to "
                     f"{high:.4f}")  # fmt: skip
    return "\n".join(lines)


def _describe_end(paths: RunPaths, summary: Mapping[str, Any]) -> str:
    """The last line: JSON, which scripts read, or a sentence where a person does."""
    if sys.stdout.isatty():
        on = {"valid": "validation", "train": "training"}[summary["scored_on"]]
        told = {on: summary} | ({"test": summary["test"]} if "test" in summary else {})
        scores = ", ".join(
            f"{name} accuracy {some['accuracy']:.4f}, macro-F1 {some['macro_f1']:.4f}"
            for name, some in told.items()
        )
        return (
            f"done: {scores}, {summary['docs_per_s']:,.0f} docs/s; the run is in {paths.folder}, "
            f"its report {paths.report}"
        )
    line = {name: summary[name] for name in ("accuracy", "macro_f1", "loss", "docs_per_s")}
    if "test" in summary:
        line |= {f"test_{name}": summary["test"][name] for name in ("accuracy", "macro_f1")}
    return json.dumps(line | {"run": str(paths.folder), "epochs": summary["epochs"]})


def describe_scores(
    scores: Scores, confusions: Sequence[Confusion], labels: Sequence[str], of: str | None = None
) -> str:
    """A few lines for the terminal; labels cannot steer it.

    Args:
      of: which documents they are, in a word and a space.
    """
    lines = [
        f"{scores.num_docs:,} {of or ''}documents: accuracy {scores.accuracy:.4f}, macro-F1 "
        f"{scores.macro_f1:.4f}, weighted F1 {scores.weighted_f1:.4f}, loss {scores.shown_loss}"
    ]
    for name, third in scores.thirds.items():
        lines.append(
            f"  {name:<5} {third['num_classes']:>6,} classes {third['num_docs']:>9,} documents"
            + (
                f"  accuracy {third['accuracy']:.4f}  macro-F1 {third['macro_f1']:.4f}"
                if third["num_docs"]
                else ""
            )
        )
    if scores.num_unseen:
        have = "has a label" if scores.num_unseen == 1 else "have labels"
        num_known = scores.num_docs - scores.num_unseen
        rest = f"the loss is of the {num_known:,} other{'' if num_known == 1 else 's'}"
        lines.append(
            f"  {scores.num_unseen:,} {have} that training lacks: scored as wrong; "
            + (rest if num_known else "--label may name the wrong column")
        )
    for confusion in confusions[:3]:
        label, predicted = (
            printable(labels[number], 40) for number in (confusion.label, confusion.predicted)
        )
        lines.append(f"  {confusion.num_docs:,} x {label} taken for {predicted}")
    return "\n".join(lines)


def _read_texts(shard_set: ShardSet, part: str, docs: Sequence[int]) -> dict[int, str]:
    """The texts of some documents of a part, by number; `docs` ascend."""
    texts: dict[int, str] = {}
    first = 0
    for batch, labels in read_batches(shard_set, part):
        here = docs[bisect_left(docs, first) : bisect_left(docs, first + len(labels))]
        texts |= {doc: batch[doc - first].as_py() for doc in here}
        first += len(labels)
    return texts


def _versions() -> dict[str, str]:
    packages = ("tensorflow", "keras", "numpy", "pyarrow")
    versions = {"shortline": __version__, "python": platform.python_version()}
    return versions | {package: version(package) for package in packages}
