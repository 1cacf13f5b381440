"""--split time: the newest rows are held out, exactly as many as asked for, whatever the order."""

from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import train
from model.flags import read_flags
from shortline import UserError
from tests.runs import SMALL
from tests.test_ingest import docs, make
from tfdata import doctor, ingest
from tfdata.config import IngestConfig
from tfdata.summary import summarize
from tfdata.time_split import TimeSplitBuilder, find_largest
from tfdata.times import parse_times

FIRST = datetime(2020, 1, 1, tzinfo=timezone.utc)


def write(path, rows, name="when"):
    with open(path, "w") as file:
        file.write(f"text,label,{name}\n" + "".join(",".join(map(str, r)) + "\n" for r in rows))
    return path


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), min_size=1), st.data())
def test_the_nth_largest(values, data):
    count = data.draw(st.integers(1, len(values)))
    chunks = np.array_split(np.array(values, np.uint64), 3)
    found, place = find_largest(lambda: iter(chunks), count)
    assert found == sorted(values, reverse=True)[count - 1]
    assert place == count - sum(value > found for value in values)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([np.nan, -7.5, -0.0, 0.0, 3.0, 1e15, np.inf]), min_size=3),
    st.sampled_from([(0.1, 0.0), (0.3, 0.2), (0.0, 0.5)]),
)
def test_the_newest_are_held_out(times, shares):
    times = np.array(times)
    hashes = np.random.default_rng(0).integers(0, 2**62, len(times)).astype(np.uint64)
    codes = np.zeros(len(times), np.int32)
    with TemporaryDirectory() as folder:
        builder = TimeSplitBuilder(Path(folder), valid=shares[0], test=shares[1])
        builder.add(hashes, codes, 0, times)
        split, counts = builder.build(1)
    parts = split.parts(hashes, codes, codes, times)
    timed = int((~np.isnan(times)).sum())
    num_test = round(timed * shares[1])
    assert (parts == 2).sum() == num_test
    assert (parts == 1).sum() == round(timed * shares[0])
    assert not parts[np.isnan(times)].any()
    for older, newer in ((0, 1), (1, 2), (0, 2)):
        if (parts == older).any() and (parts == newer).any():
            assert np.nanmax(times[parts == older], initial=-np.inf) <= times[parts == newer].min()
    assert counts.part_docs.tolist() == [np.bincount(parts, minlength=3).tolist()]
    assert counts.by["without_time"] == np.isnan(times).sum()


@pytest.mark.parametrize("kind", ["number", "day", "second", "parquet"])
def test_by_a_column(tmp_path, kind):
    """In any order of rows; what the newest tenth has is what the model never saw."""
    order = np.random.default_rng(0).permutation(200)
    days = [FIRST + timedelta(days=int(i)) for i in order]
    times = {
        "number": order.tolist(),
        "day": [f"{day:%Y-%m-%d}" for day in days],
        "second": [day.isoformat() for day in days],
        "parquet": days,
    }[kind]
    rows = [(f"text {i}", "new" if i >= 190 else f"c{i % 3}") for i in order]
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        texts, labels = zip(*rows, strict=True)
        pq.write_table(pa.table({"text": texts, "label": labels, "when": times}), path)
    else:
        path = write(tmp_path / "a.csv", [(*row, t) for row, t in zip(rows, times, strict=True)])
    shard_set = make(path, tmp_path / "out", split="time", time="when", test="0.05")
    newest = {
        part: {int(t.split()[1]) for t, _ in docs(shard_set, part)} for part in ("valid", "test")
    }
    assert newest == {"valid": set(range(170, 190)), "test": set(range(190, 200))}
    assert shard_set.unseen_labels == ("new",)
    assert "1 labels stand in validation or test alone; they are never learned: new" in summarize(
        shard_set
    )


def test_rows_without_time_train_and_recurring_texts_are_counted(tmp_path):
    rows = [(f"text {i % 95}", f"c{i % 2}", i) for i in range(100)]
    rows += [("no time", "c0", ""), ("nor here", "c1", " ")]
    shard_set = make(write(tmp_path / "a.csv", rows), tmp_path / "out", split="time", time="when")
    assert shard_set.num_docs("valid") == 10
    assert {"no time", "nor here"} <= {text for text, _ in docs(shard_set, "train")}
    summary = summarize(shard_set)
    assert "2 documents have no time, and train" in summary
    assert "5 texts of the training part come again in a newer one" in summary


