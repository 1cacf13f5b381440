"""Order by class, counted while documents stream by, against all of them at once."""

import numpy as np
import pytest

from tfdata.label_order import LabelOrder


def measure(codes, chunk):
    order = LabelOrder()
    for start in range(0, len(codes), chunk):
        order.add(codes[start : start + chunk])
    return order.measure()


def arranged(kind, num_rows=20_000, classes=30):
    random = np.random.default_rng(0)
    codes = random.choice(
        classes, num_rows, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2)
    )
    codes = codes.astype(np.int32)
    if kind == "sorted":
        return np.sort(codes)
    if kind == "clumped":
        blocks = np.array_split(np.sort(codes), 500)
        return np.concatenate([blocks[i] for i in random.permutation(500)])
    if kind == "drifting":
        return codes[np.argsort(codes * 0.02 + random.random(num_rows))]
    return codes


@pytest.mark.parametrize("kind", ["sorted", "clumped", "drifting", None])
def test_kinds_whatever_the_batches(kind):
    codes = arranged(kind)
    drift = measure(codes, 16_384)
    assert drift == measure(codes, 37)
    assert drift.kind == kind
    assert drift.runs == 1 + (codes[1:] != codes[:-1]).sum()


def test_what_a_shuffle_gives_is_foretold():
    drift = measure(arranged(None), 1_000)
    assert drift.distance == pytest.approx(drift.shuffled, rel=0.05)
    assert drift.runs == pytest.approx(drift.runs_shuffled, rel=0.02)


def test_sorted_rows_of_few_classes_are_disjoint():
    drift = measure(np.repeat(np.arange(4, dtype=np.int32), 1_000), 100)
    assert drift.distance == pytest.approx(0.75, abs=0.03)
    assert (drift.runs, drift.classes) == (4, 4)


def test_memory_is_of_so_many_blocks():
    order = LabelOrder()
    for _ in range(300):
        order.add(np.arange(1_000, dtype=np.int32))
    assert len(order._blocks) <= 64


def test_too_few_rows_tell_nothing():
    assert measure(np.zeros(60, np.int32), 7) is None
