"""A run folder with random weights, for the tests of what is done with a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from model.checkpoint import CheckpointWriter
from model.classifier import Classifier
from model.config import ModelConfig
from model.opened import Run, describe_words, open_run
from model.run import create_run
from model.words import key_pairs
from shortline import flat_values
from tfdata.config import TokenizerConfig
from tfdata.encode import Encoder
from tfdata.vocab import UNKNOWN, Vocabulary

ODD_LABELS = ("plain", "with\ttab", 'quote " and, comma', "two\nlines", "back\\slash", "ünï 日本")
WORDS = [f"word{number}" for number in range(200)] + ["café", "日本", "über", "a\0b"]


def make_run(
    folder: Path,
    labels: Sequence[str] = ODD_LABELS,
    words: Sequence[str] = WORDS,
    tokenizer: str = "word",
    **settings,
) -> Run:
    """Weights are drawn so wide that texts differ clearly in their probabilities."""
    config = TokenizerConfig(tokenizer=tokenizer, max_len=12)  # type: ignore[arg-type]
    model = ModelConfig(embedding_dim=6, hidden=5, pieces=300, pairs=64)
    vocabulary = Vocabulary.build(words, config)
    settings = {**flat_values(config), **flat_values(model), **settings}
    paths = create_run(folder, settings, tuple(labels), vocabulary)
    classifier = Classifier(
        model, vocab_size=len(vocabulary), num_classes=len(labels),
        unknown_id=vocabulary.unknown_id, route="keras",
        parts=describe_words(vocabulary, config, model),
    )  # fmt: skip
    random = np.random.default_rng(7)
    ids, _ = Encoder(config, vocabulary, 12).encode(pa.array(make_texts(60)))
    ids = ids.astype(np.int64)
    classifier.words.list_pairs(np.unique(key_pairs(ids[:-1], ids[1:]))[::8][:63])
    for name, variable in classifier.weights_by_name.items():
        values = random.normal(0, 1, variable.shape)
        if name == "pairs":
            values[0] *= 0.1  # of all pairs that are not listed: it would decide alone
        variable.assign(values)
    with CheckpointWriter() as writer:
        writer.save([paths.best], classifier.state_by_name, {"step": 0})
    return open_run(folder)


def make_wordpiece_run(folder: Path) -> Run:
    pieces = [
        "[PAD]",
        UNKNOWN,
        "word",
        "##1",
        "##2",
        "##3",
        "café",
        "日",
        "本",
        "ca",
        "##f",
        ",",
        ".",
    ]
    return make_run(folder, words=pieces, tokenizer="wordpiece")


def make_texts(num_texts: int) -> list[str]:
    """Texts of 0 to 30 words, known and not, after those that are likeliest to break something."""
    odd = [
        "", " ", "\t\n\r ", "\0", "a\0b word1", "\0word1\0", "ÜBER CAFÉ 日本 word3",
        "\u2028 word4 \u200b", "\ufeffword5", "e\u0301 é", "🙂 word6", "nothing is known",
        "日本語テキスト",
        "word7 " * 4000, "x" * 70_000, "word8\r\nword9\rword10", '"word11"; word12,', "\ufffd",
    ]  # fmt: skip
    random = np.random.default_rng(3)
    words = [*WORDS, "unknown", "Word1", "WORD2,", "word3."]
    for _ in range(num_texts - len(odd)):
        odd.append(" ".join(random.choice(words, random.integers(0, 31))))
    return odd
