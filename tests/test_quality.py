"""bench.quality: the rows that are scored, the scores, the tables, and what is cut short."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import quality, quality_arms
from bench.quality import main
from bench.quality_arms import BASELINES, OURS, Training, build_task, choose_arms
from bench.quality_scores import score_labels, score_rows
from bench.quality_sets import Rules, find_sets, prepare_set
from bench.quality_table import format_tables, sum_up
from model.flags import PRESETS, Flags
from shortline import UserError, parse_flags


def _write(folder, **parts):
    folder.mkdir(parents=True)
    for part, rows in parts.items():
        texts, labels = zip(*rows, strict=True)
        pq.write_table(pa.table({"text": texts, "label": labels}), folder / f"{part}.parquet")
    return folder


def _rows(prefix, num, labels=("a", "b", "oos")):
    return [(f"{prefix} {number} {labels[number % len(labels)]}", labels[number % len(labels)])
            for number in range(num)]  # fmt: skip


def _rules(**changed):
    settings = {"development": False, "validation": "file", "random": ()}
    return Rules(**{**settings, **changed})


def _texts(file):
    return pq.read_table(file)["text"].to_pylist()


def _md5(text):
    return int(hashlib.md5(text.encode()).hexdigest(), 16)


@pytest.mark.parametrize("random", [(), ("one",)])
def test_without_an_official_split_every_row_is_on_one_side(tmp_path, random):
    rows = _rows("text", 500)
    folder = _write(tmp_path / "one", all=rows)
    data = prepare_set(folder, _rules(random=random), tmp_path / "cache")
    train, test = _texts(data.data), _texts(data.scored)
    assert sorted(train + test) == sorted(text for text, _ in rows)
    if random:
        assert len(test) == 100
    else:
        assert test == [text for text, _ in rows if _md5(text) % 5 == 0]
    assert data.valid is None
    assert data.baseline == (data.data,)
    seen = prepare_set(folder, _rules(random=random, development=True), tmp_path / "cache")
    assert sorted(_texts(seen.data) + _texts(seen.scored)) == sorted(train)
    assert len(_texts(seen.scored)) == pytest.approx(40, abs=20)


def test_development_never_sees_the_test_part(tmp_path):
    parts = {"train": _rows("train", 90), "valid": _rows("valid", 30), "test": _rows("test", 60)}
    folder = _write(tmp_path / "one", **parts)
    texts = {part: [text for text, _ in rows] for part, rows in parts.items()}
    for validation in ("file", "share"):
        rules = _rules(development=True, validation=validation)
        data = prepare_set(folder, rules, tmp_path / "cache")
        assert data.valid is None  # what is scored chooses nothing, and nothing learns from it
        assert _texts(data.data) == texts["train"]
        assert _texts(data.scored) == texts["valid"]
        assert data.baseline == (data.data,)
        for file in data.data.parent.iterdir():
            assert not {*_texts(file)} & {*texts["test"]}


def test_an_official_valid_part_validates_or_trains(tmp_path):
    parts = {"train": _rows("train", 90), "valid": _rows("valid", 30), "test": _rows("test", 60)}
    folder = _write(tmp_path / "one", **parts)
    file = prepare_set(folder, _rules(), tmp_path / "cache")
    share = prepare_set(folder, _rules(validation="share"), tmp_path / "cache")
    assert len(_texts(file.data)) == 90
    assert len(_texts(file.valid)) == 30
    assert share.valid is None
    assert _texts(share.data) == _texts(file.data) + _texts(file.valid)
    assert file.count_labels() == share.count_labels()  # the baselines train on both anyway
    assert file.read_truth() == share.read_truth() == [label for _, label in parts["test"]]


def test_a_set_is_made_once_and_again_when_its_files_change(tmp_path):
    folder = _write(tmp_path / "one", all=_rows("text", 60))
    first = prepare_set(folder, _rules(), tmp_path / "cache")
    made = first.data.stat().st_mtime_ns
    assert prepare_set(folder, _rules(), tmp_path / "cache") == first
    assert first.data.stat().st_mtime_ns == made
    (folder / "all.parquet").unlink()
    rows = _rows("other", 60)
    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [x for _, x in rows]}),
                   folder / "all.parquet")  # fmt: skip
    assert prepare_set(folder, _rules(), tmp_path / "cache").data != first.data
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


def test_sets_are_found_by_their_files(tmp_path):
    _write(tmp_path / "small", all=_rows("a", 10))
    _write(tmp_path / "large", train=_rows("a", 5_000), test=_rows("b", 10))
    _write(tmp_path / "half", train=_rows("a", 10))  # has no test part
    (tmp_path / "README.md").write_text("about")
    assert [path.name for path in find_sets(tmp_path, ())] == ["large", "small"]
    with pytest.raises(UserError, match="--sets half: is not in "):
        find_sets(tmp_path, ("half",))
    with pytest.raises(UserError, match="no folder of data sets"):
        find_sets(tmp_path / "none", ())


def _reference_f1(truth, predicted):
    """F1 of each class that occurs in either, class by class."""
    found = {}
    for label in {*truth, *predicted}:
        hits = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
        found[label] = 2 * hits / (truth.count(label) + predicted.count(label))
    return found


def test_scores_are_those_of_a_reference():
    random = np.random.default_rng(0)
    names = [f"class {number}" for number in range(12)]
    truth = random.choice(names[:10], 300).tolist()  # of class 11 and 12 there is no row
    predicted = [
        label if label != names[0] and random.random() < 0.6 else str(random.choice(names[1:11]))
        for label in truth
    ]
    counts = {label: 100 - 8 * number for number, label in enumerate(names[1:])}  # 0 never trained
    found = score_labels(truth, predicted, counts)
    reference = _reference_f1(truth, predicted)
    assert found["macro_f1"] == pytest.approx(np.mean(list(reference.values())))
    assert found["accuracy"] == pytest.approx(
        np.mean([t == p for t, p in zip(truth, predicted, strict=True)])
    )
    head = [reference[name] for name in names[1:5]]
    assert found["thirds"]["head"] == pytest.approx(np.mean(head))


def test_rows_out_of_scope_are_left_out_of_a_score_of_their_own(tmp_path):
    folder = _write(tmp_path / "one", train=_rows("train", 90), test=_rows("test", 60))
    data = prepare_set(folder, _rules(), tmp_path / "cache")
    labels = ["a" if label == "oos" else label for label in data.read_truth()]
    pq.write_table(pa.table({"label": labels}), tmp_path / "predicted.parquet")
    scores = score_rows(data, tmp_path / "predicted.parquet")
    assert scores["all rows"]["accuracy"] == pytest.approx(2 / 3)
    assert scores["in scope"]["accuracy"] == 1
    assert scores["in scope"]["num_docs"] == 40


def _run(arm, name="one", seed=0, accuracy=0.5, outcome="done", **more):
    score = {"num_docs": 10, "accuracy": accuracy, "macro_f1": accuracy / 2, "weighted_f1": 0.1,
             "thirds": {"head": accuracy, "mid": None, "tail": 0.25}}  # fmt: skip
    run = {"arm": arm, "set": name, "seed": seed, "outcome": outcome, "seconds": 3.0}
    if outcome == "done":
        run |= {"scores": {"all rows": score}, "train_seconds": 2.0}
    return run | more


def test_means_spreads_and_how_far_ahead():
    runs = [_run(OURS, seed=0, accuracy=0.5), _run(OURS, seed=1, accuracy=0.7)]
    runs += [_run("tfidf", accuracy=0.3), _run("fasttext", accuracy=0.4)]
    ours, *others = sum_up(runs, [OURS])
    assert ours["arm"] == OURS
    assert ours["accuracy"]["mean"] == pytest.approx(0.6)
    assert ours["accuracy"]["spread"] == pytest.approx(0.1 * 2**0.5)
    assert ours["ahead"]["accuracy"] == pytest.approx(0.2)
    assert ours["thirds"]["mid"]["mean"] is None
    assert [row["arm"] for row in others] == ["tfidf", "fasttext"]
    assert "ahead" not in others[0]
    again = sum_up([*runs, _run(OURS, seed=1, accuracy=0.5)], [OURS])  # the later one counts
    assert again[0]["n"] == 2
    assert again[0]["accuracy"]["mean"] == 0.5


def test_the_table_names_what_failed():
    runs = [_run(OURS, accuracy=1.0), _run("tfidf", outcome="exit 1", error="no memory")]
    result = {
        "rows": sum_up(runs, [OURS]), "runs": runs, "development": False, "jobs": 2,
        "preset": "default", "finished": False,
        "machine": {"device": "CPU", "commit": "abc", "num_cores": 2, "date": "2026-01-31"},
    }  # fmt: skip
    lines = format_tables(result)
    assert lines[0] == "one, all rows: 10 test rows"
    assert "1.000" in lines[2]
    assert "one, tfidf, seed 0: exit 1: no memory" in lines
    assert lines[-1].endswith("not finished")


def test_every_command_can_be_read(tmp_path):
    """On a machine that is lent for minutes no flag may be misspelt."""
    from bench.quality_baselines import BaselineFlags
    from model.predict import PredictFlags

    folder = _write(tmp_path / "one", train=_rows("a", 30), valid=_rows("b", 9), test=_rows("c", 9))
    data = prepare_set(folder, _rules(), tmp_path / "cache")
    ours = Training(OURS, "--epochs 3", data, 2)
    train, predict = build_task(ours, tmp_path, "default", "none").commands
    read = parse_flags(Flags, train[1:], prog="", description="", presets=PRESETS)
    assert (read.train.epochs, read.train.seed, read.gpus) == (3, 2, "none")
    assert read.ingest.valid == str(data.valid)
    assert parse_flags(PredictFlags, predict[2:], prog="", description="").run == read.out
    for arm in BASELINES:
        (words,) = build_task(Training(arm, "", data, 2), tmp_path, "default", "none").commands
        assert len(parse_flags(BaselineFlags, words[2:], prog="", description="").data) == 2


def test_variants_are_arms(tmp_path):
    path = tmp_path / "variants.yaml"
    path.write_text("wide: --hidden 128\nplain:\n")
    arms = choose_arms(("wide", "plain"), "--epochs 3", path)
    assert arms == {"wide": "--epochs 3 --hidden 128", "plain": "--epochs 3"}
    for text, message in (
        ("- a\n", "must hold `name: flags`"), ("a: [1]\n", "must be flags"),
        ("tfidf: --epochs 3\n", "another arm"), ("../a: --epochs 3\n", "must be letters"),
        ("a: 'b\n", "not valid YAML"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            choose_arms((), "", path)


def test_a_baseline_that_is_not_installed_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(
        quality_arms.importlib.util,
        "find_spec",
        lambda name: None if name == "fasttext" else object(),
    )
    assert list(choose_arms((), "", None)) == [OURS, "tfidf"]
    assert "fasttext is left out: fasttext is not installed" in capsys.readouterr().out
    with pytest.raises(UserError, match="none of them is installed"):
        choose_arms(("fasttext",), "", None)
    with pytest.raises(UserError, match="--arms keras: is not one of"):
        choose_arms(("keras",), "", None)


def test_a_record_of_the_other_rows_is_refused(tmp_path):
    path = tmp_path / "quality.json"
    path.write_text(json.dumps({"runs": [], "development": True}))
    assert quality.read_record(path, True) == []
    with pytest.raises(UserError, match="one is of --development"):
        quality.read_record(path, False)
    path.write_text("{}")
    with pytest.raises(UserError, match="is no quality"):
        quality.read_record(path, False)


@pytest.mark.slow
def test_all_arms_from_end_to_end(tmp_path, capsys):
    for needed in ("fasttext", "sklearn"):
        pytest.importorskip(needed)
    words = {"a": "red round apple", "b": "long yellow banana", "oos": "nothing like fruit"}
    rows = [(f"{words[label]} {text}", label) for text, label in _rows("text", 1_200)]
    _write(tmp_path / "data" / "fruit", all=rows)
    out = tmp_path / "out"
    main([
        "--data", str(tmp_path / "data"), "--out", str(out), "--seeds", "0", "--gpus", "none",
        "--jobs", "4", "--flags=--epochs 2",
    ])  # fmt: skip
    record = json.loads((out / "quality.json").read_text())
    assert record["finished"], record["runs"]
    assert [run["outcome"] for run in record["runs"]] == ["done"] * 4
    found = {(row["arm"], row["part"]): row["accuracy"]["mean"] for row in record["rows"]}
    assert found == {
        (arm, part): 1.0 for arm in (OURS, *BASELINES) for part in ("all rows", "in scope")
    }
    assert (out / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert "fruit, in scope" in (out / "quality.txt").read_text()
    assert not (out / "runs").exists()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == record["rows"]
