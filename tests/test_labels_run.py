"""All steps, from the command line: whole, resumed, killed anywhere; decisions are kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labels.__main__ import main
from labels.run import Settings
from labels.step import MARK, ORDER, read_record, run_step
from shortline import UserError
from tests.review_page import Page

QUICK = ["--encode-steps", "40", "--hidden", "16", "--code-dim", "16", "--encode-batch", "64"]
QUICK += ["--split", "random"]
KINDS = ["your card {} was lost in the post", "reset the pin of {} please", "rates went up in {}"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    random = np.random.default_rng(0)
    names = ["Ann", "Bob", "Cy", "Dan", "Eve", "Flo", "Gil", "Hal"]
    texts = [KINDS[k].format(names[random.integers(8)]) for k in random.integers(0, 3, 600)]
    texts[5:8] = ["quite another thing altogether", None, ""]
    path = tmp_path_factory.mktemp("labels") / "in.parquet"
    columns = {"text": pa.array(texts, pa.string()), "label": [str(i) for i in range(600)]}
    columns |= {"probability": [0.5] * 600}  # as what model.predict has written
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "out"
    assert main(["run", str(source), "--out", str(out), "--no-review", *QUICK]) == 0
    return out


def test_every_row_is_there_in_order(source, made):
    result = pq.read_table(made / "labelled.parquet")
    given = pq.read_table(source)
    given_names = ["text", "input_label", "probability"]
    assert result.column_names == [*given_names, "cluster", "label", "duplicate_of"]
    assert result["text"].equals(given["text"])
    assert result["input_label"].to_pylist() == given["label"].to_pylist()
    assert result.schema.field("cluster").type == pa.int32()
    assert result.schema.field("duplicate_of").type == pa.int64()
    rows = result.to_pylist()
    for row in rows:
        assert (row["label"] is None) == (row["cluster"] is None)
        if row["duplicate_of"] is not None:
            kept = rows[row["duplicate_of"]]
            assert kept["label"] == row["label"]
            assert kept["duplicate_of"] is None
    assert [rows[i]["cluster"] for i in (5, 6, 7)] == [None] * 3
    kinds = {row["label"] for row in rows} - {None}
    assert len(kinds) == 3


def test_shards_can_be_trained_on(made):
    from tfdata.shards import open_shards

    shard_set = open_shards(made / "shards")
    record = read_record(made, "label")["counts"]
    total = sum(shard_set.num_docs(part) for part in ("train", "valid", "test"))
    assert total == record["to_learn_from"] > 3


def test_near_copies_can_be_kept_on_one_side(made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    main(["shards", str(out), "--split", "group"])
    counts = json.loads((out / "shards" / "manifest.json").read_text())["counts"]
    assert counts["near_groups"] == 3
    assert counts["one_group_classes"] == ["your card was"]  # it trains, as by train.py's own
    assert read_record(out, "shards")["counts"]["classes_without_validation"] == 1
    assert "near_groups" not in (made / "shards" / "manifest.json").read_text()


def test_near_copies_are_kept_on_one_side_unless_said_otherwise():
    assert Settings().shards.split == "group"


def test_the_report_is_whole_and_harmless(made):
    page = (made / "report.html").read_text("utf-8")
    assert "<script" not in page
    for words in ("What became of the documents", "without a text", "reset the pin"):
        assert words in page


def test_nothing_is_made_twice(source, made, capsys):
    before = {step: (made / step / "step.json").read_bytes() for step in ORDER}
    main(["run", str(source), "--out", str(made), "--no-review", *QUICK])
    assert capsys.readouterr().out.count("there already") == len(ORDER)
    assert before == {step: (made / step / "step.json").read_bytes() for step in ORDER}


def test_a_changed_setting_makes_its_step_anew_and_those_after_it(source, made, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    flags = ["run", str(source), "--out", str(out), "--no-review", *QUICK, "--near", "0.02"]
    main(flags)
    assert capsys.readouterr().out.count("there already") == ORDER.index("dedupe")


def test_a_decision_is_applied_again(source, made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    clusters = pq.read_table(out / "merge" / "clusters.parquet").to_pylist()
    journal = out / "review" / "journal.jsonl"
    journal.parent.mkdir(exist_ok=True)
    lines = [
        {"id": 1, "action": "rename", "clusters": [clusters[0]["key"]], "label": "mine"},
        {"id": 2, "action": "drop", "clusters": [clusters[1]["key"]]},
    ]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    main(["run", str(source), "--out", str(out), "--no-review", *QUICK])
    result = pq.read_table(out / "labelled.parquet").to_pylist()
    numbers = [clusters[0]["cluster"], clusters[1]["cluster"]]
    assert {r["label"] for r in result if r["cluster"] == numbers[0]} == {"mine"}
    assert {r["label"] for r in result if r["cluster"] == numbers[1]} == {None}
    main(["run", str(source), "--out", str(out), "--no-review", *QUICK, "--eps", "0.05"])
    result = pq.read_table(out / "labelled.parquet").to_pylist()
    assert "mine" in {r["label"] for r in result}


def test_an_input_that_was_changed_meanwhile_is_not_labelled(source, made, tmp_path):
    ours, out = tmp_path / source.name, tmp_path / "out"
    shutil.copy(source, ours)
    shutil.copytree(made, out)
    before = (out / "labelled.parquet").read_bytes()
    table = pq.read_table(ours)
    pq.write_table(table.take(np.arange(len(table))[::-1]), ours)  # as many rows, in another order
    (out / "label" / "step.json").unlink()
    record = json.loads((out / "clean" / "step.json").read_bytes())
    record["counts"]["source"] = str(ours)
    (out / "clean" / "step.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"in.parquet: was changed .* run INPUT --out"):
        main(["label", str(out)])
    assert (out / "labelled.parquet").read_bytes() == before


@pytest.fixture
def copied(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "out"))


@pytest.mark.parametrize("step", ["cluster", "merge", "decide", "dedupe", "label"])
def test_what_was_made_of_an_earlier_step_is_gone_when_that_is_made_anew(step, copied, capsys):
    flags = {"cluster": ["--eps=0.07"], "merge": ["--merge-ratio=2"], "dedupe": ["--near=0.4"]}
    if step == "decide":
        (copied / "review").mkdir()
        line = {"id": 1, "action": "drop", "clusters": [first_key(copied)]}
        (copied / "review" / "journal.jsonl").write_text(json.dumps(line) + "\n")
    if step == "label":
        (copied / "labelled.parquet").unlink()
    main([step, str(copied), *flags.get(step, [])])
    later = ORDER[ORDER.index(step) + 1 :]
    assert not [name for name in later if (copied / name).exists()]
    assert (copied / "labelled.parquet").exists() == (step == "label")
    assert not (copied / "report.html").exists()
    assert f"deleted what was made of the old one: {later[0]}" in capsys.readouterr().out
    if len(later) > 1:
        with pytest.raises(UserError, match=f"step {later[0]} is missing; .* {later[0]} {copied}"):
            main([later[1], str(copied)])


def first_key(folder: Path) -> str:
    return pq.read_table(folder / "merge" / "clusters.parquet")["key"][0].as_py()


def test_steps_that_do_not_belong_together_are_not_joined(made, copied):
    """The merge step of other clusters, by whatever way it came there."""
    main(["cluster", str(copied), "--eps", "0.07"])
    for step in ("merge", "decide", "dedupe", "label"):
        shutil.copytree(made / step, copied / step)
    stale = f"the step merge was made from other steps .* python -m labels merge {copied}"
    for step in ("decide", "dedupe", "label", "report", "shards"):
        with pytest.raises(UserError, match=stale):
            main([step, str(copied)])
    assert not (copied / "labelled.parquet").exists()


def test_decisions_made_after_they_were_applied_are_not_left_out(copied):
    (copied / "review").mkdir()
    line = {"id": 1, "action": "drop", "clusters": [first_key(copied)]}
    (copied / "review" / "journal.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=f"review has gone on .* labels decide {copied}"):
        main(["label", str(copied)])
    for step in ("decide", "dedupe", "label"):
        main([step, str(copied)])
    assert None in pq.read_table(copied / "labelled.parquet")["label"].to_pylist()[:5]


def test_a_step_by_itself_keeps_its_settings(source, copied, capsys):
    main(["dedupe", str(copied), "--near", "0.4"])
    assert "set as it was before" not in capsys.readouterr().out
    main(["cluster", str(copied), "--eps", "0.07"])
    main(["cluster", str(copied)])
    told = capsys.readouterr().out
    assert "cluster: set as it was before: --eps 0.07\n" in told
    assert "cluster: there already" in told
    for step in ("merge", "decide", "dedupe"):  # that of dedupe was deleted meanwhile
        main([step, str(copied)])
    assert read_record(copied, "dedupe")["config"]["near"] == 0.4
    main(["cluster", str(copied), "--eps", "None"])
    assert read_record(copied, "cluster")["config"]["eps"] is None
    main(["encode", str(copied)])
    main(["clean", str(source), "--out", str(copied), "--no-mask-hex"])
    main(["clean", str(source), "--out", str(copied)])
    assert read_record(copied, "clean")["config"]["mask_hex"] is False
    (copied / MARK).write_text("{")
    main(["clean", str(source), "--out", str(copied)])
    assert read_record(copied, "clean")["config"]["mask_hex"] is False


def test_a_step_that_fails_takes_nothing_away(made, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    monkeypatch.setattr("labels.encode.encode_window", lambda *_: np.full((3, 2), np.nan))
    with pytest.raises(UserError, match=r"--encode-rate 0\.02: .* diverged.* try 0\.002"):
        main(["encode", str(out), *QUICK, "--encode-rate", "0.02"])
    assert (out / "labelled.parquet").read_bytes() == (made / "labelled.parquet").read_bytes()
    assert (out / "cluster" / "step.json").exists()


def test_an_input_may_be_moved(source, copied, tmp_path, capsys):
    ours, moved = tmp_path / "a.parquet", tmp_path / "b" / "c.parquet"
    flags = ["--out", str(copied), "--no-review", *QUICK]
    shutil.copy(source, ours)
    main(["run", str(ours), *flags])
    (tmp_path / "b").mkdir()
    ours.rename(moved)
    (copied / "labelled.parquet").unlink()
    with pytest.raises(UserError, match=r"a.parquet: is not there any more.* labels clean INPUT"):
        main(["label", str(copied)])
    capsys.readouterr()
    main(["run", str(moved), *flags])
    assert capsys.readouterr().out.count("there already") == ORDER.index("label")
    assert read_record(copied, "clean")["counts"]["source"] == str(moved)
    assert (copied / "labelled.parquet").exists()


def test_the_last_line_is_json_for_scripts_and_a_sentence_for_people(
    source, copied, capsys, monkeypatch
):
    flags = ["run", str(source), "--out", str(copied), "--no-review", *QUICK]
    main(flags)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["out"] == str(copied)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(flags)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"done: labelled.parquet, report.html in {copied}; to train: python train.py "
        f"--data {copied}/shards"
    )


def test_a_review_is_finished_for_the_clusters_that_it_was_of(made, tmp_path):
    from labels.review import FINISHED, finish, is_finished

    out = tmp_path / "out"
    shutil.copytree(made, out)
    assert not is_finished(out)
    (out / FINISHED.parent).mkdir(exist_ok=True)  # as the journal does
    opened = read_record(out, "merge")["key"]
    finish(out, opened)
    assert is_finished(out)
    record = json.loads((out / "merge" / "step.json").read_bytes())
    (out / "merge" / "step.json").write_text(json.dumps(record | {"key": "other clusters"}))
    assert not is_finished(out)
    with pytest.raises(UserError, match="made anew since this review was opened"):
        finish(out, opened)
    assert not is_finished(out)


def start_review(words: list[str]) -> tuple[subprocess.Popen[str], str]:
    """A process that serves the page, and the page's address."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "labels", *words], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("review: "):
            return process, line.split()[1]
    raise AssertionError(f"ended with {process.wait()}")


