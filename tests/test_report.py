"""The report shows the scores, and nothing that the data holds gets out of its place."""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from model.attribution import Attribution
from model.calibration import calibrate
from model.page import escape, shorten
from model.plots import plot_class_f1
from model.report import write_report
from model.report_words import Explained
from model.scores import score, worst_confusions
from model.step import Predictions

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></svg><iframe src=https://evil.example>",
    "$\\frac$ $x",
    "=cmd()",
    "nul\x00 esc\x1b[2J",
    "\u202egnirts \u2066deloops",
    "two\nlines\r\tand {braces} %s &amp; &lt;b&gt;",
    "長い名前 שלום 😀 \udc80",
    "",
    "x" * 5000,
)


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text outside of tags."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.cells: list[list[str]] = []
        self._inside: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self._inside:
            self.text += data
        if "td" in self._inside or "th" in self._inside:
            self.cells[-1][-1] += data


def _write(tmp_path, labels, predicted, names, *, num_epochs=3, has_valid=True, **changes):
    """A report on documents of these labels and predictions; `names` of all classes."""
    labels, predicted = np.asarray(labels, np.int32), np.asarray(predicted, np.int32)
    num_classes = int(changes.pop("num_classes", len(names)))
    num_docs = len(labels)
    probabilities = np.linspace(0.5, 1, num_docs, dtype=np.float32)
    counts = np.maximum(1, 4096 // np.arange(1, num_classes + 1))
    scores = score(Predictions(labels, predicted, probabilities, probabilities), counts)
    confusions = worst_confusions(
        Predictions(labels, predicted, probabilities, probabilities), num_classes
    )
    events = []
    for epoch in range(1, num_epochs + 1):
        for step in range(10 * epoch - 9, 10 * epoch + 1):
            events.append({"event": "train", "step": step, "loss": 1 / step, "accuracy": 0.5,
                           "docs_per_s": 1000.0 + step})  # fmt: skip
        values = {"epoch": epoch, "loss": 0.5, "accuracy": 0.99, "seconds": 2.5, "docs_per_s": 1e3}
        if has_valid:
            values |= {"valid_loss": 0.6, "valid_accuracy": 0.7, "valid_macro_f1": 0.4,
                       "valid_weighted_f1": 0.6}  # fmt: skip
        events.append({"event": "epoch", "step": 10 * epoch, **values})
    summary = {
        **scores.summary(), "scored_on": "valid" if has_valid else "train",
        "num_train": 12_345, "num_valid": num_docs if has_valid else 0, "num_classes": num_classes,
        "route": "block", "precision": "float32", "device": "CPU", "num_replicas": 1,
        "residency": "host", "seed": 7, "preset": "default", "bucket_widths": (4, 8),
        "batch_sizes": (64, 32), "best_epoch": num_epochs, "epochs": num_epochs,
        "steps": 10 * num_epochs, "epoch_seconds": [2.5] * num_epochs, "docs_per_s": 98_765.4,
        "startup_seconds": 3.0, "padding_fraction": 0.123, "counts": {}, "versions": {"numpy": "2"},
    }  # fmt: skip
    arguments = {
        "summary": summary | changes.pop("summary", {}), "events": events, "scores": scores,
        "confusions": confusions, "labels": names, "label_counts": counts,
        "examples": {doc: f"text {doc}" for c in confusions for doc in c.examples},
        "length_counts": np.array([1, 5, 9, 7, 3, 2, 1, 1, 1, 4, 6]),
    } | changes  # fmt: skip
    path = tmp_path / "report.html"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(path, **arguments)
    source = path.read_text("utf-8")
    return source, Page(source), scores


def _assert_harmless(source: str, page: Page) -> None:
    allowed = (
        "html head meta title style body header section h1 h2 p dl dt dd div ul li figure "
        "figcaption h3 h4 mark table thead tbody tr th td bdi details summary svg g defs path use "
        "rect text clippath image"
    )
    assert {tag for tag, _ in page.tags} <= set(allowed.split())
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "xlink:href", "src", "action", "poster", "srcset", "formaction"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
        for target in re.findall(r"url\(([^)]*)\)", " ".join(attributes.values())):
            assert target.startswith("#")
    style = re.findall(r"<style>(.*?)</style>", source, re.S)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", source)
    policy = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    assert policy == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    ]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_hostile_labels_and_texts_stay_text(tmp_path):
    n = len(HOSTILE)
    labels = np.tile(np.arange(n + 1), 30)
    predicted = np.where(np.arange(len(labels)) % 3, labels, labels + 1) % n
    names = [*HOSTILE, "<b>unseen</b>"]
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    source, page, _ = _write(
        folder, labels, predicted, names, num_classes=n,
        examples={doc: HOSTILE[doc % n] for doc in range(len(labels))},
        summary={"device": "<b>GPU", "versions": {"<i>": "<u>"}, "counts": {"duplicates": 7}},
    )  # fmt: skip
    _assert_harmless(source, page)
    assert "<script>alert(1)</script>" in page.text
    assert '"><img src=x onerror=alert(1)>' in page.text
    assert "$\\frac$ $x" in page.text
    assert "=cmd()" in page.text
    assert "nul\\x00 esc\\x1b[2J" in page.text
    assert "\\u202egnirts" in page.text
    assert "two\\nlines" in page.text
    assert "長い名前" in page.text
    assert "<b>unseen</b>" in page.text
    assert "labels that training lacks" in page.text
    assert "x" * 300 not in source


