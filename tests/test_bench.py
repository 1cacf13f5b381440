"""The benchmark's figures hang together, and its clock excludes what it should."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from bench import steps, timing
from bench.ceiling import step_flops
from bench.rows import find_limit
from bench.step_time import main
from model.classifier import Classifier
from model.config import ModelConfig
from model.flags import read_flags
from model.made_up import make_batch, repeat_batches
from shortline import UserError
from tfdata.pipeline import Batch

BATCH_SIZE, LENGTHS = 32, (3, 5)
TINY = [
    "--gpus", "none", "--batch-sizes", str(BATCH_SIZE), "--lengths", *map(str, LENGTHS),
    "--docs", "1000", "--seconds", "0.01", "--preset", "seed",
]  # fmt: skip


def test_a_tiny_run(tmp_path, monkeypatch, capsys):
    """One test of many parts: the run takes some seconds."""
    traced = []
    call = Classifier.call
    monkeypatch.setattr(
        Classifier, "call", lambda self, *args: traced.append(self.route) or call(self, *args)
    )
    main([*TINY, "--variants", "no_dropout", "--out", str(tmp_path / "record")])
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    _check_rows(result["rows"])
    for row in result["rows"]:
        _check_figures(row, result["ceiling"]["matmul_gflop_per_s"])
    # the made-up batch of each length by each route, the mix and the feed: traced once each
    assert traced == ["block", "keras", "block"] * len(LENGTHS) + ["block", "block"] * 3
    assert (tmp_path / "record" / "step_time.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "record" / "step_time.json").read_text()) == result
    lines = (tmp_path / "record" / "step_time.txt").read_text().splitlines()
    assert lines[0].startswith("ceiling: ")
    assert lines == printed[-1 - len(lines) : -1]
    assert lines[-1].startswith("at the end, ceiling: ")
    assert len(lines) == 3 + 1 + len(result["rows"]) + 2
    assert result["limits"][0]["limit"] == "step"
    assert result["machine"]["versions"]["tensorflow"] == tf.__version__


def _check_rows(rows):
    found = [(row["kind"], row.get("name"), row.get("length")) for row in rows]
    names = ("block", "keras", "no_dropout")
    steps_ = [("step", name, length) for length in LENGTHS for name in names]
    assert found[: len(steps_)] == steps_
    others = ["input encode"]
    for source in ("stream", "host", "device"):
        others += [f"input {source}", f"mix {source}", f"end-to-end {source}"]
    assert [f"{row['kind']} {row['source']}" for row in rows[len(steps_) :]] == others
    assert all(row["batch_size"] == BATCH_SIZE for row in rows if row.get("source") != "encode")


def _check_figures(row, peak):
    assert 0 < row["step_ms_p10"] <= row["step_ms"] <= row["step_ms_p90"]
    assert row["num_chunks"] >= (4 if row["kind"] in ("mix", "end-to-end") else 6)
    assert row["steps_per_chunk"] >= 1
    steps_per_s = 1000 / row["step_ms"]
    if row["kind"] == "step":
        assert row["docs_per_s"] == pytest.approx(BATCH_SIZE * steps_per_s)
        assert row["tokens_per_s"] == pytest.approx(BATCH_SIZE * row["length"] * steps_per_s)
        assert row["gflop_per_s"] == pytest.approx(row["gflop_per_step"] * steps_per_s)
    if "gflop_per_s" in row:
        assert row["peak_fraction"] == pytest.approx(row["gflop_per_s"] / peak)
    if row["kind"] == "input" and row["source"] != "encode":
        assert 0 <= row["padding_fraction"] < 1
    if row["kind"] != "step" and row["source"] != "encode":
        # only the last batch of an epoch is not full
        assert 0.9 < row["docs_per_s"] / steps_per_s / BATCH_SIZE <= 1.001


def test_a_record_is_not_written_over(tmp_path):
    (tmp_path / "step_time.json").write_text("{}")
    with pytest.raises(UserError, match="holds a record"):
        main([*TINY, "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--routes", "torch"], "--routes"),
        (["--routes", "cudnn", "--gpus", "none"], "choose from block, keras"),
        (["--routes", "block", "--precision", "mixed_bfloat16", "--gpus", "none"], "from keras"),
        (["--preset", "best"], "--preset best"),
        (["--batch-sizes", "0"], "--batch-sizes 0"),
        (["--docs", "1500", "--batch-sizes", "1024"], "2048 or more"),
        (["--seconds", "0"], "--seconds 0"),
        (["--variants", "keras_cudnn", "--gpus", "none"], "--variants keras_cudnn: needs a GPU"),
    ],
)
def test_wrong_flags_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        main(words)


def test_the_clock_leaves_out_warm_up_and_takes_turns(monkeypatch):
    now = 0.0
    order = []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)

    def build_run(name, cost):
        done = 0

        def run(num_steps):
            nonlocal now, done
            order.append(name)
            for _ in range(num_steps):
                now += 100.0 if done < 3 else cost  # the first three steps are cold
                done += 1

        return run

    runs = [build_run("a", 0.001), build_run("b", 0.002)]
    one, other = timing.time_in_turns(runs, seconds=1.0, warmup_steps=2)
    np.testing.assert_allclose(one.samples_ms, 1.0, rtol=1e-6)
    np.testing.assert_allclose(other.samples_ms, 2.0, rtol=1e-6)
    assert one.summary()["step_ms_p90"] == pytest.approx(1.0)
    turns = [a for a, b in zip(order, [*order[1:], ""], strict=True) if a != b]
    assert turns == ["a", "b", "a", "b", "a"]  # each warmed up, then A B B A
    assert sum(one.samples_ms) * one.steps_per_chunk >= 1000


def test_a_chunk_can_be_of_a_given_length():
    sizes = []
    timing.time_in_turns([sizes.append], seconds=1e-9, warmup_steps=3, chunk_steps=70)
    assert sizes == [3, 1, 70, *[70, 70] * 2]


@pytest.mark.parametrize(
    ("preset", "has_gpu", "variants"),
    [
        ("seed", True, ["keras_cudnn", "two_calls", "no_dropout", "dropout_0.2"]),
        ("default", True, ["keras_cudnn"]),
        ("seed", False, []),
    ],
)
def test_variants_are_of_a_gpu_and_differ_from_the_preset(preset, has_gpu, variants):
    config = read_flags(["--preset", preset]).model
    assert steps.choose_variants((), has_gpu, config) == variants


@pytest.mark.parametrize(
    ("variant", "dropout", "is_one_call"),
    [(None, 0.5, False), ("no_dropout", 0.0, True), ("two_calls", 0.0, False),
     ("dropout_0.2", 0.2, False), ("keras_cudnn", 0.5, False)],
)  # fmt: skip
def test_a_variant_differs_in_one_thing(variant, dropout, is_one_call):
    flags = read_flags(["--preset", "seed"])
    network = steps.build_network(
        flags, "cudnn", "float32", variant, vocab_size=9, num_classes=2, unknown_id=1
    )
    classifier = network.classifier
    assert classifier.config == dataclasses.replace(flags.model, dropout=dropout)
    assert classifier._is_one_call(is_dropping=dropout > 0) == is_one_call
    is_keras = variant == "keras_cudnn"
    assert classifier.route == ("keras" if is_keras else "cudnn")
    assert {layer.use_cudnn for [layer] in classifier.lstms} == {is_keras}
    if is_keras:  # it does take cuDNN, or else fails
        with pytest.raises(ValueError, match="cuDNN is not supported"):
            classifier.call(tf.ones([2, 3], tf.int32), tf.constant([3, 3]))


def test_resident_batches_are_like_those_of_the_feed(small_shards):
    from bench.feed import Corpus, Feed, build_source
    from model.flags import Flags, settle
    from tfdata.encode import Encoder
    from tfdata.vocab import Vocabulary

    flags = settle(Flags(), small_shards)
    vocabulary = Vocabulary.build(small_shards.words, flags.tokenizer)
    assert flags.tokenizer.max_len is not None
    encoder = Encoder(flags.tokenizer, vocabulary, flags.tokenizer.max_len)
    corpus = Corpus(flags, small_shards, vocabulary, encoder)
    feed = Feed(corpus, build_source(corpus, "host"), 32)
    epoch = feed.draw_epochs(2)
    assert epoch.num_docs == 2 * small_shards.num_docs("train")
    mix = feed.read_mix()
    resident = repeat_batches(mix)
    assert resident.element_spec == feed._feed.as_dataset().element_spec
    for batch, again in zip(mix + mix, resident, strict=False):
        for wanted, got in zip(batch, again, strict=True):
            np.testing.assert_array_equal(wanted, got)
    widths = [batch.token_ids.shape[1] for batch in mix]
    assert np.mean(widths) == pytest.approx(epoch.num_padded / epoch.num_batches / 32, rel=0.05)
    feed.close()


def test_made_up_batches_hold_what_the_network_takes():
    batch = make_batch(Batch, 64, 7, vocab_size=50, num_classes=3)
    assert batch.token_ids.shape == (64, 7)
    ids = batch.token_ids.numpy()
    assert ids.min() >= 1
    assert ids.max() < 50
    assert set(batch.labels.numpy().tolist()) == {0, 1, 2}
    counts = np.bincount(ids.ravel(), minlength=50)
    assert counts[1:5].sum() > counts[25:29].sum() * 3


def test_flops_are_those_of_the_matrix_products():
    plain = {"embedding_dim": 50, "hidden": 40, "num_layers": 2, "bag": False, "pairs": 0}
    config = ModelConfig(**plain, bidirectional=False)
    forward = 4 * 40 * (50 + 40) + 4 * 40 * (40 + 40)  # multiplications a token
    dense = 2 * 40 * 60  # max_mean: two features a unit
    assert step_flops(config, 1000, 25, 60) == 3 * 2 * (1000 * forward + 25 * dense)
    both = ModelConfig(**plain, bidirectional=True)
    forward = 2 * 4 * 40 * (50 + 40) + 2 * 4 * 40 * (80 + 40)
    assert step_flops(both, 1000, 0, 60) == 3 * 2 * 1000 * forward


def test_the_slower_one_limits():
    def row(kind, ms, **more):
        return {"kind": kind, "batch_size": 8, "step_ms": ms, "docs_per_s": 1.0, **more}

    kinds = [("mix", 2.0), ("input", 6.0), ("end-to-end", 6.5)]
    rows = [row(kind, ms, source="host") for kind, ms in kinds]
    rows += [row(kind, 10 * ms, source="stream") for kind, ms in kinds]
    limit = find_limit(rows, 8)
    assert (limit["limit"], limit["factor"]) == ("input", 3.0)
    assert "the input limits, by a factor of 3.0" in limit["sentence"]


def test_commit_is_none_outside_a_work_tree(tmp_path):
    assert timing.read_commit(tmp_path) is None