@pytest.mark.slow
def test_finishing_elsewhere_lets_a_waiting_run_go_on(source, made, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    shutil.rmtree(out / "decide")
    (out / "labelled.parquet").unlink()
    words = ["run", str(source), "--out", str(out), *QUICK]
    waiting, _ = start_review(words)
    reviewing, address = start_review(["review", str(out)])
    page = Page(int(re.findall(r":(\d+)/", address)[0])).enter(address)
    largest = max(page.post("/api/state")[1]["groups"], key=lambda group: group["size"])
    assert page.decide("rename", (largest["id"], 0), label="looked at")[0] == 200
    assert page.post("/api/finish") == (200, {})
    for process in (reviewing, waiting):
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert "looked at" in pq.read_table(out / "labelled.parquet")["label"].to_pylist()


def test_a_step_is_made_whole_or_not_at_all(tmp_path):
    def fail(folder: Path):
        (folder / "points.parquet").write_text("half")
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        run_step(tmp_path, "clean", None, fail)
    assert list(tmp_path.iterdir()) == []


def test_a_step_wants_those_before_it(tmp_path):
    with pytest.raises(UserError, match="step clean is missing"):
        run_step(tmp_path, "encode", None, lambda folder: {})


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ([], "say what to do"),
        (["sort"], "say what to do"),
        (["run", "no.csv", "--out", "{}/o", "--no-review"], "no such file"),
        (["cluster", "{}/none"], "no labelling"),
        (["run", "x", "--out", "{}/o", "--eps", "3"], "--eps 3"),
        (["run", "x", "--out", "{}/o", "--near", "0.9"], "--near 0.9"),
        (["run", "x", "--out", "{}/o", "--valid", "7"], "--valid 7"),
        (["run", "x", "--out", "{}/o", "--valid", "half"], "--valid half"),
        (["run", "x", "--out", "{}/o", "--vocab-size", "0"], "--vocab-size 0"),
    ],
)
def test_what_is_wrong_is_said(argv, why, tmp_path):
    with pytest.raises(UserError, match=why):
        main([word.format(tmp_path) for word in argv])


