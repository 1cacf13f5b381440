"""Cleaning: what is repaired, what is masked, and that no row is lost."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labels.clean import (
    CleanConfig,
    Cleaner,
    clean,
    collect_points,
    join_whitespace,
    repair_unicode,
    strip_markup,
)
from labels.folder import DOCUMENTS, POINTS
from shortline import UserError


def _mask(text, **rules):
    return Cleaner(CleanConfig(**rules)).mask(pa.array([text]))[0].as_py()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Took 10 seconds, 1.5 GB, -3 and 7%", "Took <num> seconds, <num> GB, <num> and <num>"),
        ("1 2 3-4", "<num> <num> <num>-<num>"),
        ("from 10.0.0.1:8080 and fe:00:11:22:33:44", "from <ip> and <mac>"),
        ("see https://a.b/c?d=1, or mail me@x.org", "see <url>, or mail <email>"),
        ("at 2024-01-02 03:04:05,678 or Jan 5, 2024", "at <date> or <date>"),
        ("at Fri Jul 7 2006 it was 12:13:14", "at <date> it was <time>"),
        ("open /var/log/x.log now, or C:\\Users\\me\\a.txt", "open <path> now, or <path>"),
        ("0xdeadBEEF deadbeef12ab34cd blk_-123 node-216", "<hex> <hex> <id> <id>"),
        ("4db3c2a1-0000-4000-8000-00805f9b34fb", "<uuid>"),
        ("www.example.com closed", "<host> closed"),
        ("and/or is no path, nor is a.b", "and/or is no path, nor is a.b"),
        ("a decade, beef and facade", "a decade, beef and facade"),
    ],
)
def test_masks(text, masked):
    assert _mask(text) == masked


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("numbers", "took 10"), ("ids", "node-7x"), ("hex", "0xff"), ("hosts", "a.example.com"),
        ("paths", "at /a/b"), ("addresses", "1.2.3.4"), ("dates", "2024-01-02"),
        ("uuids", "4db3c2a1-0000-4000-8000-00805f9b34fb"), ("emails", "a@b.com"),
        ("urls", "http://x/y"),
    ],
)  # fmt: skip
def test_a_rule_that_is_off_does_nothing(rule, text):
    others = {f"mask_{name}": False for name in CleanConfig().masks if name != rule}
    assert _mask(text, **others) != text
    assert _mask(text, **others, **{f"mask_{rule}": False}) == text


def test_unicode_is_repaired_and_what_is_right_stays():
    texts = pa.array(["caf\u00c3\u00a9", "café", "plain", "a\u200bb\x07", None, "e\u0301"])
    assert repair_unicode(texts).to_pylist() == ["café", "café", "plain", "ab", None, "é"]


def test_markup_goes_and_less_than_stays():
    texts = pa.array(
        ["<p>one<br/>two</p>", "a &lt; b &amp; c", "<script>x()</script>y", "a < b > c", "<Foo: 1>"]
    )
    cleaned = join_whitespace(strip_markup(texts)).to_pylist()
    assert cleaned == ["one two", "a < b & c", "y", "a < b > c", "<Foo: 1>"]


def test_rules_are_counted_with_examples():
    cleaner = Cleaner(CleanConfig())
    texts = cleaner.clean(pa.array(["a  b", "a b", "c\t d", None]))
    cleaner.mask(texts)
    assert cleaner.counts["whitespace"].documents == 2
    assert cleaner.counts["whitespace"].examples == [("a  b", "a b"), ("c\t d", "c d")]
    assert cleaner.counts["numbers"].documents == 0


def test_points_are_the_distinct_masked_texts():
    points, of_row = collect_points([pa.array(["x", None, "y"]), pa.array(["x", "z"])])
    assert points.schema == POINTS
    assert points["masked"].to_pylist() == ["x", "y", "z"]
    assert points["weight"].to_pylist() == [2, 1, 1]
    assert points["first_row"].to_pylist() == [0, 2, 4]
    assert of_row.to_pylist() == [0, None, 1, 0, 2]
    assert len(np.unique(points["key"].to_numpy())) == 3


def test_no_row_is_lost(tmp_path):
    texts = ["order 17 is late", "", None, "order 18 is late", " \u200b ", "thanks"]
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), tmp_path / "in.parquet")
    told = clean(tmp_path / "in.parquet", tmp_path, CleanConfig())
    documents = pq.read_table(tmp_path / "documents.parquet")
    assert documents.schema == DOCUMENTS
    assert documents["text"].to_pylist() == [texts[0], None, None, texts[3], None, "thanks"]
    assert documents["point"].to_pylist() == [0, None, None, 0, None, 1]
    assert (told["documents"], told["without_text"], told["points"]) == (6, 3, 2)


def test_case_counts_unless_it_is_folded(tmp_path):
    assert _mask("Thanks") == "Thanks"
    assert _mask("Thanks", fold_case=True) == "thanks"


def test_an_input_without_a_text_is_refused(tmp_path):
    pq.write_table(pa.table({"text": pa.array([None, ""], pa.string())}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match="no row has a text"):
        clean(tmp_path / "in.parquet", tmp_path, CleanConfig())
