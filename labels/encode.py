"""Step 2: a code for every point, by an LSTM auto-encoder trained on the points.

Tokenizer, vocabulary, windows, plan and batches are tfdata's; the loop and the optimizer are
model's. Legend: P points, C numbers of a code.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from labels.autoencoder import Autoencoder
from labels.config import EncodeConfig
from model.config import TrainConfig
from model.lstm import choose_route, count_blocks
from model.optimizer import Adam, choose_lazy
from model.step import build_train_chunk
from shortline import UserError
from tfdata.config import PipelineConfig, TokenizerConfig
from tfdata.encode import Encoder
from tfdata.gather import gather_steps
from tfdata.pipeline import BatchFeed
from tfdata.plan import Buckets, choose_buckets, choose_max_len, plan_batches
from tfdata.vocab import Vocabulary, VocabularyBuilder
from tfdata.window import Window, build_window

_ENCODE_DOCS = 16_384
_MOST_EPOCHS = 40
_CHUNK_STEPS = 64
_WORSE_THAN_GUESSING = 10
"""Times the loss of an even guess among all words, above which training has failed."""
_JUDGED = 10_000
"""Points that the reconstruction is judged on: never trained on, where there are ten times more."""


@dataclass(frozen=True)
class Tokens:
    """The points as token ids."""

    window: Window
    vocabulary: Vocabulary
    buckets: Buckets


class HeldWindow:
    """A source of one window, again and again: what `BatchFeed` reads."""

    def __init__(self, window: Window):
        self._window, self.id_type = window, window.ids.dtype

    def start(self) -> None:
        """It is ready always."""

    def stop(self) -> None:
        """It has nothing to end."""

    def docs_of_windows(self, epoch: int) -> list[int]:
        return [len(self._window)]

    def read(self, epoch: int, first_window: int = 0) -> Iterator[Window]:
        yield from [self._window][first_window:]


def tokenize(texts: pa.ChunkedArray, config: EncodeConfig) -> Tokens:
    """Vocabulary and token ids of texts string[P]."""
    tokenizer = TokenizerConfig(vocab_size=config.encode_vocab, stems=0)
    builder = VocabularyBuilder(tokenizer)
    batches = [
        piece.combine_chunks() if isinstance(piece, pa.ChunkedArray) else piece
        for start in range(0, len(texts), _ENCODE_DOCS)
        for piece in [texts.slice(start, _ENCODE_DOCS)]
    ]
    batches = [b.chunk(0) if isinstance(b, pa.ChunkedArray) else b for b in batches]
    for batch in batches:
        builder.add(batch)
    counts = builder.length_counts
    assert counts is not None  # of words
    max_len = config.encode_max_len or choose_max_len(counts)
    vocabulary = Vocabulary.build(builder.build(), tokenizer)
    encoder = Encoder(tokenizer, vocabulary, max_len)
    id_type = np.uint16 if len(vocabulary) <= 2**16 else np.int32
    pieces = []
    for batch in batches:
        ids, lengths = encoder.encode(batch)
        pieces.append((ids.astype(id_type), lengths, np.zeros(len(lengths), np.int32)))
    buckets = choose_buckets(counts, max_len, PipelineConfig(batch_size=config.encode_batch))
    return Tokens(build_window(pieces, 0), vocabulary, buckets)


def train(tokens: Tokens, trained: Window, config: EncodeConfig, route: str) -> Autoencoder:
    """An auto-encoder trained on a window of the points.

    Raises:
      UserError: its loss or a gradient was not finite, or it is far from learning anything.
    """
    network = Autoencoder(
        config, vocab_size=len(tokens.vocabulary), unknown_id=tokens.vocabulary.unknown_id,
        route=route,
    )  # fmt: skip
    epoch_steps = -(-len(trained) // config.encode_batch)
    num_steps = min(config.encode_steps, _MOST_EPOCHS * epoch_steps)
    training = TrainConfig(learning_rate=config.encode_rate, seed=config.seed)
    optimizer = Adam(network.weights_by_name, training, num_steps, scale_loss=False)
    most_tokens = config.encode_batch * max(tokens.buckets.widths)
    has_gpu = route.startswith("cudnn")
    weights = network.weights_by_name
    optimizer.begin(0, () if has_gpu else choose_lazy(most_tokens, weights))
    source: Any = HeldWindow(trained)
    feed = BatchFeed(source, tokens.buckets, seed=config.seed, class_weights=np.ones(1))
    with contextlib.closing(feed):
        run = build_train_chunk(
            network, optimizer, feed.iterator, seed=config.seed, forward=network.reconstruct,
            num_blocks=count_blocks(route, config.encode_batch),
        )  # fmt: skip
        worst = _WORSE_THAN_GUESSING * (1 + math.log(len(tokens.vocabulary)))
        step = shown = 0
        while step < num_steps:
            window = feed.next_window()
            left = min(window.num_batches, num_steps - step)
            while left:
                with feed.tell_end():
                    sums = run(step, min(left, _CHUNK_STEPS))
                if sums.num_bad_steps or not sums.mean_loss <= worst:
                    raise _diverged(config)
                step, left = step + min(left, _CHUNK_STEPS), left - min(left, _CHUNK_STEPS)
                if step - shown >= num_steps / 5 or step == num_steps:
                    shown = step
                    print(
                        f"encode: step {step} of {num_steps}, loss {sums.mean_loss:.3f}", flush=True
                    )
    optimizer.catch_up(step)
    return network


def _diverged(config: EncodeConfig) -> UserError:
    return UserError(
        f"--encode-rate {config.encode_rate:g}: the auto-encoder has diverged, and its codes "
        f"would say nothing; try {config.encode_rate / 10:g}"
    )


def encode_window(network: Autoencoder, window: Window, buckets: Buckets) -> np.ndarray:
    """The codes float32[P, C] of a window's documents."""
    specs = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
    encode = tf.function(network.encode, input_signature=specs, autograph=False)
    codes = np.zeros((len(window), network.config.code_dim), np.float32)
    for token_ids, lengths, docs in read_batches(window, buckets):
        codes[docs] = encode(token_ids, lengths).numpy()[: len(docs)]
    return codes