def test_settings_are_those_of_the_step_that_is_there(copied):
    """As after a kill between the two files, or where the one beside the steps is damaged."""
    mark = copied / "labels.json"
    kept = json.loads(mark.read_bytes())
    kept["settings"]["dedupe"]["near"] = 0.4
    mark.write_text(json.dumps(kept))
    main(["dedupe", str(copied)])
    assert (copied / "labelled.parquet").exists()
    mark.write_text("[]")
    main(["dedupe", str(copied)])
    assert (copied / "labelled.parquet").exists()
    shutil.rmtree(copied / "shards")
    with pytest.raises(UserError, match=r"labels.json: damaged .* write \{\} into it"):
        main(["shards", str(copied)])


def test_another_steps_flag_is_not_swallowed(copied, capsys):
    main(["dedupe", str(copied), "--eps", "0.2"])
    assert "--eps 0.2 does nothing here: it is of the step cluster\n" in capsys.readouterr().out


@pytest.mark.parametrize(("num", "why"), [(1, "nothing to learn"), (0, "no cluster was found")])
def test_too_few_clusters_are_said(num, why, tmp_path):
    texts = ["one and the same"] * 9 if num else ["a b", "cc dd ee", "ffff ggg hh"]
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": texts}), path)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=why):
        main(["run", str(path), "--out", str(out), "--no-review", "--encoder", "tfidf"])


