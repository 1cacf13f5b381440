"""report.html: what a run learned and how fast, as one file that opens offline.

Labels and texts come from the data and may be hostile: page.py makes them harmless. Legend: C
classes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from model import plots
from model.calibration import CalibrationCheck, show_temperature
from model.confidence import share_interval
from model.findings import findings_section
from model.notes import note_data, note_scores
from model.page import build_page, bullet_list, escape, format_number, section, side_by_side, table
from model.report_probabilities import probabilities_section
from model.report_words import Explained, words_section
from model.scores import Confusion, Scores
from shortline import describe_value, write_whole

_MOST_CLASSES = 200  # rows of the table of classes
_MOST_UNFOLDED = 20  # rows at which that table is still open
_MOST_CONFUSIONS = 20  # rows of the table of confusions
_MAP_ALL, _MAP_SOME = 60, 40  # classes up to which the map shows all, and how many else


def write_report(
    path: str | os.PathLike[str],
    *,
    summary: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    scores: Scores,
    confusions: Sequence[Confusion],
    examples: Mapping[int, str],
    labels: Sequence[str],
    label_counts: np.ndarray,
    length_counts: np.ndarray,
    check: CalibrationCheck | None = None,
    explained: Sequence[Explained] = (),
) -> None:
    """Writes the page, whole or not at all.

    Args:
      summary: as summary.json has it.
      events: of metrics.jsonl, in order.
      confusions: pairs of classes, those with the most documents first; the more, the fuller map.
      examples: texts of documents that the confusions name.
      labels: of the C classes, then those that training lacks.
      label_counts: int64[C], training documents of each class.
      length_counts: int64[n], training documents by number of tokens, before truncation.
      check: how honest the probabilities are; None where that is not known.
      explained: documents whose words are shown.
    """
    name = Path(path).absolute().parent.name
    notes = note_scores(summary, events, scores) + note_data(summary, length_counts)
    sections = [
        _header(name, summary, scores),
        _cards(summary, scores, label_counts),
        bullet_list(notes),
        findings_section(summary),
        _learning(events),
        _classes(scores, labels, label_counts),
        _confusions(scores, confusions, examples, labels),
        words_section(explained),
        probabilities_section(summary, check),
        _speed(summary, events, length_counts),
        _facts(summary),
    ]
    with write_whole(path) as file:
        file.write(build_page(name, sections))


def _header(name: str, summary: Mapping[str, Any], scores: Scores) -> str:
    named = {
        "device": "",
        "route": "LSTM route ",
        "precision": "",
        "preset": "preset ",
        "seed": "seed ",
    }
    setting = [before + str(summary[key]) for key, before in named.items() if key in summary]
    part = "training" if summary.get("scored_on") == "train" else "validation"
    return (
        f"<header><h1>{escape(name, 80)}</h1><p>{escape(' · '.join(setting))}</p>"
        f"<p>Scores on the {scores.num_docs:,} {part} documents.</p></header>"
    )


def _cards(summary: Mapping[str, Any], scores: Scores, label_counts: np.ndarray) -> str:
    low, high = share_interval(scores.accuracy, scores.num_docs)
    biggest = scores.support[np.argmax(label_counts)] / max(1, scores.num_docs)
    seconds = list(summary.get("epoch_seconds", [])) or [0.0]
    cards = [
        ("accuracy", f"{scores.accuracy:.1%}", f"95 % interval {low:.1%} to {high:.1%}"),
        ("macro-F1", f"{scores.macro_f1:.3f}", f"weighted F1 {scores.weighted_f1:.3f}"),
        ("biggest class alone", f"{biggest:.1%}", "accuracy of always answering it"),
        ("training documents", format_number(summary.get("num_train")),
         f"and {format_number(summary.get('num_valid'))} for validation"),
        ("classes", format_number(len(label_counts)),
         f"of {label_counts.max():,} to {label_counts.min():,} documents"),
        ("best epoch", format_number(summary.get("best_epoch")),
         f"of {summary.get('epochs', len(seconds))}"),
        ("documents per second", format_number(summary.get("docs_per_s")),
         "training, after the first epoch" if len(seconds) > 1 else "training, the only epoch"),
        ("seconds an epoch", f"{median(seconds[1:] or seconds):,.1f}",
         f"first {seconds[0]:,.1f}, start-up {format_number(summary.get('startup_seconds'))}"),
    ]  # fmt: skip
    if "calibration" in summary:
        error = summary["calibration"]["ece_after"]
        about = f"temperature {show_temperature(summary['temperature'])}"
        cards.insert(3, ("calibration error", f"{error:.3f}", about))
    if summary.get("linear", {}).get("weight"):
        linear = summary["linear"]
        about = f"alone {linear['alone'][0]:.1%} right, the network alone {linear['before'][0]:.1%}"
        cards.insert(4, ("linear classifier", f"× {linear['weight']:g}", about))
    if "refit" in summary:
        refit = summary["refit"]
        about = f"epochs in {refit['seconds']:,.0f} s, validation documents among its own"
        cards.insert(4, ("another network", f"{refit['epochs']}", about))
    if "test" in summary:
        test = summary["test"]
        low, high = share_interval(test["accuracy"], test["num_docs"])
        about = (
            f"95 % interval {low:.1%} to {high:.1%}, {test['num_docs']:,} documents; macro-F1 "
            f"{test['macro_f1']:.3f}"
        )
        cards.insert(2, ("test accuracy", f"{test['accuracy']:.1%}", about))
    boxes = (
        f'<div class="card"><dt>{escape(title)}</dt><dd>{escape(value)}</dd>'
        f'<dd class="small">{escape(small)}</dd></div>'
        for title, value, small in cards
    )
    return f'<dl class="cards">{"".join(boxes)}</dl>'


def _learning(events: Sequence[Mapping[str, Any]]) -> str:
    return section(
        "Learning",
        side_by_side(plots.plot_loss(events), plots.plot_accuracy(events)),
        "Faint: training, step by step. Training figures are means over an epoch, with dropout and "
        "while the weights still change, so those of validation can be better.",
    )


def _classes(scores: Scores, labels: Sequence[str], label_counts: np.ndarray) -> str:
    thirds = table(
        ("third", "classes", "documents", "accuracy", "macro-F1"),
        [
            (name, third["num_classes"], third["num_docs"],
             *(third[key] if third["num_docs"] else None for key in ("accuracy", "macro_f1")))
            for name, third in scores.thirds.items()
        ],
    )  # fmt: skip
    thirds += "<p>The classes, ordered by training documents, in three parts of equal number.</p>"
    scored = np.flatnonzero(scores.support + scores.predicted > 0)
    # of equal F1, the class with more documents to gain comes first
    order = scored[np.lexsort((-scores.support[scored], scores.f1[scored]))]
    rows = [
        (labels[c], int(label_counts[c]), int(scores.support[c]),
         *(float(figure[c]) for figure in (scores.precision, scores.recall, scores.f1)))
        for c in order[:_MOST_CLASSES]
    ]  # fmt: skip
    titles = ("label", "training documents", "scored documents", "precision", "recall", "F1")
    left_out = len(label_counts) - len(rows)
    which = f"{len(rows):,} of {len(label_counts):,}" if left_out else f"all {len(rows):,}"
    more = ""
    if left_out:
        more = (
            f"<p>{left_out:,} more classes, better or without scored documents, are left out.</p>"
        )
    fold = (
        f"<details{' open' if len(rows) <= _MOST_UNFOLDED else ''}><summary>Classes, lowest F1 "
        f"first ({which})</summary>{table(titles, rows)}{more}</details>"
    )
    f1 = plots.plot_class_f1(label_counts, scores.f1, scores.support)
    return section("Classes", side_by_side(f1, f"<div>{thirds}</div>") + fold)


def _confusions(
    scores: Scores,
    confusions: Sequence[Confusion],
    examples: Mapping[int, str],
    labels: Sequence[str],
) -> str:
    if not confusions:
        return section("Confusions", "<p>No document was taken for another class.</p>")
    wrong = max(1, round(scores.num_docs * (1 - scores.accuracy)))
    listed = sum(confusion.num_docs for confusion in confusions)
    rows = [
        (labels[confusion.label], labels[confusion.predicted], confusion.num_docs,
         confusion.num_docs / wrong,
         [examples[doc] for doc in confusion.examples if doc in examples])
        for confusion in confusions[:_MOST_CONFUSIONS]
    ]  # fmt: skip
    titles = ("label", "taken for", "documents", "share of mistakes", "the surest mistakes")
    about = f"{wrong:,} of {scores.num_docs:,} documents are wrong."
    if listed < wrong:
        about += (
            f" Shown are the {len(confusions):,} most frequent pairs of label and answer, which "
            f"hold {listed / wrong:.0%} of the mistakes."
        )
    return section("Confusions", _map(scores, confusions, labels) + table(titles, rows), about)


def _map(scores: Scores, confusions: Sequence[Confusion], labels: Sequence[str]) -> str:
    num_classes = len(scores.support)
    missed: Counter[int] = Counter()  # documents of a class that were taken for another
    taken: Counter[int] = Counter()
    for confusion in confusions:
        missed[confusion.label] += confusion.num_docs
        taken[confusion.predicted] += confusion.num_docs
    shown = sorted({*np.flatnonzero(scores.support).tolist(), *missed, *taken})
    which = "all scored classes"
    if len(shown) > _MAP_ALL:
        shown = sorted(number for number, _ in (missed + taken).most_common(_MAP_SOME))
        which = f"the {len(shown)} classes with the most of these mistakes"
    place = {number: at for at, number in enumerate(shown)}
    hits = np.rint(scores.recall * scores.support).astype(int)
    cells = {(at, at): int(hits[c]) for c, at in place.items() if c < num_classes and hits[c]}
    for confusion in confusions:
        if confusion.label in place and confusion.predicted in place:
            cells[place[confusion.label], place[confusion.predicted]] = confusion.num_docs
    totals = [int(scores.support[c]) if c < num_classes else missed[c] for c in shown]
    drawn = plots.draw_confusions([labels[number] for number in shown], cells, totals)
    return (
        f"<figure>{drawn}<figcaption>Rows: labels, {which}, the biggest first. Columns: the "
        "answers. The fuller the colour, the larger the share of the row; pointing at a cell "
        "tells its figures.</figcaption></figure>"
    )


def _speed(
    summary: Mapping[str, Any], events: Sequence[Mapping[str, Any]], length_counts: np.ndarray
) -> str:
    widths, sizes = summary.get("bucket_widths", ()), summary.get("batch_sizes", ())
    about = ""
    if "padding_fraction" in summary:
        about = f"{summary['padding_fraction']:.1%} of the token places are padding."
    body = side_by_side(plots.plot_throughput(events), plots.plot_lengths(length_counts, widths))
    if widths:
        ends = [0, *(width + 1 for width in widths[:-1]), len(length_counts)]
        docs = np.diff(np.append(0, np.cumsum(length_counts))[np.minimum(ends, len(length_counts))])
        titles = ("bucket: tokens", "documents a batch", "training documents")
        body += table(titles, list(zip(widths, sizes, docs.tolist(), strict=True)))
    return section("Speed and lengths", body, about)


def _facts(summary: Mapping[str, Any]) -> str:
    keys = ("device", "num_replicas", "route", "precision", "preset", "seed", "residency", "steps",
            "epochs", "startup_seconds", "loss")  # fmt: skip
    facts = [(key.replace("_", " "), _plain(summary[key])) for key in keys if key in summary]
    versions = [(name, str(number)) for name, number in summary.get("versions", {}).items()]
    return section(
        "Run", side_by_side(table(("run", ""), facts), table(("versions", ""), versions))
    )


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else describe_value(value)
