"""Settings of the network and of its training; each checks itself when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


def _require(condition: bool, flag: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"--{flag} {value}: must be {allowed}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Embedding, stacked LSTM, pooling, logits. No recurrent dropout: cuDNN has none."""

    embedding_dim: int = 128
    """Size of a token's embedding."""
    pieces: int = 32_768
    """Hash buckets of the character n-grams (2 to 5) of words, whose mean is added to a word's
    embedding (0: none; only with --tokenizer word)."""
    pairs: int | None = None
    """Vectors of pairs of neighbouring words, whose scaled sum is among what the classifier sees:
    the most frequent pairs of those that training has twice or more, and one for all others (0:
    none; default: one to four tokens of the training texts, at most 262144)."""
    pairs_dim: int = 64
    """Size of a pair's vector."""
    bag: bool = True
    """The classifier sees the scaled sum of the words' vectors, too."""
    hidden: int = 96
    """Units of an LSTM layer, in each direction."""
    num_layers: int = 1
    """LSTM layers, one on the other."""
    bidirectional: bool = True
    """Read the text from both ends."""
    pooling: Literal["last", "max", "max_mean"] = "max_mean"
    """What of the LSTM's outputs the classifier sees."""
    dropout: float = 0.5
    """Share of an LSTM layer's outputs dropped in training."""
    word_dropout: float = 0.1
    """Share of the tokens replaced in training: by their stems, and three in ten by [UNK]."""
    route: Literal["auto", "block", "keras", "cudnn"] = "auto"
    """LSTM kernels: on a GPU cudnn, on a CPU block (fused), anywhere keras."""
    precision: Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"] = "auto"
    """Of the embedding's outputs and the LSTM; weights, logits and loss are always float32."""

    def __post_init__(self) -> None:
        if self.pieces:
            _require(2 <= self.pieces <= 2**24, "pieces", self.pieces, "0, or from 2 to 16777216")
        if self.pairs:
            _require(2 <= self.pairs <= 2**24, "pairs", self.pairs, "0, or from 2 to 16777216")
        for flag in ("embedding_dim", "pairs_dim", "hidden", "num_layers"):
            value = getattr(self, flag)
            _require(1 <= value <= 65_536, flag.replace("_", "-"), value, "from 1 to 65536")
        for flag in ("dropout", "word_dropout"):
            value = getattr(self, flag)
            _require(0 <= value < 1, flag.replace("_", "-"), value, "from 0 up to 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Optimizer, loss and the length of training."""

    epochs: int | None = None
    """Most passes over the training documents (default: enough for 2,500 steps, from 8 to 30)."""
    patience: int = 15
    """Stop after so many epochs without a better mean of validation accuracy and macro-F1 (0:
    never)."""
    learning_rate: float = 2e-3
    """Adam's step size, after warm-up and before decay."""
    warmup: float = 0.05
    """Share of all steps over which the learning rate rises from 0."""
    decay: Literal["none", "cosine", "linear"] = "cosine"
    """How the learning rate falls from warm-up to the last step."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW) of kernels; embeddings and biases have none."""
    clip_norm: float | None = 1.0
    """Largest global norm of the gradient (None: as it is)."""
    class_weights: Literal["none", "seed", "balanced", "effective"] = "none"
    """Weights of rare classes in the loss: none; seed: ln(0.5 total / count), at least 1;
    balanced: total / (classes x count); effective: Cui et al. 2019, beta 0.999."""
    normalize_weights: bool = True
    """Scale the class weights to a mean of 1 over the training documents."""
    long_tail: Literal["auto", "none"] = "auto"
    """auto: after training, logits lose a power of their classes' shares (Menon et al. 2021), which
    the validation part chooses for the best macro-F1 at no more than .005 less accuracy, and in the
    linear classifier texts of small classes cost more; none: neither."""
    linear: Literal["auto", "none"] = "auto"
    """auto: after training, a linear classifier of words, pairs and pieces of words (an
    L2-regularised linear SVM) is trained, too; its decision values add to the logits by a weight
    that the validation part chooses; none."""
    refit: Literal["auto", "none"] = "auto"
    """auto: of up to 400,000 documents, all train in the end: another network, for as many epochs
    as were best, and the linear classifier, on training and validation part together, when the
    latter has chosen, scored and calibrated; the logits of both networks are averaged (where the
    validation part is a fiftieth of the training part or more); none."""
    label_smoothing: float | None = None
    """Share of the target spread evenly over all classes (default: .1 where classes are of one
    size, less the more they differ: to a rare class it would give more than its share)."""
    steps_per_call: int = 64
    """Training steps in one call of the compiled loop, between two looks at the clock."""
    seed: int = 0
    """Of initial weights, batches and dropout."""
    skip_nonfinite: bool = False
    """Leave out an update whose gradient is not finite, and count it, instead of stopping."""

    def __post_init__(self) -> None:
        if self.epochs is not None:
            _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(self.patience >= 0, "patience", self.patience, "0 or more")
        _require(
            0 < self.learning_rate < 100, "learning-rate", self.learning_rate, "above 0, below 100"
        )
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "from 0 up to 1")
        _require(0 <= self.weight_decay < 1, "weight-decay", self.weight_decay, "from 0 up to 1")
        if self.clip_norm is not None:
            _require(self.clip_norm > 0, "clip-norm", self.clip_norm, "above 0, or None")
        if self.label_smoothing is not None:
            _require(
                0 <= self.label_smoothing < 1, "label-smoothing", self.label_smoothing,
                "from 0 up to 1",
            )  # fmt: skip
        _require(self.steps_per_call >= 1, "steps-per-call", self.steps_per_call, "1 or more")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2147483647")