def test_dropped_clusters_labels_are_not_counted(copied):
    clusters = pq.read_table(copied / "merge" / "clusters.parquet").to_pylist()
    (copied / "review").mkdir(exist_ok=True)
    decision = {"id": 1, "action": "drop", "clusters": [clusters[0]["key"]]}
    (copied / "review" / "journal.jsonl").write_text(json.dumps(decision) + "\n")
    for step in ("decide", "dedupe", "label"):
        main([step, str(copied)])
    labels = set(pq.read_table(copied / "labelled.parquet")["label"].to_pylist()) - {None}
    assert read_record(copied, "label")["counts"]["labels"] == len(labels) == len(clusters) - 1


def test_a_start_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "in.csv").write_text("text,more\n,1\n,2\n")
    with pytest.raises(UserError, match="no row has a text"):
        main(["run", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out"), "--no-review"])
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_folder_of_other_things_is_left_alone(source, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="other files"):
        main(["run", str(source), "--out", str(tmp_path), "--no-review"])
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["clean", "encode", "cluster", "merge", "dedupe", "shards"])
def test_killed_within_a_step_it_goes_on(source, made, step, tmp_path):
    out = tmp_path / "out"
    words = ["-m", "labels", "run", str(source), "--out", str(out), "--no-review", *QUICK]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL)
    before = ORDER.index(step) - 1
    while process.poll() is None:  # until the step has begun
        if before < 0 or (out / ORDER[before] / "step.json").exists():
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(words[2:]) == 0
    ours, straight = (pq.read_table(f / "labelled.parquet") for f in (out, made))
    assert ours.equals(straight)
    assert not list(out.glob(".*.tmp"))


