"""The temperature: it is found, it does not run away, and it is judged on other documents."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from model.calibration import (
    Calibration,
    calibrate,
    fit_temperature,
    quantiles,
    read_calibration,
    sample_size,
    show_temperature,
    write_calibration,
)
from shortline import UserError


def _draw(num_docs, num_classes, temperature, seed=0, spread=3.0):
    """Logits, and labels that follow softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (num_docs, num_classes)).astype(np.float32)
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1)


def _loss(logits, labels, temperature):
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    log_p = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 6.0])
def test_finds_the_temperature_that_made_the_labels(temperature):
    logits, labels = _draw(4_000, 20, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.08)
    grid = np.geomspace(0.2, 12, 200)
    best = grid[np.argmin([_loss(logits, labels, t) for t in grid])]
    assert found == pytest.approx(best, rel=0.03)


def test_logits_that_are_twice_as_large_want_twice_the_temperature():
    logits, labels = _draw(500, 5, 2.0)
    assert fit_temperature(2 * logits, labels) == pytest.approx(
        2 * fit_temperature(logits, labels), rel=1e-3
    )
    shifted = logits + np.arange(len(logits), dtype=np.float32)[:, np.newaxis]
    assert fit_temperature(shifted, labels) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-3
    )


@pytest.mark.parametrize("labels", ["right", "wrong"])
def test_without_a_mistake_or_a_hit_it_stays_finite(labels):
    logits, _ = _draw(300, 8, 1.0)
    order = logits.argsort(axis=1)
    found = fit_temperature(logits, order[:, -1] if labels == "right" else order[:, 0])
    assert 0.05 < found < 20 if labels == "right" else found == pytest.approx(20, rel=1e-3)
    wide = 1e6 * logits
    assert np.isfinite(fit_temperature(wide, order[:, -1]))


def test_a_temperature_at_a_bound_is_said():
    logits, _ = _draw(300, 8, 1.0)
    best, worst = logits.argmax(axis=1), logits.argmin(axis=1)
    low, high = fit_temperature(logits / 1e4, best), fit_temperature(logits, worst)
    assert show_temperature(low) == "0.050 (the least that is tried)"
    assert show_temperature(high) == "20.000 (the most that is tried)"
    assert show_temperature(0.4567) == "0.457"


def test_too_sure_a_network_is_set_right_on_documents_it_was_not_fitted_on():
    logits, labels = _draw(6_000, 12, 3.0)
    found = calibrate(logits, labels)
    assert found is not None
    temperature, check = found
    summary = check.summary()
    assert temperature == pytest.approx(3, rel=0.08)
    assert summary["ece_before"] > 0.2
    assert summary["ece_after"] < 0.03
    assert summary["ece_after"] < 2 * summary["ece_by_chance"] + 0.005
    assert summary["loss_after"] < summary["loss_before"]
    assert summary["loss_before"] == pytest.approx(_loss(logits, labels, 1.0), rel=1e-4)


def test_no_document_is_judged_by_a_temperature_that_saw_its_label():
    logits, labels = _draw(200, 4, 3.0)
    before = calibrate(logits, labels)
    assert before is not None
    for doc in range(0, 200, 23):
        changed = labels.copy()
        changed[doc] = (labels[doc] + 1) % 4
        after = calibrate(logits, changed)
        assert after is not None
        assert after[1].after[doc] == before[1].after[doc]
        assert not np.array_equal(after[1].after, before[1].after)


def test_is_left_alone_where_it_does_not_help_or_cannot_be_known():
    logits, labels = _draw(6_000, 12, 1.0)
    found = calibrate(logits, labels)
    assert found is not None
    assert found[0] == pytest.approx(1, rel=0.08)
    assert found[1].loss_after <= found[1].loss_before
    assert calibrate(logits[:99], labels[:99]) is None
    assert calibrate(logits[:, :1], np.zeros(len(logits), np.int64)) is None
    unknown = np.full(len(logits), 12)
    assert calibrate(logits, unknown) is None
    # labels that say the one thing in one half of the documents, the other in the other
    half = np.random.default_rng(0).permutation(200) % 2
    order = logits[:200].argsort(axis=1)
    found = calibrate(logits[:200], np.where(half, order[:, -1], order[:, 0]))
    assert found is not None
    assert found[0] == 1
    np.testing.assert_array_equal(found[1].before, found[1].after)


def test_labels_that_training_lacks_are_wrong_and_not_fitted():
    logits, labels = _draw(1_000, 6, 2.0)
    some = labels.copy()
    some[::10] = 6 + np.arange(100) % 3
    found, known = calibrate(logits, some), np.flatnonzero(some < 6)
    assert found is not None
    assert found[0] == pytest.approx(fit_temperature(logits[known], labels[known]))
    assert not found[1].right[::10].any()
    assert len(found[1].right) == 1_000


def test_memory_is_bounded():
    assert sample_size(2) == 20_000
    for num_classes in (60, 339, 1_000, 4_000):
        assert sample_size(num_classes) * num_classes <= 1 << 22
    assert sample_size(100_000) == 1_000


def test_the_file(tmp_path):
    path = tmp_path / "calibration.json"
    assert read_calibration(path) == Calibration()
    energies = np.random.default_rng(0).normal(5, 2, 3_000).astype(np.float32)
    calibration = Calibration(temperature=0.7, num_docs=3_000, energies=quantiles(energies))
    write_calibration(path, calibration)
    assert read_calibration(path) == calibration
    shares = calibration.scope(np.sort(energies)[::100])
    np.testing.assert_allclose(shares, np.arange(30) / 30, atol=0.01)
    assert calibration.scope(np.array([-100.0, 100.0])).tolist() == [0, 1]
    for damaged in ("", "[]", "{}", "[" * 100_000,
                    '{"temperature": 0, "num_docs": 1, "energies": []}',
                    '{"temperature": NaN, "num_docs": 1, "energies": []}',
                    '{"temperature": 1, "num_docs": 1e999, "energies": []}',
                    '{"temperature": 1, "num_docs": 1, "energies": [NaN]}',
                    '{"temperature": 1, "num_docs": 1, "energies": [], "logit_shift": [1e300]}',
                    '{"temperature": 1, "num_docs": 1, "energies": [], "logit_shift": "12"}',
                    ):  # fmt: skip
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"calibration.json: damaged: .*delete it"):
            read_calibration(path)
    assert dataclasses.replace(calibration, temperature=1.0) != calibration
