"""Predict: every row kept, in order, as it was; what padding and batches must not change."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from model import infer as infer_module
from model.infer import build_infer, map_ahead
from model.predict import main
from model.table import free_names, prediction_names
from shortline import UserError
from tests.small_run import ODD_LABELS, make_run, make_texts, make_wordpiece_run
from tfdata.encode import pad

TEXTS = make_texts(300)
AWKWARD = [
    "a, b", 'say "word1"', "two\nlines", "lone\rCR", "CR\r\nLF", "", " word2 ", "semi;colon", "\\",
    "tab\there", "日本 café", "'word3'", "NULL", "null", "NA", "1.50", "007",
]  # fmt: skip
SOURCES = [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.zst"]
SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def wordpiece_run(tmp_path_factory):
    return make_wordpiece_run(tmp_path_factory.mktemp("wordpiece"))


@pytest.fixture(scope="module")
def expected(run):
    """Label and probability of any text, by the reference route, alone and without padding."""
    encode, classifier = run.build_encoder(), run.build_classifier("keras")
    known: dict[str, tuple[str, float]] = {}

    @tf.function(input_signature=[tf.TensorSpec([1], tf.string)])
    def infer_one(texts):
        ids, lengths = encode(texts)
        return tf.nn.softmax(classifier.call(pad(ids, lengths), lengths))[0]

    def look_up(text: str) -> tuple[str, float]:
        if text not in known:
            probabilities = infer_one(tf.constant([text])).numpy()
            known[text] = (ODD_LABELS[probabilities.argmax()], float(probabilities.max()))
        return known[text]

    return look_up


def predict(run, *arguments) -> None:
    assert main([str(run.paths.folder), *map(str, arguments)]) == 0


def write(path: Path, rows: list[dict], **options) -> Path:
    """A CSV file by Python's own writer."""
    with open(path, "w", newline="", encoding=options.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, rows[0], **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path, delimiter: str = ",") -> list[dict]:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))


def check(rows: list[dict], originals: list[dict], expected) -> None:
    """The rows are the originals, in order, with the right predictions at the end."""
    assert len(rows) == len(originals)
    for row, original in zip(rows, originals, strict=True):
        assert list(row) == [*original, "label", "probability"]
        assert {name: row[name] for name in original} == original
        label, probability = expected(original["text"])
        assert row["label"] == label
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("name", ["run", "wordpiece_run"])
def test_batches_and_padding_change_nothing(name, request, monkeypatch):
    run = request.getfixturevalue(name)
    texts = pa.array(TEXTS)
    infer = build_infer(run, has_gpu=False)
    together = infer(texts).numpy()
    alone = np.concatenate([infer(texts[i : i + 1]).numpy() for i in range(len(texts))])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    monkeypatch.setattr(infer_module, "_BATCH_TOKENS", 30)
    monkeypatch.setattr(infer_module, "_BATCH_DOCS", 7)
    np.testing.assert_allclose(build_infer(run, has_gpu=False)(texts), together, atol=1e-5)
    assert infer(texts[:0]).shape == (0, len(ODD_LABELS))


