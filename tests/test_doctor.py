"""The command: text, JSON, exit codes; and the real data, against counts made by hand."""

import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from shortline import UserError
from tests.checkup import clean_rows
from tfdata.doctor import main
from tfdata.ingest import ingest
from tfdata.synthetic import write_corpus

ROOT = Path(__file__).parents[1]


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        file.write("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    return path


def run(capsys, *arguments):
    main([str(argument) for argument in arguments])
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    return result, {f["name"]: f for f in result["findings"]}, lines[:-1]


def test_clean_data_has_no_finding(tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", clean_rows(2_400))
    result, findings, lines = run(capsys, path)
    assert not findings
    assert lines[-1] == "nothing found"
    assert (result["num_docs"], result["num_classes"]) == (2_400, 4)
    assert result["accuracy"] > 0.95


def test_each_planted_fault_is_counted(tmp_path, capsys):
    rows = clean_rows(2_400)
    (text, label), other = rows[0], next(row[1] for row in rows if row[1] != rows[0][1])
    train = [*rows, *[rows[1]] * 3, (text, other), ("a\ttab here", label), ("lone", "tiny")]
    valid = [*rows[10:15], *clean_rows(100, seed=5)]
    path = write_csv(tmp_path / "train.csv", train)
    held = write_csv(tmp_path / "valid.csv", valid)
    result, findings, lines = run(capsys, path, "--valid", held, "--json")
    assert not lines
    assert result["num_docs"] == len(train) + len(valid)
    counts = {name: finding["count"] for name, finding in findings.items()}
    assert counts.pop("label_errors", 0) <= 4
    assert counts == {
        "leaks": 5, "duplicates": 3 + 5, "contradictions": 2, "tabs": 1, "small_classes": 1,
    }  # fmt: skip
    assert all(len(f["examples"]) <= 2 and f["effect"] and f["mend"] for f in findings.values())


def test_suspects_are_written(tmp_path, capsys):
    rows = clean_rows(2_000)
    text, label = rows[7]
    rows[7] = text, "red" if label != "red" else "blue"
    path = write_csv(tmp_path / "a.csv", rows)
    _, findings, _ = run(capsys, path, "--suspects", tmp_path / "s.csv")
    table = pa_csv.read_csv(tmp_path / "s.csv")
    assert table.column_names == ["file", "row", "label", "likelier", "margin", "text"]
    assert len(table) == findings["label_errors"]["count"]
    assert table.to_pylist()[0] | {"margin": 0} == {
        "file": str(path), "row": 7 + 2, "label": rows[7][1], "likelier": label, "margin": 0,
        "text": text,
    }  # fmt: skip
    with pytest.raises(UserError, match="exists already"):
        main([str(path), "--suspects", str(tmp_path / "s.csv")])


def test_the_split_is_that_of_ingest(tmp_path):
    from tfdata.checkup.corpus import read_corpus
    from tfdata.config import IngestConfig, TokenizerConfig

    write_corpus(tmp_path / "a.parquet", 3_000, num_classes=20)
    config = IngestConfig(valid="0.2", test="0.1")
    corpus, _ = read_corpus([tmp_path / "a.parquet"], config)
    shards = ingest([tmp_path / "a.parquet"], tmp_path / "s", config, TokenizerConfig())
    for number, part in enumerate(("train", "valid", "test")):
        assert (corpus.parts == number).sum() == shards.num_docs(part)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no DATA"),
        (["missing.csv"], "no such file"),
        (["a.csv", "--sample", "5"], "--sample 5: must be 1000 or more"),
        (["a.csv", "--text", "nothing"], "no column `nothing`"),
    ],
)
def test_what_the_user_got_wrong_is_said(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(Path("a.csv"), clean_rows(10))
    with pytest.raises(UserError, match=re.escape(said)):
        main(arguments)


def test_rows_that_do_not_parse_are_no_rows_without_a_label(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na b,x\nc d,y\ne f,\na,b,c\nd\n")
    with pytest.raises(UserError, match=r"tfdata\.doctor .*--skip-bad-rows"):
        main([str(path)])
    result, _, lines = run(capsys, path, "--skip-bad-rows")
    assert (result["num_dropped"], result["num_skipped"]) == (1, 2)
    assert lines[0].endswith(
        " (1 rows without text or label dropped, 2 rows that do not parse skipped)"
    )


def test_tiny_data_is_no_trouble(tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", [("a b", "x"), ("", "x"), ("c", "y")])
    _, findings, _ = run(capsys, path)
    assert findings["empty"]["count"] == 1
    assert findings["small_classes"]["count"] == 2


@pytest.mark.parametrize("package", ["scipy", "rapidfuzz"])
def test_a_missing_package_is_named_before_any_work(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package} is not installed: pip install -e '\.\["):
        main(["missing.csv"])


def test_the_checks_know_nothing_above_tfdata():
    for path in (ROOT / "tfdata" / "checkup").glob("*.py"):
        assert not re.search(
            r"^\s*(from|import) (model|train|bench|labels)\b", path.read_text(), re.M
        )


@pytest.mark.slow
def test_a_corpus_sorted_by_class_has_its_order_for_the_cause(tmp_path, capsys):
    path = tmp_path / "a.parquet"
    write_corpus(path, 40_000, order="class")
    _, findings, lines = run(capsys, path)
    assert lines[2].startswith("1. HIGH order: the rows are sorted by class: 60 stretches")
    figures = findings["order"]["figures"]
    assert figures["accuracy_shuffled"] > 0.95
    assert figures["accuracy_tail"] < 0.05  # train.py on the same head and tail: .01
    assert figures["unseen_in_tail"] > 0.95


def plain_counts(texts, labels):
    """The counts of exact faults, in plain Python."""
    labels_of = defaultdict(set)
    for text, label in zip(texts, labels, strict=True):
        labels_of[text].add(label)
    sizes = Counter(labels)
    return {
        "contradictions": sum(len(labels_of[text]) > 1 for text in texts),
        "duplicates": len(texts) - len(set(zip(texts, labels, strict=True))),
        "small_classes": sum(size < 5 for size in sizes.values()),
        "tabs": sum("\t" in text for text in texts),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("nvd_cwe", {"contradictions": 541, "small_classes": 151, "tabs": 6}),
        ("loghub_2k", {"contradictions": 33, "small_classes": 907}),
    ],
)
def test_real_data(name, known, shared_data, capsys):
    path = shared_data / name / "all.parquet"
    result, findings, _ = run(capsys, path)
    table = pq.read_table(path)
    expected = plain_counts(table["text"].to_pylist(), table["label"].to_pylist())
    found = {check: findings[check]["count"] if check in findings else 0 for check in expected}
    assert found == expected
    assert expected | known == expected
    assert result["num_docs"] == len(table)
    assert result["seconds"] < 180
    figures = findings["order"]["figures"]
    assert figures["accuracy_tail"] < figures["accuracy_shuffled"] - 0.1
    if name == "nvd_cwe":
        assert 60 <= findings["mojibake"]["count"] <= 70
        assert findings["small_classes"]["figures"]["single"] == 72
        # fastText: .71 on a split by text, .56 on one that is not shuffled
        assert figures["accuracy_shuffled"] == pytest.approx(0.71, abs=0.1)
        assert figures["accuracy_tail"] == pytest.approx(0.56, abs=0.1)
    else:
        assert findings["small_classes"]["figures"]["single"] == 602


@pytest.mark.slow
def test_leaks_of_a_given_test_file(shared_data, capsys):
    train, test = (shared_data / "sgd_acts" / f"{part}.parquet" for part in ("train", "test"))
    _, findings, _ = run(capsys, train, "--test", test)
    trained = set(pq.read_table(train)["text"].to_pylist())
    tested = pq.read_table(test)["text"].to_pylist()
    assert findings["leaks"]["figures"]["leaked_test"] == sum(text in trained for text in tested)
    assert findings["leaks"]["figures"]["leaked_valid"] == 0
