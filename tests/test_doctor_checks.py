"""Classes, words, lengths, characters and columns: each check finds exactly what was planted."""

import json

import pytest

from tests.checkup import clean_parts, clean_rows, make_corpus
from tfdata.checkup.classes import (
    check_lengths,
    check_small_classes,
    check_vocabulary,
    describe_lengths,
    usual_max_len,
)
from tfdata.checkup.columns import check_columns, check_label_in_text
from tfdata.checkup.encoding import check_encoding
from tfdata.checkup.finding import Finding, render, sort_findings
from tfdata.config import IngestConfig


@pytest.fixture(scope="module")
def clean():
    rows = clean_rows()
    return make_corpus(rows, clean_parts(len(rows)))


def test_clean_data_has_no_finding(clean):
    assert not check_small_classes(clean)
    assert not check_vocabulary(clean, 20_000)
    assert not check_lengths(clean, usual_max_len(clean))
    assert not check_encoding(clean)
    assert not check_label_in_text(clean)


def test_small_classes():
    rows = clean_rows() + [("w", label) for label in "abbccccddddd"]
    (found,) = check_small_classes(make_corpus(rows))
    assert (found.count, found.of) == (3, 8)
    assert found.figures == {"single": 1, "under_three": 2, "rows": 7}
    assert found.examples == ("a: 1 row", "c: 4 rows")


def test_lengths_are_those_of_the_tokenizer():
    rows = [("One, two; THREE", "x"), ("", "y"), ("...", "x"), ("a b", "y"), ("w " * 50, "x")]
    corpus = make_corpus(rows)
    assert corpus.words.lengths.tolist() == [3, 0, 0, 2, 50]
    facts = describe_lengths(corpus, 10)
    assert facts["words_max"] == 50
    assert facts["cut_documents"] == pytest.approx(1 / 5)
    assert facts["cut_words"] == pytest.approx(40 / 55)
    long, empty = check_lengths(corpus, 10)
    assert (long.name, long.count) == ("max_len", 1)
    assert (empty.name, empty.count) == ("empty", 2)


def test_words_are_those_of_the_training_tokenizer():
    import pyarrow as pa
    import tensorflow as tf

    from tfdata.config import TokenizerConfig
    from tfdata.encode import build_tokenize
    from tfdata.words import cut_words

    texts = ["Ärger, Istanbul\tund\nMORE", "", "  a--b ", "日本 x\u00a0y", "ΣΑ \r\v\f end"]
    words = cut_words(pa.chunked_array([texts[:2], texts[2:]]))
    names = words.names.to_pylist()
    cut = [
        [names[i] for i in words.ids[start:stop]]
        for start, stop in zip(words.offsets[:-1], words.offsets[1:], strict=True)
    ]
    expected = build_tokenize(TokenizerConfig())(tf.constant(texts)).to_list()
    assert cut == [[word.decode() for word in text] for text in expected]


def test_vocabulary_names_the_class_whose_words_are_unknown(clean):
    rows = clean_rows()
    odd = [(" ".join(f"odd{i}x{j}" for j in range(8)), "odd") for i in range(20)]
    corpus = make_corpus(rows + odd, clean_parts(len(rows)) + [0] * 10 + [1] * 10)
    (found,) = check_vocabulary(corpus, 20_000)
    assert found.figures["poor_classes"] == 1
    assert found.count == 80, "8 words of 10 texts"
    assert found.examples[0].startswith("odd: 100% unknown, such as odd1")
    assert "--vocab-size" not in found.mend, "every training word is known already"
    (full,) = check_vocabulary(clean, 100)
    assert full.figures["poor_classes"] == 4
    assert "a larger --vocab-size than 100" in full.mend


