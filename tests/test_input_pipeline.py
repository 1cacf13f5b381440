"""Every compared pipeline gives each document exactly once; the figures hang together."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bench import input_arms, input_pipeline
from bench.census import check_census, take_census
from bench.input_arms import (
    BUCKETED,
    CACHED,
    LOADED,
    ON_DEVICE,
    STRINGS,
    VECTORIZED,
    Arm,
    build_arms,
)  # fmt: skip
from bench.input_pipeline import check_arms, find_rates, find_ratios, format_row, main, time_arms
from bench.timing import Timing
from shortline import UserError

BATCH_SIZE, MAX_LEN = 32, 50


@pytest.fixture(scope="module")
def corpus(small_shards):
    """Texts of up to 50 of some 40 tokens, so that some are cut; a tenth of the words unknown."""
    from bench.feed import Corpus
    from model.flags import Flags, settle
    from tfdata.config import PipelineConfig, TokenizerConfig
    from tfdata.encode import Encoder
    from tfdata.vocab import Vocabulary

    flags = Flags(
        tokenizer=TokenizerConfig(vocab_size=500, max_len=MAX_LEN, stems=0),
        pipeline=PipelineConfig(num_buckets=3),
    )
    flags = settle(flags, small_shards)
    vocabulary = Vocabulary.build(small_shards.words, flags.tokenizer)
    return Corpus(flags, small_shards, vocabulary, Encoder(flags.tokenizer, vocabulary, MAX_LEN))


@pytest.fixture(scope="module")
def arms(corpus):
    with pytest.MonkeyPatch.context() as patch:  # PyTorch's workers take seconds to start
        patch.setattr(input_arms, "find_spec", lambda name: None)
        arms, missing = build_arms(corpus, BATCH_SIZE)
    assert missing == {LOADED: "torch is not installed", ON_DEVICE: "no GPU is in use"}
    yield arms
    for arm in arms:
        arm.close()


def test_every_arm_gives_each_document_once(corpus, arms):
    rows = check_arms(arms, corpus)
    names = [row["arm"] for row in rows]
    assert names == [STRINGS, "ours, streamed ids", CACHED, BUCKETED, VECTORIZED]
    assert [row["is_ours"] for row in rows] == [True, True, True, False, False]
    padding = {row["arm"]: row["padding_fraction"] for row in rows}
    assert padding[BUCKETED] < 0.15 < padding[VECTORIZED]
    assert all(row["clock"] for row in rows)
    for arm in arms:
        num_docs = 0
        for token_ids, labels in arm.read():
            assert token_ids.dtype == labels.dtype == np.int32
            assert token_ids.shape[0] == len(labels) <= BATCH_SIZE
            num_docs += len(labels)
        assert num_docs == corpus.shard_set.num_docs("train")


def test_the_reference_knows_lost_doubled_and_changed_documents(corpus, arms):
    batches = list(arms[0].read())
    wanted = take_census(batches, MAX_LEN).digests

    def check(changed):
        check_census("an arm", take_census(changed, MAX_LEN), wanted)

    check(batches[::-1])
    (ids, labels), rest = batches[0], batches[1:]
    check([(np.pad(ids, [(0, 0), (0, 3)]), labels), *rest])
    other_label, other_word, other_order = labels.copy(), ids.copy(), ids.copy()
    other_label[0] += 1
    other_word[0, 0] += 1
    other_order[0, :2] = ids[0, 1::-1]
    assert ids[0, 0] != ids[0, 1]
    for changed in (
        [(ids[1:], labels[1:])],
        [(ids, labels), (ids[:1], labels[:1])],
        [(ids[[0, *range(len(ids) - 1)]], labels[[0, *range(len(ids) - 1)]])],
        [(ids, other_label)],
        [(other_word, labels)],
        [(other_order, labels)],
    ):
        with pytest.raises(AssertionError, match="an arm"):
            check([*changed, *rest])
    with pytest.raises(AssertionError, match="more than"):
        check([(np.pad(ids, [(0, 0), (0, MAX_LEN)], constant_values=7), labels), *rest])


def test_an_arm_that_loses_documents_is_not_timed(corpus, arms):
    short = dataclasses.replace(arms[0], draw=lambda num_epochs: num_epochs * 7)
    flags = input_pipeline.InputFlags(seconds=0.01)
    with pytest.raises(AssertionError, match="ours, strings: 7 documents in 1 epochs"):
        time_arms([short], [{}], corpus.shard_set.num_docs("train"), flags)


def test_rates_and_ratios():
    timing = Timing(tuple(float(ms) for ms in range(10, 21)), 3)
    rates = find_rates(timing, 300)
    assert rates["docs_per_s"] == pytest.approx(20_000)
    assert rates["docs_per_s_p10"] == pytest.approx(300 / 0.019)
    assert rates["docs_per_s_p90"] == pytest.approx(300 / 0.011)
    rows = [
        {"arm": STRINGS, "docs_per_s": 300.0},
        {"arm": CACHED, "docs_per_s": 900.0},
        {"arm": BUCKETED, "docs_per_s": 10.0},
        {"arm": LOADED, "why": "torch is not installed"},
    ]
    assert find_ratios(rows) == {(STRINGS, BUCKETED): 30.0, (CACHED, STRINGS): 3.0}
    assert format_row(rows[3]).endswith("not measured: torch is not installed")


def test_a_tiny_run(corpus, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(input_arms, "find_spec", lambda name: None)
    monkeypatch.setattr("bench.feed.open_corpus", lambda flags, num_docs: corpus)
    main(["--seconds", "0.01", "--batch-size", "32", "--turns", "1", "--out", str(tmp_path / "r")])
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    timed = {row["arm"]: row for row in result["rows"] if "docs_per_s" in row}
    assert len(timed) == len(result["rows"]) - 2 == 5
    for row in timed.values():
        assert 0 < row["docs_per_s_p10"] <= row["docs_per_s"] <= row["docs_per_s_p90"]
        ratio = row["docs_per_s"] / timed[STRINGS]["docs_per_s"]
        assert row["times_strings"] == pytest.approx(ratio)
    assert [(r["fast"], r["slow"]) for r in result["ratios"]] == [
        (STRINGS, BUCKETED), (STRINGS, VECTORIZED), (CACHED, STRINGS),
    ]  # fmt: skip
    assert json.loads((tmp_path / "r" / "input_pipeline.json").read_text()) == result
    assert (tmp_path / "r" / "input_pipeline.txt").read_text().splitlines() == printed[:-1]
    assert (tmp_path / "r" / "input_pipeline.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="holds a record"):
        main(["--out", str(tmp_path / "r")])


@pytest.mark.slow
def test_pytorch_gives_each_document_once(corpus):
    pytest.importorskip("torch")
    from bench.peers.input_torch import build_torch

    arm: Arm = build_torch(corpus, BATCH_SIZE)
    check_arms([arm], corpus)
    assert arm.draw(2) == 2 * corpus.shard_set.num_docs("train")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--docs", "999"], "--docs 999: must be 1000 or more"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--batch-size", "600", "--docs", "1000"], "at most half of the 1000"),
        (["--seconds", "0"], "--seconds 0"),
        (["--turns", "0"], "--turns 0"),
        (["--preset", "best"], "--preset best"),
    ],
)
def test_wrong_flags_are_refused(words, message):
    with pytest.raises(UserError, match=message):
        main(words)
