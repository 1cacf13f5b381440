"""The short form of the doctor: what it finds in a shard set, and how it is told."""

import json

import numpy as np
import pytest

from model.findings import findings_section
from tests.checkup import clean_rows
from tests.test_ingest import make, write_csv
from tests.test_near_groups import family
from tests.test_report import HOSTILE, Page
from tfdata.checkup.brief import check_briefly, describe_briefly
from tfdata.config import IngestConfig


def shuffled(rows):
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def check(path, out, max_len=40, **config):
    shard_set = make(path, out, **config)
    config.pop("vocab_size", None)
    return {f.name: f for f in check_briefly(shard_set, max_len, IngestConfig(**config))}


def test_clean_data_has_no_finding(tmp_path):
    assert not check(write_csv(tmp_path / "a.csv", clean_rows()), tmp_path / "out")


def test_order_is_told_by_what_ingest_saw(tmp_path):
    rows = sorted(clean_rows(), key=lambda row: row[1])
    found = check(write_csv(tmp_path / "a.csv", rows), tmp_path / "out")
    assert list(found) == ["order"]
    assert "sorted by class: 4 stretches of one label for 4 classes" in found["order"].title


def test_each_planted_fault_is_counted(tmp_path):
    rows = clean_rows(2_000)
    (text, label), other = rows[0], next(row[1] for row in rows if row[1] != rows[0][1])
    rows += [*[rows[1]] * 150, (text, other), ("lone words", "tiny")]
    rows += [(f"{'long ' * 90}{i}", label) for i in range(100)]
    held_rows = [rows[10], *clean_rows(300, seed=5), ("q z " * 50, "red")]
    held = write_csv(tmp_path / "valid.csv", held_rows)
    path = write_csv(tmp_path / "a.csv", shuffled(rows))
    found = check(path, tmp_path / "out", valid=str(held), vocab_size=500)
    counts = {name: finding.count for name, finding in found.items()}
    assert counts.pop("vocabulary") > 100
    assert counts == {
        "leaks": 1, "contradictions": 1, "duplicates": 151, "small_classes": 1, "max_len": 100,
    }  # fmt: skip
    assert all(finding.effect and finding.mend for finding in found.values())
    assert "nothing to do" not in found["duplicates"].mend  # copies may stand in the other file


def test_near_copies_name_the_split_that_parts_them(tmp_path):
    rows = [(text, f"c{n % 3}") for n in range(150) for text in family(n, 6)]
    path = write_csv(tmp_path / "a.csv", shuffled(rows))
    leaks = check(path, tmp_path / "random", vocab_size=5_000)["near_leaks"]
    assert leaks.severity == "high"
    assert "--split group" in leaks.mend
    assert "near_leaks" not in check(path, tmp_path / "group", split="group", vocab_size=5_000)
    half = shuffled([(f"{text} new", label) for text, label in rows[::2]])
    held = str(write_csv(tmp_path / "held.csv", half))
    told = check(path, tmp_path / "files", valid=held, vocab_size=5_000)["near_leaks"].mend
    assert "give all files as one" in told, "--split group alone would part nothing"


def test_copies_are_told_to_be_on_one_side_only_where_they_are(tmp_path):
    rows = shuffled([*clean_rows(), *[clean_rows()[0]] * 200])
    path = write_csv(tmp_path / "a.csv", rows)
    assert "nothing to do" in check(path, tmp_path / "random")["duplicates"].mend
    held = write_csv(tmp_path / "held.csv", rows[:300])
    found = check(path, tmp_path / "files", valid=str(held))
    assert "stay in the files that hold them" in found["duplicates"].mend


def test_without_validation_or_of_an_older_ingest_it_says_what_it_can(tmp_path):
    shard_set = make(write_csv(tmp_path / "a.csv", clean_rows(500)), tmp_path / "out", valid="0")
    assert not check_briefly(shard_set, 40)
    old = dict(shard_set.counts)
    for name in ("order", "one_group_classes"):
        del old[name]
    object.__setattr__(shard_set, "counts", old)
    assert not check_briefly(shard_set, 40)


def test_a_few_lines_at_most(tmp_path):
    rows = sorted(clean_rows(), key=lambda row: row[1])
    found = check(write_csv(tmp_path / "a.csv", rows), tmp_path / "out")
    assert len(describe_briefly([found["order"]] * 9)) == 4
    assert describe_briefly([]) == []


def test_training_tells_and_keeps_it(straight):
    summary = json.loads((straight / "summary.json").read_text())
    names = {finding["name"] for finding in summary["findings"]}
    assert "near_leaks" in names
    assert "What is wrong with the data" in (straight / "report.html").read_text()


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_finding_quotes_stays_text(text):
    finding = {
        "severity": "high", "title": text, "examples": [text, text], "effect": text, "mend": text,
        "sample": None,
    }  # fmt: skip
    page = Page(findings_section({"findings": [finding]}))
    assert {tag for tag, _ in page.tags} <= {
        "section", "h2", "p", "div", "table", "thead", "tbody", "tr", "th", "td", "bdi",
    }  # fmt: skip
    assert all(set(attributes) <= {"class", "scope", "dir"} for _, attributes in page.tags)


def test_no_findings_no_section():
    assert findings_section({}) == findings_section({"findings": []}) == ""