def judge(network: Autoencoder, window: Window, buckets: Buckets) -> float:
    """Share of the tokens that the decoder guesses, told the code and the tokens before."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)],
        autograph=False,
    )
    def count(token_ids, lengths):
        guessed = network.guess(network.encode(token_ids, lengths), token_ids)
        inside = tf.sequence_mask(lengths, tf.shape(token_ids)[1])
        right = tf.equal(guessed, tf.cast(token_ids, tf.int64)) & inside
        return tf.reduce_sum(tf.cast(right, tf.int64)), tf.reduce_sum(tf.cast(inside, tf.int64))

    right = total = 0
    for token_ids, lengths, docs in read_batches(window, buckets):
        here = [int(n) for n in count(token_ids[: len(docs)], lengths[: len(docs)])]
        right, total = right + here[0], total + here[1]
    return right / max(1, total)


def read_batches(window: Window, buckets: Buckets) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches in order of length: token_ids int32[B, T], lengths int32[B], documents int64[n].

    The last B - n rows are fillers.
    """
    plan = plan_batches(window.lengths, buckets, None)
    for steps in gather_steps(window, plan, np.ones(2, np.float32), 1):
        for ids, lengths, docs, width in zip(
            steps.token_ids, steps.lengths, steps.docs, steps.widths, strict=True
        ):
            yield ids[:, :width].astype(np.int32), lengths, docs[docs >= 0]


def take_documents(window: Window, docs: np.ndarray) -> Window:
    """A window of some of the documents int64[n]."""
    from tfdata.words import take_ranges

    starts, lengths = window.offsets[docs], window.lengths[docs]
    ids = take_ranges(window.ids, starts, lengths)
    return build_window([(ids, lengths, window.labels[docs])], 0)


def encode(texts: pa.ChunkedArray, out: Path, config: EncodeConfig) -> dict[str, Any]:
    """Writes codes.npy, float32[P, C], for texts string[P]; gives what is to be said of it.

    Raises:
      UserError: the auto-encoder diverged.
    """
    if config.encoder == "tfidf":
        from labels.tfidf import encode_tfidf

        codes = encode_tfidf(texts, config)
        np.save(out / "codes.npy", codes)
        return {"points": len(codes), "encoder": "tfidf"}
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    route, why = choose_route("auto", has_gpu, "float32")
    print(f"encode: LSTM route {route}: {why}", flush=True)
    tokens = tokenize(texts, config)
    order = np.random.default_rng(config.seed).permutation(len(texts))
    num_judged = min(_JUDGED, len(texts) // 10)
    judged, rest = np.sort(order[:num_judged]), np.sort(order[num_judged:])
    network = train(tokens, take_documents(tokens.window, rest), config, route)
    codes = encode_window(network, tokens.window, tokens.buckets)
    if not np.isfinite(codes).all():
        raise _diverged(config)
    np.save(out / "codes.npy", codes)
    held = take_documents(tokens.window, judged if len(judged) else rest)
    return {
        "points": len(codes), "encoder": "lstm", "vocabulary": len(tokens.vocabulary),
        "max_len": max(tokens.buckets.widths),
        "reconstruction_accuracy": judge(network, held, tokens.buckets),
    }  # fmt: skip