def test_a_test_file_needs_no_time(tmp_path):
    path = write(tmp_path / "a.csv", [(f"text {i}", f"c{i % 2}", i) for i in range(50)])
    (tmp_path / "t.csv").write_text("text,label\nnew,c0\n")
    test = str(tmp_path / "t.csv")
    shard_set = make(path, tmp_path / "out", split="time", time="when", test=test)
    assert docs(shard_set, "test") == [("new", "c0")]
    assert sorted(text for text, _ in docs(shard_set, "valid")) == [
        f"text {i}" for i in range(45, 50)
    ]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (
            ["2024-01-01", "31.12.2024"],
            r"a\.csv: row 3: --time when holds `31\.12\.2024`: write all",
        ),
        (["2024", "2024-01-01"], r"row 2: --time when holds `2024`"),
        (["", ""], "--time when: no row has a value"),
    ],
)
def test_what_is_no_time_is_said(tmp_path, times, said):
    path = write(tmp_path / "a.csv", [(f"text {i}", f"c{i}", t) for i, t in enumerate(times)])
    with pytest.raises(UserError, match=said):
        make(path, tmp_path / "out", split="time", time="when")


def test_two_kinds_in_two_files_are_refused(tmp_path):
    files = [write(tmp_path / f"{n}.csv", [("a", "b", t)]) for n, t in enumerate((7, "2024-01-01"))]
    with pytest.raises(
        UserError, match=r"1\.csv: --time when holds numbers in some rows and dates"
    ):
        make(files, tmp_path / "out", split="time", time="when")


def test_a_missing_column_is_said(tmp_path):
    path = write(tmp_path / "a.csv", [("a", "b", 1)])
    with pytest.raises(UserError, match=r"no column `whem` for --time; did you mean --time when\?"):
        make(path, tmp_path / "out", split="time", time="whem")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"split": "time"}, "name the column"),
        ({"time": "when"}, "--time when: needs --split time"),
    ],
)
def test_flags_go_together(flags, said):
    with pytest.raises(ValueError, match=said):
        IngestConfig(**flags)


@pytest.mark.parametrize(
    "flags",
    [
        ["--split=group", "--valid=v.csv"],
        ["--split=time", "--time=t", "--test=t.csv", "--valid=0"],
        ["--split=group", "--valid=0"],
    ],
)
def test_nothing_to_split_is_refused(flags, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    for command in (
        lambda: train.main(["--data", str(tmp_path / "a.csv"), *flags]),
        lambda: ingest.main([str(tmp_path / "a.csv"), "--out", str(tmp_path / "x"), *flags]),
        lambda: doctor.main([str(tmp_path / "a.csv"), *flags]),
    ):
        with pytest.raises(UserError, match="there is nothing to split"):
            command()


def test_a_run_of_before_it_was_refused_goes_on(tmp_path, monkeypatch):
    rows = [(f"word{i} of {i % 2}", f"c{i % 2}", i) for i in range(60)]
    data, valid = (write(tmp_path / name, rows) for name in ("a.csv", "v.csv"))
    run = tmp_path / "run"
    with monkeypatch.context() as before:
        before.setattr(IngestConfig, "check_split", lambda self: None)
        files = ["--data", str(data), "--valid", str(valid), "--split=group", "--out", str(run)]
        assert train.main([*files, *SMALL]) == 0
    assert train.main(["--resume", str(run)]) == 0


def test_the_settings_as_words_of_a_command_line_give_the_same_settings():
    config = IngestConfig(valid="v.csv", test="0.2", skip_bad_rows=True, split_seed=3)
    words = ["--valid", "v.csv", "--test", "0.2", "--split-seed", "3", "--skip-bad-rows"]
    assert config.given() == words
    assert read_flags(["--data", "a.csv", *words]).ingest == config
    assert not IngestConfig().given()


def test_equal_instants_in_several_zones_are_equal():
    texts = pa.array(["2024-03-01T12:00:00+01:00", "2024-03-01 11:00", "2024-03-01T11:00:00.0Z"])
    times, kind = parse_times(texts)
    assert kind == "dates"
    assert len(set(times.tolist())) == 1