def test_map_ahead():
    assert list(map_ahead(lambda n: n * n, range(50))) == [n * n for n in range(50)]
    assert list(map_ahead(str, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(map_ahead(lambda n: 1 / n, [1, 2, 0, 3]))


@pytest.mark.parametrize("options", [
    {}, {"delimiter": ";", "encoding": "utf-8-sig"}, {"delimiter": "\t"}, {"delimiter": "|"},
    {"lineterminator": "\n", "quoting": csv.QUOTE_ALL},
])  # fmt: skip
def test_awkward_csv(run, expected, tmp_path, options):
    rows = [{"id": f"{i}", "text": text, "note": text[::-1]} for i, text in enumerate(AWKWARD)]
    path = write(tmp_path / "in.csv", rows, **options)
    predict(run, path, "--out", tmp_path / "out.csv", "--batch-size", 5)
    check(read(tmp_path / "out.csv"), rows, expected)


@pytest.mark.parametrize(
    ("source", "suffix"),
    [pair for i in (0, 3) for pair in zip(SOURCES, SUFFIXES[i:] + SUFFIXES[:i], strict=True)],
)
def test_every_format(run, expected, tmp_path, source, suffix):
    rows = [{"id": f"{i}", "text": text} for i, text in enumerate(TEXTS[20:60] + AWKWARD)]
    path = tmp_path / f"in{source}"
    plain = tmp_path / ("plain" + source.removesuffix(".gz").removesuffix(".zst"))
    if plain.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), plain)
    elif plain.suffix == ".jsonl":
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write(plain, rows, delimiter="\t" if plain.suffix == ".tsv" else ",")
    if source.endswith((".gz", ".zst")):
        codec = "gzip" if source.endswith(".gz") else "zstd"
        path.write_bytes(pa.compress(plain.read_bytes(), codec, asbytes=True))
    else:
        plain.rename(path)
    out = tmp_path / f"out{suffix}"
    predict(run, path, "--out", out, "--batch-size", 11)
    if suffix == ".parquet":
        found = pq.read_table(out).to_pylist()
        assert pq.read_schema(out).field("probability").type == pa.float32()
    elif suffix.startswith(".jsonl"):
        data = out.read_bytes()
        data = gzip.decompress(data) if suffix.endswith(".gz") else data
        found = [json.loads(line) for line in data.decode().split("\n")[:-1]]
    else:
        found = read(out, "\t" if suffix == ".tsv" else ",")
    check(found, rows, expected)


def test_null_texts(run, expected, tmp_path, capfdbinary):
    texts = ["word1", None, "", "word2", None]
    pq.write_table(pa.table({"text": texts, "n": range(5)}), tmp_path / "in.parquet")
    predict(run, tmp_path / "in.parquet", "--out", tmp_path / "out.parquet", "--top-k", 2)
    found = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["n"] for row in found] == [*range(5)]
    for row, text in zip(found, texts, strict=True):
        assert row["text"] == text
        assert row["label"] == (None if text is None else expected(text)[0])
        assert all((row[name] is None) == (text is None) for name in prediction_names(2))
    predict(run, tmp_path / "in.parquet")  # as CSV, to stdout
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines[2] == ",1,,"
    (tmp_path / "in.jsonl").write_text('{"text": null}\n{}\n{"text": "word1"}\n')
    predict(run, tmp_path / "in.jsonl")
    found = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert found[0] == {"text": None, "label": None, "probability": None}
    assert found[1] == {"label": None, "probability": None}
    assert found[2]["label"] == expected("word1")[0]