def _explain(text, label, predicted, other=None):
    """The characters of the text as words, the odd ones against the class."""
    spans = [(at, at + 1) for at in range(len(text))]
    weights = np.array([(-1) ** at * at / 2 for at in range(len(text))], np.float32)
    found = Attribution(text, 0, spans, weights)
    by_label = Attribution(text, 1, spans, -weights) if other else None
    return Explained(label, predicted, 0.75, found, by_label)


def test_shows_the_words_that_decided(tmp_path):
    explained = [_explain("abc", "no", "yes", other=True), _explain("de", "yes", "yes"),
                 _explain("", "new", "yes")]  # fmt: skip
    source, page, _ = _write(tmp_path, [0, 1], [0, 1], ["no", "yes"], explained=explained)
    _assert_harmless(source, page)
    marks = [(a["class"], a["style"], a["title"]) for tag, a in page.tags if tag == "mark"]
    assert marks[:3] == [
        ("against", "--weight:0.00", "+0.00"), ("against", "--weight:0.50", "-0.50"),
        ("for", "--weight:1.00", "+1.00"),
    ]  # fmt: skip
    assert [kind for kind, _, _ in marks[3:6]] == ["against", "for", "against"]
    assert len(marks) == 8
    for shown in (
        "taken for yes (75.0%)", "its label: no", "yes (75.0%)", "(empty)", "Surest mistakes",
        "its label new is none of training", "Typical right",
    ):  # fmt: skip
        assert shown in page.text
    _, page, _ = _write(tmp_path, [0, 1], [0, 1], ["no", "yes"])
    assert "Words that decided" not in page.text


def test_the_surest_mistakes_come_first(tmp_path):
    explained = [
        dataclasses.replace(_explain("ab", "no", "yes"), probability=share)
        for share in (0.25, 0.97, 0.5)
    ]
    _, page, _ = _write(tmp_path, [0, 1], [0, 1], ["no", "yes"], explained=explained)
    assert re.findall(r"taken for yes \((\S+)%\)", page.text) == ["97.0", "50.0", "25.0"]


def test_hostile_words_stay_text(tmp_path):
    pairs = enumerate(itertools.pairwise(HOSTILE))
    explained = [_explain(text, label, "x", other=n % 2) for n, (text, label) in pairs]
    for text in HOSTILE:
        whole = Attribution(text, 0, [(0, len(text))], np.ones(1, np.float32))
        explained.append(Explained("a", "a", 0.5, whole, None))
    source, page, _ = _write(tmp_path, [0, 1], [0, 1], ["a", "b"], explained=explained)
    _assert_harmless(source, page)
    assert "<script>alert(1)</script>" in page.text
    assert "x" * 700 not in source
    assert len(source) < 500_000


