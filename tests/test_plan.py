"""Properties of the plan: nothing lost, nothing doubled, a pure function, little padding."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfdata.config import PipelineConfig
from tfdata.plan import FILLER, Buckets, choose_buckets, choose_max_len, count_steps, plan_batches

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=200).map(
    lambda x: np.array(x, np.int32)
)
BUCKETS = st.sampled_from(
    [
        Buckets((12,), (7,)),
        Buckets((3, 7, 12), (4, 4, 4)),
        Buckets((2, 5, 12), (16, 8, 2)),
        Buckets((1, 2, 3, 12), (1, 1, 1, 1)),
    ]
)


@given(LENGTHS, BUCKETS, st.one_of(st.none(), st.integers(0, 99)))
def test_every_document_is_in_exactly_one_batch_that_it_fits(lengths, buckets, seed):
    plan = plan_batches(lengths, buckets, None if seed is None else (seed, 0, 0))
    rows = plan.rows[plan.rows != FILLER]
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    size_of = dict(zip(buckets.widths, buckets.sizes, strict=True))
    for batch, width, size in zip(plan.rows, plan.widths, plan.sizes, strict=True):
        assert size == size_of[width]
        assert (batch[size:] == FILLER).all()
        assert (batch[:size] != FILLER).any()
        assert lengths[batch[batch != FILLER]].max() <= width


@given(LENGTHS, st.integers(1, 9))
def test_equal_sizes_give_as_few_batches_as_can_be(lengths, size):
    buckets = Buckets((2, 5, 12), (size,) * 3)
    plan = plan_batches(lengths, buckets, (1, 2, 3))
    assert len(plan) == -(-len(lengths) // size)
    assert len(plan) == count_steps(np.bincount(lengths), buckets, [len(lengths)])
    full = (plan.rows != FILLER).sum(axis=1) == size
    assert full.sum() >= len(plan) - 1


def test_a_pure_function_of_seed_epoch_and_window():
    lengths = np.random.default_rng(0).integers(1, 13, 500)
    buckets = Buckets((4, 8, 12), (16, 16, 16))
    plan, again = (plan_batches(lengths, buckets, (3, 1, 4)) for _ in range(2))
    np.testing.assert_array_equal(plan.rows, again.rows)
    for other in ((4, 1, 4), (3, 2, 4), (3, 1, 5)):
        assert not np.array_equal(plan.rows, plan_batches(lengths, buckets, other).rows)


def test_shuffles_documents_and_batches():
    lengths = np.repeat([2, 9], 500)
    plan = plan_batches(lengths, Buckets((3, 12), (10, 10)), (0, 0, 0))
    assert len(set(plan.widths[:10].tolist())) == 2  # both buckets from the start
    short = plan.rows[plan.widths == 3].ravel()
    assert abs(np.corrcoef(short, np.arange(len(short)))[0, 1]) < 0.2


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=9),
    st.integers(1, 4),
)
def test_widths_pad_as_little_as_the_best_choice(counts, num_buckets):
    length_counts, max_len = np.array([0, *counts]), len(counts)
    chosen = choose_buckets(length_counts, max_len, PipelineConfig(num_buckets=num_buckets)).widths

    def padded(widths):
        fit = np.array(widths)[np.searchsorted(widths, np.arange(1, max_len + 1))]
        return int(fit @ length_counts[1:])

    below = range(1, max_len)
    options = [(*widths, max_len) for k in range(num_buckets) for widths in combinations(below, k)]
    assert chosen[-1] == max_len
    assert len(chosen) <= num_buckets
    assert list(chosen) == sorted(set(chosen))
    assert padded(chosen) == min(padded(widths) for widths in options)


def test_as_few_buckets_as_keep_padding_below_a_quarter():
    even = np.bincount(np.full(100, 40))
    assert choose_buckets(even, 40, PipelineConfig()).widths == (40,)
    spread = np.array([0, *[10] * 128])
    widths = choose_buckets(spread, 128, PipelineConfig()).widths
    fit = np.array(widths)[np.searchsorted(widths, np.arange(1, 129))]
    assert spread[1:] @ np.arange(1, 129) / (spread[1:] @ fit) >= 3 / 4
    assert len(widths) == 3


def test_long_and_empty_texts_count_at_the_ends():
    buckets = choose_buckets(np.array([5, 0, 0, 5, 0, 0, 0, 5]), 4, PipelineConfig(num_buckets=3))
    assert buckets.widths == (1, 3, 4)


def test_a_token_budget_sets_the_sizes():
    counts = np.array([0, *[10] * 40])
    config = PipelineConfig(batch_tokens=400, num_buckets=4)
    buckets = choose_buckets(counts, 40, config)
    for width, size in zip(buckets.widths, buckets.sizes, strict=True):
        assert (size + 1) * width > 400 >= size * width


def test_many_lengths_are_still_quick():
    counts = np.ones(5_000, np.int64)
    buckets = choose_buckets(counts, 4_999, PipelineConfig(num_buckets=8))
    assert len(buckets.widths) == 8
    assert buckets.widths[-1] == 4_999


@pytest.mark.parametrize(
    ("counts", "expected"), [([0, 50, 49, 0, 1], 2), ([9], 1), ([0] * 300 + [5], 128)]
)
def test_max_len_holds_nearly_all_texts(counts, expected):
    assert choose_max_len(np.array(counts)) == expected


def test_steps_of_more_documents_than_the_lengths_are_of():
    """Of the training part; a refit has the validation documents, too."""
    lengths = np.random.default_rng(1).integers(1, 60, 9_000)
    buckets = Buckets((10, 60), (200, 40))
    more = np.concatenate([lengths, lengths[:4_000]])
    num = len(plan_batches(more, buckets, (0, 0, 0)))
    assert count_steps(np.bincount(lengths), buckets, [len(more)]) == pytest.approx(num, rel=0.02)
