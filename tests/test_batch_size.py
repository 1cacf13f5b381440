"""`--batch-size auto`: the rule, measuring without a trace, and the run that keeps the choice."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml

import model.batch_size as batch_size
import train
from model.batch_size import (
    choose_size,
    find_batch_size,
    keep_fitting,
    list_sizes,
    measure_rates,
    scale_learning_rate,
    weigh_rates,
)
from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.devices import mirror
from model.flags import read_flags
from model.optimizer import Adam
from shortline import UserError
from tfdata.pipeline import Batch

SMALL = ["--embedding-dim=8", "--hidden=8", "--epochs=1", "--gpus=none"]
CONFIG = ModelConfig(embedding_dim=6, hidden=5)


@pytest.mark.parametrize(
    ("num_train", "num_epochs", "most", "largest"),
    [
        (36_000, 6, 8192, 128),  # the steps of the whole training decide,
        (36_000, 11, 8192, 128),
        (52_000, 40, 8192, 256),  # the batches of an epoch,
        (640_000, 5, 8192, 2048),
        (640_000, 5, 1024, 1024),  # the device,
        (50, 40, 8192, 128),  # and the first is always allowed
    ],
)
def test_learning_bounds_the_sizes(num_train, num_epochs, most, largest):
    sizes = list_sizes(128, num_train, num_epochs, most)
    assert sizes == tuple(128 * 2**k for k in range(len(sizes)))
    assert sizes[-1] == largest


def test_memory_bounds_the_sizes_but_for_the_first():
    sizes = (128, 256, 512, 1024)
    fitting = [keep_fitting(sizes, CONFIG, 40, 2**k) for k in range(10, 40)]
    assert fitting[0] == (128,)
    assert fitting[-1] == sizes == keep_fitting(sizes, CONFIG, 40, 0)
    assert [len(some) for some in fitting] == sorted(len(some) for some in fitting)
    roomy = next(k for k, some in enumerate(fitting) if some == sizes)
    wide = dataclasses.replace(CONFIG, hidden=500)
    assert keep_fitting(sizes, wide, 40, 2 ** (10 + roomy)) == (128,)


def test_where_a_larger_batch_is_no_faster_the_base_is_taken():
    assert choose_size({128: 1000.0, 256: 1080.0, 512: 1100.0, 1024: 1120.0}) == 128


def test_where_a_step_takes_as_long_at_any_size_large_batches_win():
    rates = {128 * 2**k: 1000.0 * 2**k for k in range(7)}
    teaching = list(weigh_rates(rates).values())
    assert teaching == sorted(teaching)
    assert choose_size(rates) == 4096  # 8192 learns hardly faster


def test_adams_learning_rate_goes_with_the_root():
    assert scale_learning_rate(2e-3, 128, 128) == 2e-3
    assert scale_learning_rate(2e-3, 256, 128) == pytest.approx(2e-3 * math.sqrt(2))
    assert scale_learning_rate(2e-3, 2048, 128) == 8e-3


def _build_network(num_tokens: int = 30) -> tuple[Classifier, Adam]:
    classifier = Classifier(
        CONFIG, vocab_size=num_tokens, num_classes=4, unknown_id=1, route="keras"
    )
    config = TrainConfig(learning_rate=0.1, warmup=0.0)
    return classifier, Adam(classifier.weights_by_name, config, 100, scale_loss=False)


@pytest.mark.parametrize(
    ("num_replicas", "vocab_size"),
    [(1, 30), (1, 20_000), (2, 20_000)],  # with one replica a large embedding goes row by row
)
def test_measuring_trains_and_puts_all_back(monkeypatch, num_replicas, vocab_size):
    devices = tuple(device.name for device in tf.config.list_logical_devices("CPU"))
    strategy = mirror(devices[:2]) if num_replicas == 2 else tf.distribute.get_strategy()
    seen, after = [], []
    networks = []

    def build():
        networks.append(_build_network(vocab_size))
        classifier, optimizer = networks[0]
        before.update(_bytes(classifier, optimizer))
        return classifier, optimizer

    build_train_chunk = batch_size.build_train_chunk

    def spy(classifier, optimizer, batches, **options):
        run = build_train_chunk(classifier, optimizer, batches, **options)

        def train_chunk(first_step, num_steps):
            sums = run(first_step, num_steps)
            seen.append(
                (sums.num_docs // num_steps, bool(optimizer.lazy_tables), sums.num_bad_steps)
            )
            after.append(_bytes(classifier, optimizer))
            return sums

        return train_chunk

    before: dict[str, bytes] = {}
    monkeypatch.setattr(batch_size, "build_train_chunk", spy)
    monkeypatch.setattr(batch_size, "_CHUNK_SECONDS", 0.001)
    monkeypatch.setattr(batch_size, "CRITICAL_SIZE", 1e9)  # so that it goes on to the last
    monkeypatch.setattr(batch_size, "choose_size", max)
    with strategy.scope():
        size, rate = find_batch_size(
            CONFIG, TrainConfig(epochs=10, learning_rate=0.01), build, Batch,
            base=8, num_train=3_400, num_tokens=5, gpu_bytes=0, has_gpu=False,
        )  # fmt: skip
    assert {docs for docs, _, _ in seen} >= {8, 16}  # of the global batch
    assert {lazy for _, lazy, _ in seen} == {vocab_size == 20_000 and num_replicas == 1}
    assert not any(bad for _, _, bad in seen)
    assert all(state != before for state in after)
    assert _bytes(*networks[0]) == before
    assert size == 16
    assert rate == pytest.approx(0.01 * math.sqrt(size / 8))


@pytest.mark.parametrize(
    ("has_gpu", "gpu_bytes", "largest", "bound"),
    [
        (False, 0, 1024, "is tried here"),
        (True, 0, 4096, "leaves enough steps with 1,000,000 training documents"),
        (True, 80 * 2**30, 4096, "leaves enough steps with 1,000,000 training documents"),
        (True, 2**25, 256, "fits in memory"),
    ],
)
def test_devices_bound_the_sizes(monkeypatch, capsys, has_gpu, gpu_bytes, largest, bound):
    asked = []
    monkeypatch.setattr(batch_size, "measure_rates", lambda sizes, *_: asked.append(sizes) or {})
    with mirror(tuple(d.name for d in tf.config.list_logical_devices("CPU")[:2])).scope():
        size, _ = find_batch_size(
            CONFIG, TrainConfig(epochs=8), _build_network, Batch,
            base=128, num_train=1_000_000, num_tokens=40, gpu_bytes=gpu_bytes, has_gpu=has_gpu,
        )  # fmt: skip
    assert [sizes[-1] for sizes in asked] == [largest]
    assert size == 128
    assert capsys.readouterr().out.endswith(f"none above {largest:,} {bound})\n")


def _bytes(classifier: Classifier, optimizer: Adam) -> dict[str, bytes]:
    variables = classifier.weights_by_name | optimizer.state_by_name
    return {name: variable.numpy().tobytes() for name, variable in variables.items()}


def test_a_full_memory_ends_the_measurement_and_all_is_put_back():
    weight = tf.Variable([1.5, 2.5])

    def build_step(size):
        def train_chunk(first_step, num_steps):
            weight.assign_add([1.0, 1.0])
            if size > 256:
                raise tf.errors.ResourceExhaustedError(None, None, "no memory")

        return train_chunk

    rates = measure_rates((128, 256, 512, 1024), build_step, {"weight": weight})  # type: ignore[arg-type]
    assert 512 not in rates
    assert 128 in rates
    with pytest.raises(tf.errors.ResourceExhaustedError):
        measure_rates((512,), build_step, {"weight": weight})  # type: ignore[arg-type]
    assert weight.numpy().tolist() == [1.5, 2.5]


def _weights(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "checkpoints" / "last.npz") as archive:
        return {name: archive[name] for name in {*archive.files} - {"state.json", "sha256"}}


def _fixed_rates(monkeypatch, calls):
    """Bounds that 2,000 documents pass, and rates that make 256 the best."""
    monkeypatch.setattr(batch_size, "LEAST_STEPS", 1)
    monkeypatch.setattr(batch_size, "LEAST_BATCHES", 5)
    measure = measure_rates

    def measure_and_pretend(sizes, build_step, variables):
        measure(sizes, build_step, variables)
        calls.append(sizes)
        return {128: 100.0, 256: 200.0}

    monkeypatch.setattr(batch_size, "measure_rates", measure_and_pretend)


def test_a_run_by_auto_is_the_run_by_its_number(small_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "finish", lambda *_: None)
    calls: list = []
    _fixed_rates(monkeypatch, calls)
    data = ["--data", str(small_shards.folder), *SMALL]
    by_auto, by_number = tmp_path / "auto", tmp_path / "number"
    assert train.main([*data, "--batch-size=auto", "--out", str(by_auto)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("batch size ")] == [
        "batch size 256, learning rate 0.00283 (docs/s by size: 128 100, 256 200; none above 256 "
        "leaves enough steps with 1,800 training documents)"
    ]
    assert len([line for line in lines if line.startswith("training on ")]) == 1
    settings = yaml.safe_load((by_auto / "config.yaml").read_text())
    assert settings["batch_size"] == 256
    assert settings["learning_rate"] == 2e-3 * math.sqrt(2)
    rate = f"--learning-rate={settings['learning_rate']!r}"
    assert train.main([*data, "--batch-size=256", rate, "--out", str(by_number)]) == 0
    expected = _weights(by_number)
    for name, array in _weights(by_auto).items():
        np.testing.assert_array_equal(array, expected[name], name)

    # a resumed run measures nothing and keeps what was settled
    (by_auto / "checkpoints" / "last.npz").unlink()
    before = (by_auto / "config.yaml").read_text()
    assert train.main(["--resume", str(by_auto)]) == 0
    assert calls == [(128, 256)]
    assert (by_auto / "config.yaml").read_text() == before
    for name, array in _weights(by_auto).items():
        np.testing.assert_array_equal(array, expected[name], name)
    with pytest.raises(UserError, match="the run was started with 256"):
        train.main(["--resume", str(by_auto), "--batch-size=auto"])


def test_little_data_is_not_measured(small_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "finish", lambda *_: None)
    args = ["--data", str(small_shards.folder), *SMALL, "--batch-size=auto"]
    assert train.main([*args, "--out", str(tmp_path / "run")]) == 0
    line = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("batch size ")
    )
    assert line.startswith(
        "batch size 128, learning rate 0.002 (not measured: none above 128 leaves enough steps with"
    )
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["batch_size"] == 128


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size=many"], "--batch-size many: must be a whole number or auto"),
        (["--batch-size=0"], "--batch-size 0: must be 1 or more, or auto"),
        (["--batch-size=auto", "--batch-tokens=4000"], "--batch-size auto: give no --batch-tokens"),
    ],
)
def test_other_words_are_answered_with_the_mend(words, message):
    with pytest.raises(UserError) as error:
        read_flags(words)
    assert str(error.value).startswith(message)


def test_a_file_of_flags_may_say_auto(tmp_path):
    (tmp_path / "flags.yaml").write_text("batch_size: auto\n")
    assert read_flags([f"--config={tmp_path / 'flags.yaml'}"]).pipeline.batch_size == "auto"
    assert read_flags([]).pipeline.batch_size == 128
