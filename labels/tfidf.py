"""The baseline encoder: word TF-IDF, and the leading directions of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labels.config import EncodeConfig


def build_tfidf(texts: pa.ChunkedArray, most_words: int):
    """TF-IDF rows, sparse float32[P, V], each of length 1, and the words of its columns."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        max_features=most_words, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )
    matrix = vectorizer.fit_transform(texts.to_pylist()).astype(np.float32)
    return matrix, vectorizer.get_feature_names_out()


def encode_tfidf(texts: pa.ChunkedArray, config: EncodeConfig) -> np.ndarray:
    """float32[P, C]: TF-IDF reduced by a truncated SVD."""
    from sklearn.decomposition import TruncatedSVD

    if not pc.any(pc.match_substring_regex(texts, r"[\p{L}\p{N}_]")).as_py():
        return np.zeros((len(texts), 1), np.float32)  # no text has a word
    matrix, words = build_tfidf(texts, config.encode_vocab)
    size = min(config.code_dim, len(words) - 1, matrix.shape[0] - 1)
    if size < 1:
        return np.asarray(matrix.todense(), np.float32)
    return TruncatedSVD(size, random_state=config.seed).fit_transform(matrix).astype(np.float32)
