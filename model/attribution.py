"""The words that decided an answer: what becomes of the class when a word is taken out of the text.

Texts with a word taken out are texts like any other, so this holds for whatever network there is.
Legend: D documents, W words of a document, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import tensorflow as tf

from model.scope import log_odds

Infer = Callable[[pa.Array], tf.Tensor]
"""string[n] → logits float32[n, C], as model.infer builds it."""
Spans = Sequence[tuple[int, int]]
"""Where the words of a text begin and end, in characters."""

MOST_WORDS = 400  # of a document: so many texts are made up of it
_CALL_CHARS, _CALL_LOGITS = 1 << 20, 1 << 22  # of the texts that the network gets at a time


@dataclass(frozen=True)
class Attribution:
    """The words of a text, and what each has to do with a class."""

    text: str
    label: int
    """The class."""
    spans: Spans
    weights: np.ndarray
    """float32[W]: by how much the log-odds of the class fall without the word; below 0 where they
    rise, as the word speaks for another class."""

    def strongest(self, most: int) -> list[tuple[str, float]]:
        """Words and weights, `most` of them, those first that speak most for the class."""
        order = np.argsort(-self.weights, kind="stable")[:most]
        return [(self.text[slice(*self.spans[i])], float(self.weights[i])) for i in order]


def attribute(
    infer: Infer,
    texts: Sequence[str],
    spans: Sequence[Spans],
    labels: Sequence[int],
    *,
    num_classes: int,
    temperature: float = 1.0,
) -> list[Attribution]:
    """What the words of D texts have to do with the classes `labels`, one a text.

    Of a text, MOST_WORDS words are tried, the first ones; the others weigh 0. Memory is bounded by
    the longest text, not by their number.
    """
    if not texts:
        return []
    pieces, classes = _leave_out(texts, spans), []
    for label, words in zip(labels, spans, strict=True):
        classes.append(np.full(1 + min(len(words), MOST_WORDS), label, np.int32))
    odds = _log_odds(infer, pieces, np.concatenate(classes), num_classes, temperature)
    found, first = [], 0
    for text, label, words, own in zip(texts, labels, spans, classes, strict=True):
        whole, *without = odds[first : first + len(own)]
        weights = np.zeros(len(words), np.float32)
        weights[: len(without)] = whole - np.array(without, np.float32)
        found.append(Attribution(text, int(label), words, weights))
        first += len(own)
    return found


def _leave_out(texts: Sequence[str], spans: Sequence[Spans]) -> Iterator[str]:
    """Each text whole, then without each of its words; a space keeps its neighbours apart."""
    for text, words in zip(texts, spans, strict=True):
        yield text
        for start, end in words[:MOST_WORDS]:
            yield f"{text[:start]} {text[end:]}"


def _log_odds(infer, texts, classes, num_classes, temperature) -> np.ndarray:
    """float32[n] of each text's class."""
    most = max(1, _CALL_LOGITS // num_classes)
    odds, waiting, num_chars, first = [], [], 0, 0

    def ask() -> None:
        nonlocal waiting, num_chars, first
        logits = infer(pa.array(waiting, pa.string())) / temperature
        own = classes[first : first + len(waiting)]
        odds.append(log_odds(logits, tf.constant(own)).numpy())
        waiting, num_chars, first = [], 0, first + len(own)

    for text in texts:
        waiting.append(text)
        num_chars += len(text)
        if num_chars >= _CALL_CHARS or len(waiting) >= most:
            ask()
    if waiting:
        ask()
    return np.concatenate(odds)