_KILLS = """
import os, signal, sys
name, nth = sys.argv[1], int(sys.argv[2])
from labels.__main__ import main

def strike(call):
    def moved(source, target, **others):
        global nth
        nth -= str(target).endswith(name)
        if nth == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        call(source, target, **others)
    return moved

os.replace, os.rename = strike(os.replace), strike(os.rename)
main(sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "nth"),  # first the old one is moved away, then the new one is written, and moved
    [
        ("/merge", 1), ("/merge", 2), ("/decide", 2), ("/dedupe", 2), ("labelled.parquet", 1),
        ("labelled.parquet", 2), ("labelled.parquet", 3), ("/label", 1), ("/label", 2),
        ("report.html", 2), ("report.html", 3), ("manifest.json", 1), ("/shards", 1),
        ("/shards", 2),
    ],
)  # fmt: skip
def test_killed_where_a_file_takes_its_place_it_goes_on(source, made, name, nth, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    flags = ["run", str(source), "--out", str(out), "--no-review", *QUICK, "--merge-ratio", "0.86"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-c", _KILLS, name, str(nth), *flags]
    process = subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=False)
    assert process.returncode == -signal.SIGKILL
    assert main(flags) == 0
    assert (out / "labelled.parquet").read_bytes() == (made / "labelled.parquet").read_bytes()
    assert not list(out.glob(".*.tmp"))


def test_the_picture_has_points_of_small_clusters_too():
    from labels.report import choose_points

    random = np.random.default_rng(0)
    clusters = np.sort(np.concatenate([np.zeros(30_000), np.ones(30_000), np.full(9, 2), [-1] * 9]))
    clusters = clusters.astype(np.int32)
    chosen = choose_points(clusters, random.permutation(len(clusters)))
    assert len(np.unique(chosen)) == len(chosen) < 4_100
    counts = np.bincount(clusters[chosen] + 1, minlength=4)
    assert counts[3] == 9
    assert 1_800 < counts[1] < 2_200  # at random, not the first ones


def test_the_report_shows_what_the_review_made(source, made, tmp_path):
    """Clusters merged by hand show texts of both."""
    out = tmp_path / "out"
    shutil.copytree(made, out)
    clusters = pq.read_table(out / "merge" / "clusters.parquet").to_pylist()
    assert "review&#x27;s decisions" not in (out / "report.html").read_text("utf-8")
    (out / "review").mkdir(exist_ok=True)
    decision = {"id": 1, "action": "merge", "clusters": [c["key"] for c in clusters[:2]]}
    (out / "review" / "journal.jsonl").write_text(json.dumps(decision) + "\n")
    main(["run", str(source), "--out", str(out), "--no-review", *QUICK])
    page = (out / "report.html").read_text("utf-8")
    assert "review&#x27;s decisions" in page
    row = next(r for r in page.split("<tr") if clusters[0]["label"] in r)
    firsts = {row.count(c["examples"][0][:9]) > 0 for c in clusters[:2]}
    assert firsts == {True}, row
