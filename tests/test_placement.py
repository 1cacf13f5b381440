"""What would leave a GPU for the host within a training step, found without a GPU.

TensorFlow's wheel for Linux registers its GPU kernels on every machine, with the types that they
take and which of their inputs and outputs lie in host memory. So a traced graph tells where every
tensor would be. A tensor made on the GPU and wanted on the host makes the host wait for the device,
at every step: there must be none, but for the condition of dynamic loss scaling.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry

from model.classifier import Classifier
from model.config import ModelConfig, TrainConfig
from model.flags import PRESETS
from model.opened import describe_words
from model.optimizer import Adam
from model.step import build_train_chunk
from tfdata.config import PipelineConfig, TokenizerConfig
from tfdata.device_feed import DeviceFeed
from tfdata.encode import Encoder
from tfdata.pipeline import BatchFeed
from tfdata.plan import choose_buckets
from tfdata.vocab import Vocabulary
from tfdata.window import WindowSource

FREE = {"NoOp", "Placeholder", "Const", "VarHandleOp", "ReadVariableOp", "Identity", "StopGradient"}
"""Have kernels for whatever device and type they are given."""


@functools.cache
def _gpu_kernels(op_type):
    found = kernels.get_registered_kernels_for_op(op_type).kernel
    return [k for kind in ("GPU", "DEFAULT") for k in found if k.device_type == kind]


def _host_arguments(op):
    """Names of the arguments in host memory if the op runs on a GPU, None if it cannot."""
    if "CPU" in op.device:
        return None
    for kernel in _gpu_kernels(op.type):
        if all(_is_allowed(op.get_attr(c.name), c.allowed_values.list) for c in kernel.constraint):
            return set(kernel.host_memory_arg)
    return None


def _is_allowed(value, allowed):
    if isinstance(value, tf.DType):
        return value.as_datatype_enum in allowed.type
    return value in allowed.s


def _argument_names(op, arguments, tensors):
    """The name of the op's argument that each tensor is."""
    names = []
    for argument in arguments:
        count = 1
        if argument.number_attr:
            count = op.get_attr(argument.number_attr)
        elif argument.type_list_attr:
            count = len(op.get_attr(argument.type_list_attr))
        names += [argument.name] * count
    return names[: len(tensors)]


def _tensors_to_host(graph):
    """(maker, taker) of each tensor that is made in GPU memory and taken from host memory."""
    on_device, leaving = {}, []
    for op in graph.get_operations():
        definition = op_def_registry.get(op.type)
        is_free = op.type in FREE and "CPU" not in op.device
        host = set() if is_free else _host_arguments(op)
        names = _argument_names(op, definition.input_arg, op.inputs)
        for name, tensor in zip(names, op.inputs, strict=True):
            wants_host = host is None or name in host
            if wants_host and on_device.get(tensor.ref()) and tensor.dtype != tf.resource:
                leaving.append((tensor.op.type, op.type, op.name))
        names = _argument_names(op, definition.output_arg, op.outputs)
        for name, tensor in zip(names, op.outputs, strict=True):
            if is_free and op.inputs and op.type != "ReadVariableOp":
                on_device[tensor.ref()] = on_device.get(op.inputs[0].ref(), False)
            else:
                # int32 numbers are kept on the host, for shapes; what the loop is given is there
                is_shape = op.type == "Const" and tensor.dtype == tf.int32
                small = is_shape or op.type == "Placeholder"
                on_device[tensor.ref()] = host is not None and name not in host and not small
    return leaving


def _body(function):
    """The graph of one training step: the body of the loop in a chunk."""
    [loop] = [op for op in function.graph.get_operations() if "While" in op.type]
    name = loop.get_attr("body").name
    return next(f for n, f in function.graph._functions.items() if n == name).graph


@pytest.fixture
def step_graph(small_shards, monkeypatch):
    """A function of (feed, preset, route) that traces a training step and returns its graph."""
    feeds = []

    def trace(feed_class, preset, route="cudnn", precision="float32", **training):
        settings = {k: v for k, v in PRESETS[preset].items() if k in ModelConfig.__annotations__}
        network = ModelConfig(**{"pairs": 1024} | settings)
        tokenizer = TokenizerConfig(stems=PRESETS[preset].get("stems", 4))
        vocabulary = Vocabulary.build(small_shards.words, tokenizer)
        config = PipelineConfig(batch_size=64, residency="host")
        source = WindowSource(
            small_shards, "train", Encoder(tokenizer, vocabulary, 40),
            vocab_size=len(vocabulary), config=config, shuffle_seed=0,
        )  # fmt: skip
        buckets = choose_buckets(small_shards.length_counts, 40, config)
        feed = feed_class(source, buckets, seed=0, class_weights=np.ones(12, np.float32))
        feeds.append(feed)
        classifier = Classifier(
            network, vocab_size=len(vocabulary), num_classes=12, unknown_id=1,
            route=route, precision=precision, parts=describe_words(vocabulary, tokenizer, network),
        )  # fmt: skip
        adam = Adam(
            classifier.weights_by_name, TrainConfig(**training), 100,
            scale_loss=precision == "mixed_float16",
        )  # fmt: skip
        adam.begin(0)
        traced = []
        function = type(tf.function(lambda: None))
        concrete = function.get_concrete_function
        monkeypatch.setattr(
            function, "get_concrete_function",
            lambda self, *a: traced.append(concrete(self, *a)) or traced[-1],
        )  # fmt: skip
        build_train_chunk(classifier, adam, feed.iterator, seed=0, label_smoothing=0.1)
        return traced[-1]

    yield trace
    for feed in feeds:
        feed.close()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("feed_class", [DeviceFeed, BatchFeed])
def test_no_tensor_leaves_the_gpu_in_a_step(step_graph, feed_class, preset):
    body = _body(step_graph(feed_class, preset))
    assert any(op.type == "CudnnRNNV3" for op in body.get_operations())
    leaving = _tensors_to_host(body)
    assert not leaving, "\n".join(map(str, leaving))


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_skipping_a_step_fetches_nothing(step_graph, clip_norm):
    graph = step_graph(DeviceFeed, "seed", skip_nonfinite=True, clip_norm=clip_norm)
    leaving = _tensors_to_host(_body(graph))
    assert not leaving, "\n".join(map(str, leaving))


def test_float16_fetches_nothing_but_whether_to_skip_the_step(step_graph):
    body = _body(step_graph(DeviceFeed, "seed", precision="mixed_float16"))
    takers = {taker for _, taker, _ in _tensors_to_host(body)}
    assert takers <= {"If", "StatelessIf"}


def test_the_check_sees_what_would_be_fetched():
    """int32 arithmetic on what was gathered on the device, as the code once did."""

    @tf.function
    def fetches(table, rows):
        return tf.range(tf.reduce_max(tf.gather(table, rows)))

    table, rows = tf.zeros([9], tf.int32), tf.zeros([3], tf.int64)
    assert _tensors_to_host(fetches.get_concrete_function(table, rows).graph)
