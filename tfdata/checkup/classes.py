"""Classes too small to validate, and classes whose words the vocabulary does not know."""

from __future__ import annotations

import numpy as np

from tfdata.checkup.corpus import Corpus
from tfdata.checkup.finding import Finding, grade, show
from tfdata.plan import choose_max_len
from tfdata.split import TRAIN

FEW = 5
"""A class of fewer documents has at most one to validate on, or none."""
UNKNOWN = 0.05
"""Share of the words of new texts that is worth a word, if the vocabulary has not got them."""
_LEAST_COVERED = 0.9
_LEAST_WORDS = 50


def check_small_classes(corpus: Corpus) -> list[Finding]:
    """The finding `small_classes`: those of fewer than five documents."""
    counts = np.bincount(corpus.codes, minlength=len(corpus.labels))
    small = np.flatnonzero(counts < FEW)
    if not len(small):
        return []
    single = int((counts == 1).sum())
    docs = int(counts[small].sum())
    shown = small[np.argsort(counts[small], kind="stable")][[0, -1]][: len(small)]
    return [
        Finding(
            name="small_classes",
            severity=grade(len(small) / len(counts), 0.25, 0.05),
            title=f"{len(small):,} classes have fewer than {FEW} rows, {single:,} of them only one",
            count=len(small),
            of=len(counts),
            examples=tuple(
                f"{show(corpus.labels[c], 60)}: {counts[c]} row{'' if counts[c] == 1 else 's'}"
                for c in shown
            ),
            effect=f"They are {len(small) / len(counts):.0%} of the classes and "
            f"{docs / len(corpus):.2%} of the rows. A class of one or two cannot validate; one "
            "more row, right or wrong, moves the F1 of the others by half: macro-F1 is noise "
            "there, accuracy hardly sees them.",
            figures={"single": single, "under_three": int((counts < 3).sum()), "rows": docs},
            mend="merge them into a wider label, or collect more; the report gives F1 by size of "
            "class, to look at the others alone",
        )
    ]


UNKNOWN_WORDS = (
    "The model takes an unknown word by its first characters, if words that it knows begin so; "
    "preset seed not at all."
)


def mend_unknown_words(num_words: int, vocab_size: int) -> str:
    """What helps where words of new texts are unknown; a larger vocabulary, if it is full.

    Args:
      num_words: different ones of the training part.
    """
    pieces = "--tokenizer wordpiece, which cuts unknown words into known pieces"
    if num_words < vocab_size - 2:
        return f"more training documents (those there are have {num_words:,} words); {pieces}"
    return f"a larger --vocab-size than {vocab_size:,}, where words are common enough; {pieces}"


def check_vocabulary(corpus: Corpus, vocab_size: int) -> list[Finding]:
    """The finding `vocabulary`: unknown words, and classes that have more than a tenth of them.

    The vocabulary is that of the training part, as ingest's; coverage is counted on the others,
    where a class has them.
    """
    words = corpus.words
    documents = words.documents()
    trains = corpus.parts[documents] == TRAIN
    counts = np.bincount(words.ids[trains], minlength=len(words.names))
    known = np.zeros(len(counts), bool)
    known[np.argsort(-counts, kind="stable")[: max(vocab_size - 2, 0)]] = True
    known &= counts > 0
    tested = trains if trains.all() else ~trains
    codes = corpus.codes[documents[tested]]
    is_known = known[words.ids[tested]]
    total = np.bincount(codes, minlength=len(corpus.labels))
    share = np.bincount(codes, is_known, len(corpus.labels)) / np.maximum(total, 1)
    judged = total >= _LEAST_WORDS
    poor = np.flatnonzero(judged & (share < _LEAST_COVERED))
    overall = float(is_known.mean()) if len(is_known) else 1.0
    if not len(poor) and overall > 1 - UNKNOWN:
        return []
    worst = poor[np.argsort(share[poor], kind="stable")][:2]
    where = "training texts" if tested is trains else "texts that validate or test"
    title = f"{1 - overall:.1%} of the words in {where} are unknown"
    if len(poor):
        title += f"; in {len(poor):,} classes more than {1 - _LEAST_COVERED:.0%}"
    return [
        Finding(
            name="vocabulary",
            severity=grade(1 - overall, 0.15, UNKNOWN),
            title=title,
            count=int((~is_known).sum()),
            of=len(is_known),
            examples=tuple(
                f"{show(corpus.labels[c], 40)}: {1 - share[c]:.0%} unknown, such as "
                + _unknown_words(corpus, c, tested, known)
                for c in worst
            )
            or (f"such as {_most_common(corpus, words.ids[tested][~is_known])}",),
            effect=UNKNOWN_WORDS,
            figures={
                "coverage": overall,
                "poor_classes": len(poor),
                "judged_classes": int(judged.sum()),
            },
            mend=mend_unknown_words(int((counts > 0).sum()), vocab_size),
        )
    ]


