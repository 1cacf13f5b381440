"""Everything that can be set for a training, from presets, a YAML file and the command line."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.config import ModelConfig, TrainConfig
from shortline import UserError, describe_value, flat_values, last_value, parse_flags
from tfdata.config import BASE_BATCH_SIZE, IngestConfig, PipelineConfig, TokenizerConfig

if TYPE_CHECKING:  # TensorFlow takes seconds to import: wrong flags are answered before that
    from tfdata.shards import ShardSet

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The network and training that the project began with, to the letter, but padded on the right,
    # shuffled globally, and with every whitespace between words.
    "seed": {
        "embedding_dim": 50, "pieces": 0, "pairs": 0, "bag": False, "stems": 0,
        "hidden": 40, "num_layers": 2, "bidirectional": False,
        "pooling": "last", "dropout": 0.5, "word_dropout": 0.0, "vocab_size": 20_000,
        "max_len": 40, "unspaced": "keep", "unknown": "drop", "truncate": "left",
        "batch_size": 128, "epochs": 20, "patience": 0, "learning_rate": 1e-3, "warmup": 0.0,
        "decay": "none", "clip_norm": None, "class_weights": "seed", "normalize_weights": False,
        "label_smoothing": 0.0, "long_tail": "none", "linear": "none", "refit": "none",
    },
}  # fmt: skip

MAY_DIFFER = {
    "resume", "config", "out", "gpus", "cpu_replicas", "steps_per_call", "save_minutes", "id_cache",
    "keep", "doctor", "deterministic", "skip_nonfinite", "wait_minutes", "tune", "linear",
    "refit",
}  # fmt: skip
"""Flags that a resumed run may have otherwise: they change what is computed by rounding at most, or
nothing before the training's end."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Everything that can be set; a run writes it to its config.yaml."""

    data: tuple[str, ...] = ()
    """Files of texts and labels, folders of them, or a shard set of tfdata.ingest; without it a
    corpus is generated."""
    docs: int = 40_000
    """Documents of the generated corpus (710900 is the size it imitates)."""
    out: str | None = None
    """Folder of the run (default: a new one in runs/)."""
    resume: str | None = None
    """Folder of a stopped run to go on with."""
    config: str | None = None
    """YAML file of flags; those on the command line win."""
    preset: str = "default"
    """default: what we recommend; seed: the network that the project began with."""
    gpus: str = "all"
    """all (or the CPU where there is none), a number, GPUs like 0,2, or none."""
    cpu_replicas: int = 1
    """Split the CPU into so many logical devices, to try several replicas without GPUs."""
    wait_minutes: float = 10.0
    """With several machines: wait so long for the others at the start."""
    save_minutes: float = 5.0
    """Checkpoint after so many minutes, besides after every epoch."""
    tune: float | None = None
    """Minutes to look for a better recipe than the default, the last training, with the best, among
    them; flags that you set stay as they are (pip install -e '.[tune]')."""
    scores_only: bool = False
    """End after the last epoch, with metrics.jsonl: no checkpoints, report or export."""
    keep: int = 2
    """Checkpoints to keep, besides the best: the last and those before it."""
    deterministic: bool = False
    """On a GPU, too, the same seed gives the same weights bitwise, by slower kernels (a CPU repeats
    bitwise without)."""
    doctor: bool = True
    """Say at the start, in a second, what is wrong with the data."""
    ingest: IngestConfig = field(default_factory=IngestConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if "" in self.data:
            raise ValueError("--data: one of its names is empty")
        if self.docs < 1_000:
            raise ValueError(f"--docs {self.docs}: must be 1000 or more")
        if not 1 <= self.cpu_replicas <= 64:
            raise ValueError(f"--cpu-replicas {self.cpu_replicas}: must be from 1 to 64")
        if not 1 <= self.keep <= 1000:
            raise ValueError(f"--keep {self.keep}: must be from 1 to 1000")
        if self.tune is not None and not 0 < self.tune < math.inf:
            raise ValueError(f"--tune {self.tune}: must be above 0 minutes")
        if self.wait_minutes <= 0:
            raise ValueError(f"--wait-minutes {self.wait_minutes}: must be above 0")
        if self.save_minutes <= 0:
            raise ValueError(f"--save-minutes {self.save_minutes}: must be above 0")


def read_flags(argv: Sequence[str] | None) -> Flags:
    """The flags; with --resume those of the run, which the command line may not contradict."""
    argv = list(sys.argv[1:] if argv is None else argv)
    flags = _parse(argv, check=_check_new)
    if flags.resume is None:
        return flags
    saved = Path(flags.resume) / "config.yaml"
    if not saved.exists():  # it may still be tuning
        saved = Path(flags.resume) / "tune" / "config.yaml"
    if not saved.exists():
        raise UserError(f"--resume {flags.resume}: not the folder of a run: no config.yaml in it")
    before = [] if "unspaced" in _read_keys(saved) else ["--unspaced=keep"]  # there was no other
    before.append(f"--config={saved}")
    run, resumed = _parse(before), _parse([*before, *argv])
    out = last_value(argv, "--out")
    if out is not None and os.path.realpath(out) != os.path.realpath(flags.resume):
        raise UserError(
            f"--out {out}: a resumed run stays in its folder, {flags.resume}; leave the flag "
            "out, or start a new run"
        )
    before, now = flat_values(run), flat_values(resumed)
    if [*map(os.path.abspath, resumed.data)] == [*run.data]:  # which a run keeps as absolute paths
        now["data"], resumed = before["data"], dataclasses.replace(resumed, data=run.data)
    for name, value in now.items():
        if value != before[name] and name not in MAY_DIFFER:
            raise UserError(refuse_change(name, before[name], value, resumed))
    return dataclasses.replace(resumed, resume=flags.resume, out=flags.resume)


def _read_keys(saved: Path) -> Collection[str]:
    """Of a config.yaml; none where it is damaged, which whoever reads it next says."""
    import yaml

    try:
        return yaml.safe_load(saved.read_text("utf-8")) or ()
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ()


def refuse_change(name: str, before: Any, now: Any, flags: Flags) -> str:
    """Why a resumed run may not have this setting otherwise, and what to do."""
    words = (
        f"--{name.replace('_', '-')} {describe_value(now)}: the run was started with "
        f"{describe_value(before)}"
    )
    if name == "epochs" and (flags.train.decay != "none" or flags.train.warmup):
        config = Path(str(flags.resume), "config.yaml")
        return (
            f"{words}, and its learning rate rises and falls with that; to train longer, start a "
            f"new run: --config {config} --epochs {now} --out ANOTHER"
        )
    return f"{words}; leave the flag out, or start a new run"


def lasting_settings(flags: Flags) -> dict[str, Any]:
    """The settings that a checkpoint holds its run to; what `data` holds has its fingerprint."""
    free = MAY_DIFFER | {"data"}
    return {name: value for name, value in flat_values(flags).items() if name not in free}


def _check_new(flags: Flags) -> None:
    """What an older run may have."""
    if flags.resume is None:
        flags.ingest.check_split()


def _parse(argv: Sequence[str], check: Callable[[Flags], None] | None = None) -> Flags:
    return parse_flags(
        Flags, argv, prog="train.py", presets=PRESETS, check=check,
        description="Train a text classifier; without --data, on a generated corpus.",
    )  # fmt: skip


def settle(flags: Flags, shard_set: ShardSet, device_bytes: int | None = 0) -> Flags:
    """Fills in what the data decides: longest text, epochs, folder; checks that all fit.

    Args:
      device_bytes: memory of the smallest GPU in use, 0 without one, None where it is not known.
    """
    from tfdata.plan import choose_max_len
    from tfdata.unspaced import ALONE

    tokenizer = flags.tokenizer
    if tokenizer.tokenizer != "word" or not any(map(re.compile(ALONE).search, shard_set.words)):
        tokenizer = dataclasses.replace(tokenizer, unspaced=shard_set.counted_with("unspaced"))
    for name in ("tokenizer", "filters", "nfkc", "unspaced"):
        asked, counted = getattr(tokenizer, name), shard_set.counted_with(name)
        if asked != counted:
            raise UserError(
                f"--{name} {asked!r}: the vocabulary of {shard_set.folder} was counted with "
                f"{counted!r}; give the same, or ingest the data again"
            )
    if tokenizer.max_len is None:
        max_len = choose_max_len(shard_set.length_counts)
        tokenizer = dataclasses.replace(tokenizer, max_len=max_len)
    pipeline = flags.pipeline
    num_train = shard_set.num_docs("train")
    # `auto` is measured later, and changes neither the epochs nor the windows
    batch_size = BASE_BATCH_SIZE if pipeline.batch_size == "auto" else pipeline.batch_size
    if pipeline.batch_tokens is None and num_train < batch_size:
        print(f"only {num_train} documents to train on: batches of {num_train} instead of "
              f"{batch_size}")  # fmt: skip
        pipeline = dataclasses.replace(pipeline, batch_size=num_train)
    residency = _settle_residency(flags, shard_set, device_bytes)
    pipeline = dataclasses.replace(pipeline, residency=residency)
    training = flags.train
    if training.epochs is None:
        mean_length = shard_set.length_counts @ np.arange(len(shard_set.length_counts)) / num_train
        budget = pipeline.batch_tokens
        batch_docs = budget / max(1, mean_length) if budget else batch_size
        epochs = min(30, max(8, math.ceil(2_500 * batch_docs / num_train)))
        training = dataclasses.replace(training, epochs=epochs)
    if training.label_smoothing is None:
        smoothing = round(0.1 * measure_evenness(shard_set.label_counts), 3)
        training = dataclasses.replace(training, label_smoothing=smoothing)
    model = flags.model
    if model.pairs is None:
        num_tokens = int(shard_set.length_counts @ np.arange(len(shard_set.length_counts)))
        model = dataclasses.replace(model, pairs=choose_pairs(num_tokens))
    return dataclasses.replace(
        place(flags), tokenizer=tokenizer, pipeline=pipeline, train=training, model=model
    )


def place(flags: Flags) -> Flags:
    """Fills in the run's folder, and makes the data's paths absolute, to resume from anywhere."""
    ingest = flags.ingest
    files = {part: getattr(ingest, part) for part in ("valid", "test")}
    files = {part: os.path.abspath(f) for part, f in files.items() if ingest.share(part) is None}
    return dataclasses.replace(
        flags,
        data=tuple(os.path.abspath(name) for name in flags.data),
        out=flags.out or f"runs/{datetime.now():%Y-%m-%d_%H%M%S}",
        config=None,
        ingest=dataclasses.replace(ingest, **files),
    )


def measure_evenness(counts: np.ndarray) -> float:
    """From 0 to 1: the number of classes of one size that would be as hard to guess (the exponent
    of the entropy), as a share of the classes there are.

    >>> measure_evenness(np.array([5, 5]))
    1.0
    """
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()) / len(counts))


def choose_pairs(num_tokens: int) -> int:
    """Vectors for the pairs of so many tokens: room for most of those that come again.

    >>> choose_pairs(100_000)
    32768
    """
    return 2 ** max(10, min(18, math.ceil(math.log2(max(4, num_tokens) / 4))))


def _settle_residency(flags: Flags, shard_set: ShardSet, device_bytes: int | None) -> Any:
    """`auto` as what it comes to, once: a resumed run must make the same windows."""
    from tfdata.residency import choose_residency
    from tfdata.vocab import Vocabulary

    asked = flags.pipeline.residency
    if asked == "device" and device_bytes == 0:
        print("note: --residency device without a GPU: the token ids are in main memory")
    if asked != "auto":
        return asked
    vocab_size = len(Vocabulary.build(shard_set.words, flags.tokenizer))
    residency = choose_residency(shard_set, "train", vocab_size, device_bytes or 0)
    if device_bytes is None and residency == "host":
        print(
            "note: NVML does not tell the GPU's memory, so the token ids stay in main memory; "
            "--residency device puts them on the GPU"
        )
    return residency