def test_unknown_words_that_no_class_has_many_of_are_told(clean):
    rows = [(f"{text} odd{i}", label) for i, (text, label) in enumerate(clean_rows())]
    words = sum(len(text.split()) for text, _ in rows[:400]) / 400
    rows = [(" ".join([text] * round(15 / words)), label) for text, label in rows]
    (found,) = check_vocabulary(make_corpus(rows, clean_parts(len(rows))), 20_000)
    assert 0.05 < found.share < 0.1
    assert found.figures["poor_classes"] == 0
    assert found.examples[0].startswith("such as odd")


PLANTED = {
    "mojibake": ["caf\u00c3\u00a9 was here", "it\u00e2\u20ac\u2122s broken"],
    "replaced": ["a lost \ufffd character"],
    "controls": ["a bell \x07", "high \x85 control", "nul \x00"],
    "tabs": ["one\ttab", "two\t\ttabs"],
    "invisible": ["zero\u200bwidth", "right\u202eto left"],
    "entities": ["this &amp; that", "&#39;quoted&#39;"],
}


def test_encoding_finds_what_was_planted():
    rows = clean_rows(400)
    rows += [("caf\u00e9 \u00c0 la carte, \u00c2\u00bfno? \u20ac 5 \u2019n\u2019 \u00dcber", "red")]
    planted = [(text, "red") for texts in PLANTED.values() for text in texts]
    found = {f.name: f for f in check_encoding(make_corpus(rows + planted))}
    counts = {name: found[name].count for name in found}
    assert counts == {name: len(texts) for name, texts in PLANTED.items()} | {"mojibake": 3}
    assert "caf\u00c3" in found["mojibake"].examples[0] or "\u00c2" in found["mojibake"].examples[0]
    assert "\\x07" in found["controls"].examples[0]
    assert not check_encoding(
        make_corpus([*clean_rows(400), ("caf\u00e9 \u00c0 \u00e9t\u00e9", "red")])
    )


def test_label_in_text():
    rows = clean_rows()
    rows = [(f"{text} [RED]" if label == "red" else text, label) for text, label in rows]
    (found,) = check_label_in_text(make_corpus(rows))
    assert (found.count, found.figures["rows"]) == (1, 500)
    rows = [(f"{text} red", label) for text, label in clean_rows()]
    assert not check_label_in_text(make_corpus(rows))  # all classes hold it: it tells nothing
    rows = [(f"{text} reddish", label) for text, label in clean_rows()]
    assert not check_label_in_text(make_corpus(rows))


def test_columns(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for i, (text, label) in enumerate(clean_rows(200)):
            row = {
                "id": i,
                "text": text,
                "label": label,
                "source": "web",
                "team": f"t-{label[::-1]}",
            }
            row |= {"half": label if i % 2 else "none", "day": i % 7}
            file.write(json.dumps(row) + "\n")
    constant, leaking = check_columns([path], IngestConfig())
    assert constant.examples == ("source: always web",)
    assert leaking.count == 1
    assert leaking.examples[0].startswith("team: 4 values tell the label of 100.0% of the rows")
    plain = tmp_path / "b.csv"
    plain.write_text("text,label\na,b\nc,d\n")
    assert not check_columns([plain], IngestConfig())


def test_findings_are_sorted_escaped_and_plain():
    low = Finding(
        name="low", severity="low", title="t", count=1, of=4, effect="e", mend="m",
        figures={"a": 1 / 3},
    )  # fmt: skip
    high = Finding(
        name="high", severity="high", title="t", count=1, of=0, effect="e", mend="m",
        examples=("x",), sample=5,
    )  # fmt: skip
    assert sort_findings([low, high]) == [high, low]
    assert low.to_json()["share"] == 0.25
    assert low.to_json()["figures"] == {"a": 0.3333}
    assert high.share == 0
    text = render([high, low])
    assert text.startswith("1. HIGH high: t (in a sample of 5)\n     e.g. x")
    rows = [("esc\x1b[2J", "bad\u202elabel")] * 2
    from tfdata.checkup.duplicates import check_duplicates

    assert "\x1b" not in render(check_duplicates(make_corpus(rows)))