def _unknown_words(corpus: Corpus, code: int, tested: np.ndarray, known: np.ndarray) -> str:
    documents = corpus.words.documents()
    ids = corpus.words.ids[tested & (corpus.codes[documents] == code)]
    return _most_common(corpus, ids[~known[ids]])


def _most_common(corpus: Corpus, ids: np.ndarray) -> str:
    counts = np.bincount(ids)
    return ", ".join(
        show(corpus.words.names[int(word)].as_py(), 20)
        for word in np.argsort(-counts, kind="stable")[:3]
        if counts[word]
    )


def usual_max_len(corpus: Corpus) -> int:
    """What `--max-len` is by default."""
    return choose_max_len(np.bincount(corpus.words.lengths[corpus.parts == TRAIN]))


def describe_lengths(corpus: Corpus, max_len: int) -> dict[str, float]:
    """Words of a text, and what `--max-len` cuts: shares of documents and of words."""
    lengths = corpus.words.lengths
    cut = np.maximum(lengths - max_len, 0)
    return {
        "words_median": float(np.median(lengths)),
        "words_p95": float(np.percentile(lengths, 95)),
        "words_max": float(lengths.max()),
        "max_len": max_len,
        "cut_documents": float((cut > 0).mean()),
        "cut_words": float(cut.sum() / max(lengths.sum(), 1)),
    }


def check_lengths(corpus: Corpus, max_len: int) -> list[Finding]:
    """The findings `max_len`, where it cuts more than a text in fifty, and `empty`."""
    lengths = corpus.words.lengths
    facts = describe_lengths(corpus, max_len)
    found = []
    cut = np.flatnonzero(lengths > max_len)
    if len(cut) > 0.02 * len(corpus):
        worst = cut[np.argsort(-lengths[cut], kind="stable")][:2]
        found.append(
            Finding(
                name="max_len",
                severity=grade(facts["cut_words"], 0.2, 0.05),
                title=f"{len(cut):,} texts have more than the {max_len} words of --max-len",
                count=len(cut),
                of=len(corpus),
                examples=tuple(f"{lengths[r]:,} words: {show(corpus.text(r), 80)}" for r in worst),
                effect=f"{facts['cut_words']:.1%} of all words are cut off and tell nothing.",
                figures=facts,
                mend=f"--max-len {int(np.percentile(lengths, 99))} keeps 99 % of the texts whole, "
                "at more time a step; --truncate left keeps the ends instead of the beginnings",
            )
        )
    empty = np.flatnonzero(lengths == 0)
    if len(empty):
        found.append(
            Finding(
                name="empty",
                severity=grade(len(empty) / len(corpus), 0.05, 0.01),
                title=f"{len(empty):,} texts have no word",
                count=len(empty),
                of=len(corpus),
                examples=tuple(f"{show(corpus.label(r), 40)}: '{show(corpus.text(r), 40)}'"
                               for r in empty[:2]),
                effect="They are all the same to the model, which can only guess their class.",
                mend="drop these rows, or keep their signs as words with a smaller --filters",
            )
        )  # fmt: skip
    return found
