"""What bench.quality compares with: fastText, and TF-IDF with a linear SVM, untuned.

    python -m bench.quality_baselines fasttext --data train.parquet --scored test.parquet \
        --out labels.parquet

fastText as its own tutorial would: 50 dimensions, 15 epochs, one thread, learning rate .5, with or
without bigrams (`--ngrams`), on the words that bench.peers uses, rows shuffled (sorted by class
they cost it a fifth of its accuracy). TF-IDF: words and pairs of words, sublinear, in two texts or
more, and scikit-learn's LinearSVC with C = 1. The last line is JSON: seconds of training.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from bench.peers.corpus import split_words
from bench.peers.flags import import_peer
from shortline import parse_flags, run_command, write_whole

_LABEL = "__label__"
_LEAST_RATE = 0.01
Predict = Callable[[list[str]], list[str]]


@dataclass(frozen=True, kw_only=True)
class BaselineFlags:
    """The flags of this command."""

    arm: tyro.conf.Positional[Literal["fasttext", "tfidf"]]
    """Which one."""
    data: tuple[Path, ...]
    """Parquet files with columns text and label."""
    scored: Path
    """Parquet file with a column text."""
    out: Path
    """Parquet file to write, with a column label: one for each row of --scored, in order."""
    ngrams: int = 2
    """Words in a row that fastText knows, at most."""
    seed: int = 0
    """Of the order of the rows, and of the training."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        BaselineFlags, argv, prog="python -m bench.quality_baselines",
        description="Train a baseline and predict with it.",
    )  # fmt: skip
    table = pa.concat_tables(pq.read_table(file, columns=["text", "label"]) for file in flags.data)
    order = np.random.default_rng(flags.seed).permutation(len(table))
    table = table.take(pa.array(order))
    texts, labels = table["text"].to_pylist(), table["label"].to_pylist()
    started = time.perf_counter()
    if flags.arm == "fasttext":
        predict = train_fasttext(texts, labels, flags.ngrams, flags.seed)
    else:
        predict = train_tfidf(texts, labels, flags.seed)
    seconds = time.perf_counter() - started
    predicted = predict(pq.read_table(flags.scored, columns=["text"])["text"].to_pylist())
    with write_whole(flags.out, "wb") as file:
        pq.write_table(pa.table({"label": pa.array(predicted, pa.string())}), file)
    print(json.dumps({"train_seconds": seconds, "num_train": len(texts)}))


def train_fasttext(texts: list[str], labels: list[str], ngrams: int, seed: int) -> Predict:
    """Trains it; an empty text, for which it names no label, gets the biggest class."""
    fasttext = import_peer("fasttext")
    names, ids, counts = np.unique(
        np.array(labels, object), return_inverse=True, return_counts=True
    )
    biggest = str(names[counts.argmax()])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.txt"
        with open(path, "w", encoding="utf-8") as file:
            for text, number in zip(texts, ids, strict=True):
                file.write(f"{_LABEL}{number} {' '.join(split_words(text))}\n")
        model = _fit_fasttext(fasttext, path, ngrams, seed)

    def predict(asked: list[str]) -> list[str]:
        found, _ = model.predict([" ".join(split_words(text)) for text in asked])
        return [names[int(row[0].removeprefix(_LABEL))] if len(row) else biggest for row in found]

    return predict


def _fit_fasttext(fasttext: Any, path: Path, ngrams: int, seed: int) -> Any:
    """At half the learning rate, and again, where its weights run away: it then says NaN."""
    rate = 0.5
    while True:
        try:
            return fasttext.train_supervised(
                str(path), epoch=15, lr=rate, dim=50, wordNgrams=ngrams, loss="softmax", thread=1,
                seed=seed, verbose=0,
            )  # fmt: skip
        except RuntimeError as error:
            if "NaN" not in str(error) or rate < _LEAST_RATE:
                raise
            rate /= 2
            print(f"not finite: once more with a learning rate of {rate:g}", flush=True)


def train_tfidf(texts: list[str], labels: list[str], seed: int) -> Predict:
    """Trains it; with one class, which LinearSVC refuses, that class is all it says."""
    import_peer("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    if len(set(labels)) == 1:
        return lambda asked: [labels[0]] * len(asked)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    model = LinearSVC(C=1, random_state=seed)
    model.fit(vectorizer.fit_transform(texts), labels)
    return lambda asked: model.predict(vectorizer.transform(asked)).tolist()


if __name__ == "__main__":
    run_command(main)