def test_shows_how_honest_the_probabilities_are(tmp_path):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (900, 3)).astype(np.float32)
    labels = (logits / 3 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    found = calibrate(logits, labels)
    assert found is not None
    temperature, check = found
    figures = check.summary()
    test = {"num_docs": 77, "ece_before": 0.321, "ece_after": 0.123, "ece_by_chance": 0.045}
    summary = {"temperature": temperature, "calibration": {**figures, "test": test}}
    source, page, _ = _write(
        tmp_path, [0, 1], [0, 1], ["a", "b"], check=check, summary=summary
    )  # fmt: skip
    _assert_harmless(source, page)
    assert f"temperature of {temperature:.3f}" in page.text
    errors = [f"{figures[key]:.3f}" for key in ("ece_before", "ece_after", "ece_by_chance")]
    assert ["validation", "900", *errors] in page.cells
    assert ["test", "77", "0.321", "0.123", "0.045"] in page.cells
    half = [row for row in page.cells if row[:2] == ["–", "0.500"]]
    kept = check.after >= 0.5
    assert half == [["–", "0.500", f"{kept.mean():.3f}", f"{check.right[kept].mean():.3f}",
                     str(kept.sum())]]  # fmt: skip
    assert source.count('class="plot"') == 7
    assert "off by more than chance" not in page.text
    same = {"temperature": 1.0, "calibration": {**figures, "ece_after": 0.3}}
    _, page, _ = _write(tmp_path, [0, 1], [0, 1], ["a", "b"], check=check, summary=same)
    assert "so nothing is scaled" in page.text
    assert "off by more than chance" in page.text
    _, page, _ = _write(tmp_path, [0, 1], [0, 1], ["a", "b"])
    assert "takes a validation part of 100" in page.text


def test_shows_the_scores(tmp_path):
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    predicted = np.array([0] * 55 + [1] * 5 + [1] * 30 + [0] * 4 + [2] * 6)
    source, page, scores = _write(tmp_path, labels, predicted, ["apple", "bread", "cheese"])
    _assert_harmless(source, page)
    assert scores.accuracy == 0.91
    for shown in ("91.0%", f"{scores.macro_f1:.3f}", "60.0%", "12,345", "98,765", "12.3%"):
        assert shown in page.text
    cells = [row for row in page.cells if row[0] == "cheese" and len(row) == 6]
    assert cells == [["cheese", "1,365", "10", "1.000", "0.600", "0.750"]]
    mistakes = [row for row in page.cells if len(row) == 5 and row[0] == "apple"]
    assert mistakes[0][:4] == ["apple", "bread", "5", "0.556"]
    assert "text 59" in mistakes[0][4]
    assert "55 of 60 (91.7%) of apple are right" in page.text
    assert "5 of 60 (8.3%) of apple taken for bread" in page.text
    assert "validation 70.0%: the network learns" in page.text


def test_lengths_fall_into_their_buckets(tmp_path):
    _, page, _ = _write(tmp_path, [0, 1], [0, 1], ["a", "b"])
    assert [row for row in page.cells if row[0] in "48"] == [["4", "64", "25"], ["8", "32", "15"]]
    assert "10 training documents (25.00%) are cut to 8 tokens." in page.text


@pytest.mark.parametrize("has_valid", [True, False])
@pytest.mark.parametrize("num_epochs", [1, 3])
def test_two_classes(tmp_path, num_epochs, has_valid):
    source, page, _ = _write(
        tmp_path, [0, 1, 1, 0], [0, 1, 0, 0], ["no", "yes"],
        num_epochs=num_epochs, has_valid=has_valid,
    )  # fmt: skip
    _assert_harmless(source, page)
    assert ("no validation part" in page.text) is not has_valid
    assert ("documents also chose the best epoch" in page.text) is has_valid
    assert "validation macro-F1" in page.text if has_valid else True
    assert "nan" not in source.lower().replace("font-variant", "")


def test_many_classes_stay_small_and_say_what_is_left_out(tmp_path):
    rng = np.random.default_rng(1)
    labels = np.minimum(rng.zipf(1.3, 20_000) - 1, 1399)
    predicted = np.where(rng.random(20_000) < 0.7, labels, rng.integers(0, 1400, 20_000))
    names = [f"class <{number}>" + "é" * 500 for number in range(1400)]
    source, page, scores = _write(tmp_path, labels, predicted, names)
    _assert_harmless(source, page)
    assert len(source) < 1_000_000
    rows = [row for row in page.cells if len(row) == 6][1:]
    assert len(rows) == 200
    f1 = [float(row[5]) for row in rows]
    assert f1 == sorted(f1)
    assert f1[-1] < np.median(scores.f1)
    assert "1,200 more classes, better or without scored documents, are left out" in page.text
    assert f"{(scores.support == 0).sum():,} of 1,400 classes have no scored documents" in page.text


def test_tens_of_thousands_of_classes(tmp_path):
    labels = np.arange(30_000)
    source, page, _ = _write(tmp_path, labels, labels // 2, [f"c{n}" for n in labels])
    _assert_harmless(source, page)
    assert len(source) < 1_000_000


@pytest.mark.parametrize("sizes", [(1_636, 1_723), (12_000, 12_400), (3, 900)])
def test_no_two_ticks_have_the_same_words(sizes):
    counts = np.linspace(*sizes, 7).astype(int)
    figure = plot_class_f1(counts, np.full(7, 0.5), counts)
    ticks = re.findall(r"<text[^>]*>([\d.]+[kMG]?)</text>", figure)
    assert len(ticks) == len({*ticks}) > 7


def test_nothing_confused_and_no_events(tmp_path):
    source, page, _ = _write(
        tmp_path, [0, 1], [0, 1], ["a", "b"], events=[], length_counts=np.zeros(0, np.int64)
    )
    _assert_harmless(source, page)
    assert "No document was taken for another class." in page.text


def test_shows_the_test_part(tmp_path):
    test = {"accuracy": 0.8125, "macro_f1": 0.5, "num_docs": 4_321}
    _, page, _ = _write(tmp_path, [0, 1], [0, 1], ["a", "b"], summary={"test": test})
    assert "81.2%" in page.text
    assert "95 % interval 80.1% to 82.4%, 4,321 documents" in page.text
    assert "chose the best epoch" not in page.text


def test_what_is_wrong_with_the_data_fits_a_narrow_screen(tmp_path, browser):
    words = "some of the words in texts that were held out of training are unknown"
    found = {"severity": "notice", "title": words, "sample": 0, "examples": [words],
             "effect": words, "mend": words}  # fmt: skip
    _write(tmp_path, [0, 1], [0, 1], ["a", "b"], summary={"findings": [found]})
    screen = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get((tmp_path / "report.html").as_uri())
    table = "document.querySelector('.texts').closest('.scroll')"
    shown, whole = browser.execute_script(f"return [{table}.clientWidth, {table}.scrollWidth]")
    assert whole <= shown < 420


def test_same_input_same_bytes_and_matplotlib_untouched(tmp_path):
    before = dict(matplotlib.rcParams)
    first, _, _ = _write(tmp_path, [0, 1, 1], [0, 1, 0], ["a", "b"])
    second, _, _ = _write(tmp_path, [0, 1, 1], [0, 1, 0], ["a", "b"])
    assert first == second
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("text", HOSTILE)
def test_shorten_and_escape(text):
    assert len(shorten(text, 10)) <= 10
    assert not set(escape(text)) & set("<>\"'\x00\x1b\n\u202e")
