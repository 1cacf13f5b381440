"""Flags, presets and files of flags: which wins, and what is said of those that are wrong."""

from __future__ import annotations

import pytest
import yaml

import train
from model.flags import read_flags, settle
from shortline import UserError, flat_values
from tfdata import ingest


def test_presets_yaml_and_flags_win_in_this_order(tmp_path):
    (tmp_path / "c.yaml").write_text("hidden: 24\nepochs: 7\nbidirectional: true\ndata: [a, b]\n")
    flags = read_flags(["--preset=seed", f"--config={tmp_path / 'c.yaml'}", "--epochs", "3"])
    assert (flags.model.hidden, flags.train.epochs, flags.model.bidirectional) == (24, 3, True)
    assert flags.model.num_layers == 2  # the preset's
    assert flags.data == ("a", "b")
    assert flags.train.clip_norm is None


def test_the_written_config_gives_the_same_settings(straight):
    written = yaml.safe_load((straight / "config.yaml").read_text())
    flags = flat_values(read_flags(["--config", str(straight / "config.yaml")]))
    assert {**flags, "config": None} == written


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--max-len=0"], "--max-len 0"),
        (["--batch-size=-3"], "--batch-size -3"),
        (["--epochs", "x"], "--epochs"),
        (["--preset", "sed"], "--preset sed.*default, seed"),
        (["--no-such"], "--no-such"),
        (["--data", "no.csv"], r"no\.csv"),
        (["--data", "--epochs", "1"], "--data: has no value, or an empty one"),
        (["--epochs", "1", "--data"], "--data: has no value, or an empty one"),
        (["--data", ""], "--data: has no value, or an empty one"),
        (["--data=", "--epochs", "1"], "--data: has no value, or an empty one"),
        (["--epochs", "1", "--out", ""], "--out: has no value, or an empty one"),
        (["--out=", "--epochs", "1"], "--out: has no value, or an empty one"),
        (["--data", "a.csv", "", "--epochs", "1"], "an empty value"),
        (["--valid", ""], "--valid: has no value, or an empty one"),
        (["--data", "a.csv", "--split", "group", "--valid", "b.csv"], "--split group: there is no"),
        (["--gpus", "3"], "--gpus 3: asks for 3 GPUs, and TensorFlow sees no GPU"),
        (["--gpus", "x"], "--gpus x"),
        (["--gpus", "0"], "--gpus 0: say none"),
        (
            ["--route", "cudnn", "--gpus", "none", "--data", "no.csv"],
            "--route cudnn: does not run without a GPU in float32; choose auto, block or keras",
        ),
        (["--valid", "1.5"], "--valid 1.5"),
        (["--config", "no.yaml"], r"no\.yaml"),
        (["--resume", "no-run"], "--resume no-run"),
    ],
)
def test_wrong_flags_are_named(argv, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        train.main(argv if "--data" in argv else [*argv, "--docs=1000"])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_a_misspelt_key_of_a_yaml_file_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("max_lne: 30\n")
    with pytest.raises(UserError, match=r"c\.yaml: unknown key `max_lne`; did you mean `max_len`"):
        train.main(["--config", str(tmp_path / "c.yaml")])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bidirectional: maybe", "`bidirectional` must be true or false, not 'maybe'"),
        ("bidirectional:", "`bidirectional` must be true or false, not None"),
        ("valid:", "`valid` must be a value, not null; leave the key out"),
        ("data: null", "`data` must be a value, not null; leave the key out"),
        ("data: [a.csv, -d.csv]", "`data`: -d.csv begins with a dash; write ./-d.csv"),
        ("tokenizer: words", "`tokenizer` words: must be word or wordpiece"),
        ("epochs: many", "`epochs` many: must be None or a whole number"),
        ("epochs: [3, 4]", "`epochs` must be a single value"),
        ("epochs: -3", "`epochs` -3: must be 1 or more"),
        ("batch-size: 3.5", "`batch-size` 3.5: must be a whole number or auto"),
        ("learning_rate: fast", "`learning_rate` fast: must be a number"),
        ("preset: sed", "`preset` sed: unknown; choose one of default, seed"),
        ("data: [a.csv, '']", "`data`: one of its names is empty"),
        ("valid: ''", "`valid` '': must be a share from 0 up to 1, or a file"),
        ("split: group\nvalid: b.csv", "`split` group: there is nothing to split"),
    ],
)
def test_a_wrong_value_of_a_yaml_file_is_named_with_file_and_key(line, said, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(f"hidden: 24\n{line}\n")
    with pytest.raises(UserError) as caught:
        read_flags(["--config", str(path)])
    assert str(caught.value).startswith(f"--config {path}: {said}")


def test_values_of_a_yaml_file_may_look_like_flags(tmp_path):
    (tmp_path / "c.yaml").write_text("filters: '--'\ntext: --label\n")
    flags = read_flags(["--config", str(tmp_path / "c.yaml")])
    assert (flags.tokenizer.filters, flags.ingest.text) == ("--", "--label")


def test_values_that_may_be_empty():
    assert read_flags(["--filters", "", "--epochs", "1"]).tokenizer.filters == ""
    assert read_flags(["--filters="]).tokenizer.filters == ""


@pytest.mark.parametrize("words", [["", "--out", "x"], ["--out", "x", "a.csv", ""]])
def test_an_empty_name_of_an_input_is_no_folder(words):
    """It would be the current one, with all that is in it."""
    with pytest.raises(UserError, match="an empty value, '', among others"):
        ingest.main(words)


def test_a_resumed_run_stays_in_its_folder(straight, tmp_path):
    with pytest.raises(UserError, match=r"--out .*other: a resumed run stays in its folder"):
        read_flags(["--resume", str(straight), "--out", str(tmp_path / "other")])
    same = f"{straight}/../{straight.name}"
    assert read_flags(["--resume", str(straight), "--out", same]).out == str(straight)


def test_of_a_wrong_value_on_the_command_line_no_file_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("epochs: 3\nmax_len: 0\ntokenizer: word\n")
    for words in (["--epochs=many"], ["--tokenizer", "words"]):
        with pytest.raises(UserError) as caught:
            read_flags([f"--config={tmp_path / 'c.yaml'}", "--max_len", "9", *words])
        assert str(caught.value).startswith(words[0].partition("=")[0] + " ")


def test_a_folder_with_another_run_is_left_alone(straight, small_shards):
    before = sorted(straight.rglob("*"))
    with pytest.raises(UserError, match="holds another run"):
        train.main(["--data", str(small_shards.folder), "--out", str(straight)])
    assert sorted(straight.rglob("*")) == before


@pytest.mark.parametrize(
    ("asked", "device_bytes", "settled", "note"),
    [
        ("auto", 0, "host", ""),
        ("auto", 2**34, "device", ""),
        ("auto", 2**10, "host", ""),
        ("auto", None, "host", "NVML does not tell the GPU's memory"),
        ("device", 0, "device", "--residency device without a GPU: the token ids are in main"),
        ("device", None, "device", ""),
        ("stream", None, "stream", ""),
    ],
)
def test_what_becomes_of_the_residency_is_said(
    small_shards, capsys, asked, device_bytes, settled, note
):
    flags = settle(read_flags([f"--residency={asked}"]), small_shards, device_bytes)
    assert flags.pipeline.residency == settled
    printed = capsys.readouterr().out
    assert note in printed
    assert bool(printed) == bool(note)


def test_yaml_nested_too_deep_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "deep.yaml"
    path.write_text("a: " + "[" * 100_000)
    with pytest.raises(UserError, match=r"deep\.yaml: not valid YAML"):
        read_flags(["--config", str(path)])
