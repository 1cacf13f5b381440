"""Settings of the steps after clean; each checks itself when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tfdata.config import IngestConfig, TokenizerConfig, require


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """How points become codes."""

    encoder: Literal["lstm", "tfidf"] = "lstm"
    """lstm: an auto-encoder trained on the texts; tfidf: word TF-IDF and SVD, the baseline."""
    code_dim: int = 64
    """Numbers in a code."""
    embedding_dim: int = 64
    """Size of a token's embedding."""
    hidden: int = 64
    """Units of each LSTM."""
    encode_vocab: int = 8_000
    """Most token ids of the auto-encoder."""
    encode_max_len: int | None = None
    """Most tokens read of a text (default: enough for 99 % of the texts, at most 128)."""
    encode_steps: int = 1_000
    """Training steps of the auto-encoder, whatever the number of texts; at most 40 epochs."""
    encode_batch: int = 128
    """Texts in a batch."""
    encode_rate: float = 1e-2
    """Adam's step size, after warm-up and before decay."""
    noise: float = 0.1
    """Share of the tokens hidden from the encoder in training."""
    hidden_share: float = 0.5
    """Share of the tokens before hidden from the decoder in training."""
    sampled: int = 1_024
    """Wrong words that the right one is told from, where there are more than 2,048."""
    seed: int = 0
    """Of weights, batches, noise and samples."""

    def __post_init__(self) -> None:
        for flag in ("code_dim", "embedding_dim", "hidden", "encode_steps", "encode_batch"):
            require(getattr(self, flag) >= 1, flag.replace("_", "-"), getattr(self, flag), "≥ 1")
        for flag in ("noise", "hidden_share"):
            value = getattr(self, flag)
            require(0 <= value < 1, flag.replace("_", "-"), value, "from 0 up to 1")
        require(3 <= self.encode_vocab <= 2**24, "encode-vocab", self.encode_vocab, "3 or more")
        require(0 < self.encode_rate < 100, "encode-rate", self.encode_rate, "above 0, below 100")
        require(self.sampled >= 1, "sampled", self.sampled, "1 or more")
        require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2147483647")
        if self.encode_max_len is not None:
            require(self.encode_max_len >= 1, "encode-max-len", self.encode_max_len, "1 or more")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How codes become clusters."""

    algorithm: Literal["dbscan", "hdbscan"] = "dbscan"
    """dbscan: what is connected at one distance, whatever the number of points; hdbscan: at a
    distance of its own for each cluster (scikit-learn's; memory for some 50,000 points)."""
    eps: float | None = None
    """dbscan's distance between codes of length 1, from .01 to 2 (default: the knee of the curve of
    distances to the --min-docs nearest documents, or its lower quartile where it has none)."""
    min_docs: int = 3
    """Documents within eps, itself counted, that make a document part of a cluster's core;
    hdbscan: the smallest cluster."""

    def __post_init__(self) -> None:
        require(self.min_docs >= 2, "min-docs", self.min_docs, "2 or more")
        if self.eps is not None:
            require(0.01 <= self.eps <= 2, "eps", self.eps, "from 0.01 to 2")


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """Which clusters are taken for one."""

    merge_ratio: float = 0.88
    """difflib's ratio of two representatives (1: the same text) from which on their clusters are
    merged; above 1: none are."""
    representatives: int = 3
    """How many texts of a cluster are compared, at most: those of most documents; where none is of
    several documents and of one in a hundred of the cluster, the one nearest to its mean."""

    def __post_init__(self) -> None:
        require(self.representatives >= 1, "representatives", self.representatives, "≥ 1")
        require(0.5 <= self.merge_ratio <= 2, "merge-ratio", self.merge_ratio, "from 0.5 to 2")


@dataclass(frozen=True, kw_only=True)
class DedupeConfig:
    """Which documents of a class are taken for copies."""

    near: float = 0.05
    """Damerau-Levenshtein edits, as a share of the longer text, up to which one of two documents
    of a class is removed; 0: those of the same text alone."""

    def __post_init__(self) -> None:
        require(0 <= self.near <= 0.5, "near", self.near, "from 0 to 0.5")


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How the labelled documents become a shard set."""

    valid: str = "0.1"
    """Share of the documents to validate on."""
    split: Literal["random", "group"] = "group"
    """What validates is drawn by class; group: with near copies on the same side, so that a class
    of near copies alone trains; random: text by text."""
    vocab_size: int = 20_000
    """Most token ids of the shard set's vocabulary."""

    def __post_init__(self) -> None:
        share = IngestConfig(valid=self.valid).share("valid")  # said now, not after all the steps
        require(share is not None, "valid", self.valid, "a share from 0 up to 1")
        TokenizerConfig(vocab_size=self.vocab_size)
