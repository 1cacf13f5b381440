"""What is measured, row by row: steps in memory, the input alone, steps on the input.

Legend: B documents, T tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from bench.ceiling import serial_ops, step_flops
from bench.feed import Corpus, Epoch, Feed, build_source, time_encode
from bench.steps import Network, build_network, build_run
from bench.timing import Timing, time_in_turns
from model.made_up import list_pairs, make_batch, repeat_batches
from model.opened import describe_words
from model.pairs import find_pairs
from tfdata.pipeline import Batch

Row = dict[str, Any]


def build_networks(
    corpus: Corpus, routes: Sequence[str], variants: Sequence[str], precision: str
) -> dict[str, Network]:
    """By route, then by variant; with the classes and the vocabulary of the corpus."""
    parts = describe_words(corpus.vocabulary, corpus.flags.tokenizer, corpus.flags.model)
    pairs = [(route, None) for route in routes] + [(routes[0], name) for name in variants]
    return {
        variant or route: build_network(
            corpus.flags, route, precision, variant, vocab_size=len(corpus.vocabulary),
            num_classes=len(corpus.shard_set.labels), unknown_id=corpus.vocabulary.unknown_id,
            parts=parts,
        )
        for route, variant in pairs
    }  # fmt: skip


def time_steps(
    networks: Mapping[str, Network], batch_sizes: Sequence[int], lengths: Sequence[int],
    seconds: float,
) -> Iterator[Row]:  # fmt: skip
    """Training steps on a made-up batch in memory, the networks by turns, for each B and T.

    Args:
      networks: by the name that their rows get.
    """
    num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
    classifier = next(iter(networks.values())).classifier
    for batch_size in batch_sizes:
        for length in lengths:
            shape = batch_size // num_replicas, length
            batch = make_batch(
                Batch, *shape, vocab_size=classifier.vocab_size, num_classes=classifier.num_classes
            )
            for network in networks.values():
                list_pairs(network.classifier, [batch])
            runs = [
                build_run(network, repeat_batches([batch]), *shape) for network in networks.values()
            ]
            timings = time_in_turns(runs, seconds)
            for name, timing in zip(networks, timings, strict=True):
                row = _step_row("step", networks[name], timing, batch_size, length)
                yield row | {"name": name, "docs_per_s": 1000 * batch_size / timing.median_ms}


def time_input(
    corpus: Corpus, network: Network, batch_sizes: Sequence[int], seconds: float
) -> Iterator[Row]:
    """The input pipeline alone, and for each B training on the same corpus."""
    num_docs = corpus.shard_set.num_docs("train")
    timing = time_encode(corpus, seconds)
    row = {"kind": "input", "source": "encode", "batch_size": num_docs, **timing.summary()}
    yield row | {"docs_per_s": 1000 * num_docs / timing.median_ms}
    sources = {
        residency: build_source(corpus, residency) for residency in ("stream", "host", "device")
    }
    num_pairs = network.classifier.config.pairs
    if num_pairs:
        network.classifier.words.list_pairs(find_pairs(sources["host"], num_pairs - 1))
    for batch_size in batch_sizes:
        for residency, source in sources.items():
            with contextlib.closing(Feed(corpus, source, batch_size)) as feed:
                epoch = feed.draw_epochs(1)
                yield _time_feed(feed, epoch, residency, batch_size, seconds)
                for row in _time_fed(feed, epoch, network, batch_size, seconds):
                    yield row | {"source": residency}


def _time_feed(feed: Feed, epoch: Epoch, residency: str, batch_size: int, seconds: float) -> Row:
    """A feed whose batches go nowhere; a step is a batch, and a chunk is whole epochs."""
    [epochs] = time_in_turns([feed.draw_epochs], seconds)
    epochs_per_s = 1000 / epochs.median_ms
    return {
        "kind": "input", "source": residency, "batch_size": batch_size,
        "length": epoch.num_padded / epoch.num_batches / batch_size,
        **epochs.divided(epoch.num_batches).summary(),
        "docs_per_s": epochs_per_s * epoch.num_docs,
        "tokens_per_s": epochs_per_s * epoch.num_padded,
        "padding_fraction": 1 - epoch.num_tokens / epoch.num_padded,
    }  # fmt: skip


def _time_fed(
    feed: Feed, epoch: Epoch, network: Network, batch_size: int, seconds: float
) -> Iterator[Row]:
    """The same steps on batches in memory and on batches as they come, by turns.

    A chunk is an epoch's steps: the widths differ, and no wait for the input may be left out.
    """
    mix = feed.read_mix()
    num_rows = batch_size // tf.distribute.get_strategy().num_replicas_in_sync
    shape = num_rows, feed.buckets.widths[-1]
    run_mix = build_run(network, repeat_batches(mix), *shape)
    run_feed = build_run(network, feed.iterator, *shape)

    def run_fed(num_steps: int) -> None:
        feed.run_windows(run_feed, num_steps)

    warmup_steps = 2 * len(feed.buckets.widths)  # likely to meet every shape
    timings = time_in_turns(
        [run_mix, run_fed], seconds, warmup_steps, chunk_steps=epoch.num_batches
    )
    widths = [int(batch.token_ids.shape[1]) for batch in mix]
    lengths = sum(widths) / len(widths), epoch.num_padded / epoch.num_batches / batch_size
    for kind, length, timing in zip(("mix", "end-to-end"), lengths, timings, strict=True):
        row = _step_row(kind, network, timing, batch_size, length)
        yield row | {"docs_per_s": 1000 * epoch.num_docs / epoch.num_batches / timing.median_ms}


def _step_row(kind: str, network: Network, timing: Timing, batch_size: int, length: float) -> Row:
    """One row of training steps: B documents padded to T tokens, rates of the median."""
    classifier, step_ms = network.classifier, timing.median_ms
    num_tokens = batch_size * length
    flops = step_flops(classifier.config, num_tokens, batch_size, classifier.num_classes)
    return {
        "kind": kind, "route": classifier.route, "batch_size": batch_size, "length": length,
        **timing.summary(), "tokens_per_s": 1000 * num_tokens / step_ms,
        "gflop_per_step": flops / 1e9, "gflop_per_s": flops / 1e6 / step_ms,
        "serial_ops": serial_ops(classifier.config, length),
    }  # fmt: skip


def find_limit(rows: Sequence[Row], batch_size: int, source: str = "host") -> dict[str, Any]:
    """Which of step and input takes longer for a batch, by what factor, and both in words."""
    found = {
        row["kind"]: row
        for row in rows
        if row["batch_size"] == batch_size and row.get("source") == source
    }
    step_ms, input_ms, both_ms = (found[kind]["step_ms"] for kind in ("mix", "input", "end-to-end"))
    limit = "step" if step_ms >= input_ms else "input"
    factor = max(step_ms, input_ms) / min(step_ms, input_ms)
    sentence = (
        f"batches of {batch_size:,}: the {limit} limits, by a factor of {factor:,.1f}: "
        f"{step_ms:,.2f} ms to train on a batch in memory, {input_ms:,.2f} ms to make it from ids; "
        f"{both_ms:,.2f} ms end to end, {found['end-to-end']['docs_per_s']:,.0f} docs/s"
    )
    return {
        "batch_size": batch_size, "limit": limit, "factor": factor, "step_ms": step_ms,
        "input_ms": input_ms, "end_to_end_ms": both_ms, "sentence": sentence,
    }  # fmt: skip