def test_top_k(run, expected, tmp_path):
    rows = [{"text": text} for text in TEXTS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    predict(run, tmp_path / "in.parquet", "--out", tmp_path / "out.parquet", "--top-k", 6)
    ranks = ["", "_2", "_3", "_4", "_5", "_6"]
    for row in pq.read_table(tmp_path / "out.parquet").to_pylist():
        probabilities = [row[f"probability{rank}"] for rank in ranks]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert {row[f"label{rank}"] for rank in ranks} == {*ODD_LABELS}
        assert row["label"] == expected(row["text"])[0]
    with pytest.raises(UserError, match="--top-k 7: the run has 6 classes"):
        predict(run, tmp_path / "in.parquet", "--top-k", 7)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_columns_named_like_predictions(run, expected, tmp_path, capsys, suffix):
    row = {"label": "gold", "text": "word1", "input_label": "x", "probability": "y", "label_2": "z"}
    path = tmp_path / f"in{suffix}"
    if suffix == ".csv":
        write(path, [row])
    elif suffix == ".jsonl":
        path.write_text(json.dumps(row) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    predict(run, path, "--out", tmp_path / "out.csv")
    told = capsys.readouterr().err
    assert "`label` to `input_2_label`" in told
    assert "`label_2` to `input_2_label_2`" in told
    names = ["input_2_label", "text", "input_label", "input_2_probability", "input_2_label_2"]
    found = read(tmp_path / "out.csv")
    check(found, [dict(zip(names, row.values(), strict=True))], expected)
    predict(run, path, "--out", tmp_path / "out.jsonl")
    assert list(json.loads((tmp_path / "out.jsonl").read_text()))[:5] == names


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_predictions_of_predictions(run, tmp_path, suffix):
    """Of each time all answers have a prefix of their own, and none are taken for the last ones."""
    rows = [{"id": str(number), "text": f"word{number}"} for number in range(3)]
    write(tmp_path / "in.csv", [{**row, "label": "gold"} for row in rows])
    paths = [tmp_path / "in.csv", *(tmp_path / f"{number}{suffix}" for number in (1, 2, 3))]
    for source, out, top_k in zip(paths, paths[1:], (2, 1, 3), strict=False):
        predict(run, source, "--out", out, "--top-k", top_k)
    predict(run, paths[3], "--out", tmp_path / "out.csv")
    found = read(tmp_path / "out.csv")
    first, third = prediction_names(2), prediction_names(3)
    assert [*found[0]] == [
        "id", "text", "input_label", *(f"input_2_{name}" for name in first),
        "input_3_label", "input_3_probability", *(f"input_4_{name}" for name in third),
        "label", "probability",
    ]  # fmt: skip
    for row, original in zip(found, rows, strict=True):
        assert row["id"] == original["id"]
        assert row["input_label"] == "gold"
        answers = {row[f"input_{number}_label"] for number in (2, 3, 4)}
        assert answers == {row["label"]}


def test_jsonl_keys_of_later_lines_are_not_lost(run, tmp_path):
    rows = [{"text": "word1", "label": "a"}] * 2
    rows.append({"text": "word1", "label": "b", "input_label": 1})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predict(run, tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["input_2_label"] for row in found] == ["a", "a", "b"]
    assert found[2]["input_label"] == 1


def test_columns_that_are_no_answer_keep_their_names(run, tmp_path):
    """Those that only an earlier answer would have are renamed where there is one alone."""
    row = {"text": "word1", "scope": "read", "label_2": "x"}
    path = write(tmp_path / "in.csv", [row])
    predict(run, path, "--out", tmp_path / "out.csv")
    assert [*read(tmp_path / "out.csv")[0]] == [*row, "label", "probability"]
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    predict(run, tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    assert [*json.loads((tmp_path / "out.jsonl").read_text())] == [*row, "label", "probability"]
    predict(run, path, "--out", tmp_path / "out.csv", "--top-k", 2)
    assert [*read(tmp_path / "out.csv")[0]][:3] == ["text", "scope", "input_label_2"]


def test_rows_that_a_quote_swallows_are_told(run, tmp_path, capsys):
    rows = [f"word{i} of it,c{i % 3}" for i in range(150)]
    rows[5] = rows[140] = '"word,c0'
    (tmp_path / "in.csv").write_text("\n".join(["text,kind", *rows, ""]))
    predict(run, tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert len(read(tmp_path / "out.csv")) == 15
    said = capsys.readouterr().err
    assert "warning: CSV fields that hold lines which look like rows, and are lost: 1" in said
    assert "in.csv: row 7 runs over 136 lines" in said


def test_free_names():
    taken = prediction_names(2)
    assert taken == ["label", "probability", "label_2", "probability_2"]
    assert free_names(["label", "label", "x"], taken) == ["input_label", "input_2_label", "x"]
    assert free_names(["label"], taken, ["input_label"]) == ["input_2_label"]
    assert free_names(["x", "x"], taken) == ["x", "x"]


def test_jsonl_keeps_its_objects(run, tmp_path):
    rows = ['{"text":"word1","n":1.50,"big":12345678901234567890123,"list":[1,{"a":null}]}',
            '{"other":true, "text":"\\ud83d\\ude42"}', ' {"text" : 7 } ', "{}",
            '{"label": [1, 2.5], "text": "ü", "s": "\\ud800"}']  # fmt: skip
    (tmp_path / "in.jsonl").write_text("\ufeff" + "\n\n".join(rows))
    predict(run, tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == len(rows)
    for line, row in zip(lines[:4], rows[:4], strict=True):
        assert line.startswith(row.strip()[:-1].rstrip())  # not a character changed
        found = json.loads(line)
        assert {"label", "probability"} <= {*found}
        del found["label"], found["probability"]
        assert found == json.loads(row)
    last = json.loads(lines[4])
    assert last["input_label"] == [1, 2.5]
    assert last["text"] == "ü"


def test_parquet_keeps_its_types(run, tmp_path):
    table = pa.table({
        "text": pa.array(["word1", None, "word2"]).dictionary_encode(),
        "when": pa.array([datetime.datetime(2020, 1, 2), None, None]),
        "amount": pa.array([Decimal("1.10"), None, Decimal("2.00")]),
        "list": [[1, 2], None, []], "bytes": [b"\xff", b"a", None], "n": [1, 2, 3],
        "x": [0.5, None, float("nan")], "nothing": pa.nulls(3), "yes": [True, None, False],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "in.parquet")
    for suffix in ("parquet", "csv", "jsonl"):
        predict(run, tmp_path / "in.parquet", "--out", tmp_path / f"out.{suffix}")
    found = pq.read_table(tmp_path / "out.parquet")
    for name in set(table.column_names) - {"x"}:
        assert found[name].to_pylist() == table[name].to_pylist()
    assert found.schema.field("amount").type == table.schema.field("amount").type
    first, second, third = read(tmp_path / "out.csv")
    assert first["when"] == "2020-01-02 00:00:00.000000"
    assert (first["amount"], first["list"], first["n"], first["x"]) == (
        "1.10",
        "[1, 2]",
        "1",
        "0.5",
    )
    assert (first["bytes"], second["bytes"], first["yes"]) == ("\ufffd", "a", "true")
    assert second["list"] == second["text"] == second["label"] == ""
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    first, second, third = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert (first["list"], first["n"], first["x"], first["yes"]) == ([1, 2], 1, 0.5, True)
    assert second["amount"] is second["x"] is third["x"] is second["label"] is None


def test_text_column(expected, tmp_path, run):
    trained = make_run(tmp_path / "trained", text="body")
    path = write(tmp_path / "in.csv", [{"text": "word1", "body": "word2", "title": "word3"}])
    for flags, text in (((), "word2"), (("--text", "title"), "word3")):
        predict(trained, path, "--out", tmp_path / "out.csv", *flags)
        assert read(tmp_path / "out.csv")[0]["label"] == expected(text)[0]
    predict(run, path, "--out", tmp_path / "out.csv")
    assert read(tmp_path / "out.csv")[0]["label"] == expected("word1")[0]
    with pytest.raises(UserError, match="no column `txet` for --text; did you mean --text text"):
        predict(run, path, "--text", "txet")
    pq.write_table(pa.table({"text": [["a"], ["b"]]}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match="column `text` holds list"):
        predict(run, tmp_path / "in.parquet")
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": ["b"]}')
    with pytest.raises(UserError, match="line 2: `text` is a list"):
        predict(run, tmp_path / "in.jsonl", "--out", tmp_path / "new.jsonl")
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl", ".parquet"])
def test_broken_input_leaves_no_output(run, tmp_path, suffix):
    path = tmp_path / "in.csv"
    path.write_text("id,text\n" + "1,word1\n" * 50_000 + "2,word2,extra\n" + "3,word3\n")
    out = tmp_path / f"out{suffix}"
    for before in (None, b"precious"):
        if before:
            out.write_bytes(before)
        with pytest.raises(UserError, match=r"in\.csv: row 50002 .* has 3 columns"):
            predict(run, path, "--out", out)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.csv"] + [out.name] * bool(before)
        assert before is None or out.read_bytes() == before


@pytest.mark.parametrize(
    "lines", ["play a song", "play a song, please\nplay\nstop, now, at once", "play\nsay it, now"]
)
def test_plain_lines_in_a_file(run, tmp_path, lines):
    """The error says what a file may be, where lines go, and names no flag of another command."""
    path = tmp_path / "lines.txt"
    path.write_text(f"{lines}\n")
    with pytest.raises(UserError) as raised:
        predict(run, path)
    said = str(raised.value)
    assert "CSV, TSV, JSONL, Parquet or fastText" in said
    assert said.endswith(f"< {path}")
    assert "--label" not in said
    assert "--skip-bad-rows" not in said
    with pytest.raises(UserError) as raised:
        predict(run, path.rename(tmp_path / "lines.csv"))
    assert "--label" not in str(raised.value)
    assert "--skip-bad-rows" not in str(raised.value)
    assert "stdin" not in str(raised.value)


def test_no_rows(run, tmp_path, capfd):
    (tmp_path / "in.csv").write_text("id,text,label\n")
    for suffix in ("csv", "parquet"):
        predict(run, tmp_path / "in.csv", "--out", tmp_path / f"out.{suffix}")
    names = ["id", "text", "input_label", "label", "probability"]
    assert (tmp_path / "out.csv").read_text() == ",".join(f'"{name}"' for name in names) + "\n"
    assert pq.read_table(tmp_path / "out.parquet").column_names == names
    (tmp_path / "in.csv").write_text("")
    with pytest.raises(UserError, match=r"in\.csv: is empty"):
        predict(run, tmp_path / "in.csv")


def test_wrong_paths(run, tmp_path):
    path = write(tmp_path / "in.csv", [{"text": "word1"}])
    (tmp_path / "link.csv").symlink_to(path)
    for out, message in (
        (path, "is the input"), (tmp_path / "link.csv", "is the input"),
        (tmp_path / "out.xlsx", "must end in .csv"), (tmp_path / "out", "must end in .csv"),
        (tmp_path / "out.parquet.gz", "must end in .csv"), (tmp_path, "must end in .csv"),
        (tmp_path / "no" / "out.csv", "there is no folder"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"^--out .*{message}"):
            predict(run, path, "--out", out)
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        predict(run, tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a folder; give one file"):
        predict(run, tmp_path)
    with pytest.raises(UserError, match="--batch-size 0: must be 1 or more"):
        predict(run, path, "--batch-size", 0)
    assert path.read_bytes() == b"text\r\nword1\r\n"


def start(run, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "model.predict", str(run.paths.folder), *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip


def test_lines_of_a_pipe(run, expected):
    escaped = {
        "with\ttab": r"with\ttab",
        "two\nlines": r"two\nlines",
        "back\\slash": r"back\\slash",
    }
    texts = [text for text in TEXTS if "\n" not in text and "\r" not in text]
    seen = {expected(text)[0] for text in texts}
    assert seen & {*escaped}  # else the escapes are not tried
    with start(run, "--gpus", "none", "--top-k", "2") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\ufeffword1\n".encode())
        process.stdin.flush()
        first = process.stdout.readline().decode()  # before stdin ends: it would wait forever
        assert first.split("\t")[0] == escaped.get(expected("word1")[0], expected("word1")[0])
        rest = "\n".join(texts) + "\n\nword2\r\n\nword3"
        found, errors = process.communicate(rest.encode() + b"\xff")
    assert process.returncode == 0, errors
    lines = [line.split("\t") for line in found.decode().split("\n")]
    assert lines.pop() == [""]
    texts += ["", "word2", "", "word3\ufffd"]
    assert len(lines) == len(texts)
    for line, text in zip(lines, texts, strict=True):
        label, probability = expected(text)
        assert line[0] == escaped.get(label, label)
        assert float(line[1]) == pytest.approx(probability, abs=1e-5)
        assert len(line) == 4
        assert float(line[3]) <= float(line[1])


def test_exit_codes(run, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("text\nword1\n" + "word2,\n")
    with start(run, str(path), "--out", str(tmp_path / "out.csv")) as process:
        _, errors = process.communicate()
    assert process.returncode == 2
    last = errors.decode().splitlines()[-1]
    assert last.startswith(f"error: {path}: row 3 ")
    assert b"Traceback" not in errors
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def test_flags_are_checked_before_tensorflow_loads():
    code = "import sys, model.predict, model.evaluate, model.export as _; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parents[1], check=True
    )
    assert b"model.table" in done.stdout.split()
    assert b"tensorflow" not in done.stdout.split()
