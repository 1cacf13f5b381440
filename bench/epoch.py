"""The seed's whole job, and its peers at it: `python -m bench.epoch --against keras,torch`.

Our arm is train.py itself; each peer is a script of bench.peers. All train on the same split, for
the same number of epochs, in batches of the same size, each in a process of its own, one after the
other; with `--turns` in the order A B C, C B A, ... with another seed each turn. Prints a row for
each arm, draws validation accuracy against time (`--out`), and ends with one line of JSON.

  epoch s      seconds of an epoch, without validation; the first, which compiles, does not count
  ours x       how many times as fast ours is, by that
  to .95       seconds of training until the validation accuracy first reaches the target
  start, wall  from the start of the process to the first step; to the last validation
  joules       the GPUs' meanwhile, by NVML

fastText's learning rate ends with its training: its time to the target is that of the shortest
training of 1, 2, 4, ... epochs that reaches it, and its epochs include counting its vocabulary.
Of several GPUs train.py takes all and a peer one; CUDA_VISIBLE_DEVICES chooses among them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.arm_table import describe, describe_ratios, format_table
from bench.arms import OURS, PEERS, ArmFailed, Job, check_peers, run_arm
from bench.compare import compare, order_turns, summarise
from bench.curves import draw_curves
from bench.timing import describe_machine
from model.config import TrainConfig
from model.flags import PRESETS, read_flags
from shortline import UserError, import_tensorflow, parse_flags, run_command, write_whole
from tfdata.config import PipelineConfig
from tfdata.shards import ShardSet, is_shard_set, open_shards


@dataclass(frozen=True, kw_only=True)
class EpochFlags:
    """The flags of `python -m bench.epoch`."""

    against: str = ""
    """Peers to run as well, with commas between: keras (the seed's script, on Keras 3), keras2,
    keras-right, torch, fasttext (`pip install -e '.[peers]'`)."""
    docs: int = 710_900
    """Documents of the generated corpus."""
    data: Path | None = None
    """Shard set of tfdata.ingest to train on instead."""
    epochs: int = 20
    """Passes over the training documents, of every arm."""
    batch_size: int = 128
    """Documents in a batch, of every arm."""
    learning_rate: float | None = None
    """Of Adam, in the networks of all arms (default: the preset's times the root of batch size /
    the preset's batch size: Malladi et al. 2022)."""
    target: float = 0.95
    """Validation accuracy to reach."""
    preset: str = "seed"
    """Network and training of our arm, as of train.py; the peers have the seed's."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Of ours, keras-right and torch."""
    gpus: Literal["all", "none"] = "all"
    """all (or the CPU where there is none), or none."""
    turns: int = 1
    """How often each arm runs."""
    out: Path | None = None
    """Folder of the record to write, as bench/records/2026-01-31_what."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"--preset {self.preset}: must be one of {', '.join(PRESETS)}")
        for name in self.peers:
            if name not in PEERS:
                raise ValueError(f"--against {name}: must be one of {', '.join(PEERS)}")
        for flag, least in (("docs", 1_000), ("epochs", 1), ("batch_size", 1), ("turns", 1)):
            value = getattr(self, flag)
            if value < least:
                raise ValueError(f"--{flag.replace('_', '-')} {value}: must be {least} or more")
        if not 0 < self.target <= 1:
            raise ValueError(f"--target {self.target}: must be above 0, at most 1")

    @property
    def peers(self) -> tuple[str, ...]:
        names = (name.strip() for name in self.against.split(","))
        return tuple(dict.fromkeys(name for name in names if name))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    flags = parse_flags(
        EpochFlags, argv, prog="python -m bench.epoch",
        description="Time epochs of train.py, and of its peers, on the seed's whole job.",
    )  # fmt: skip
    if flags.out is not None and (flags.out / "epoch.json").exists():
        raise UserError(f"--out {flags.out}: holds a record; choose another folder")
    check_peers(flags.peers)
    shard_set = open_split(flags)
    result, lines = run_all(flags, shard_set)
    if flags.out is not None:
        write_record(flags.out, result, lines)
    print(json.dumps(result))


def open_split(flags: EpochFlags) -> ShardSet:
    """The shard set that all arms train on, ingested before the first of them starts.

    Raises:
      UserError: it has no validation part.
    """
    if flags.data is None:
        import_tensorflow()
        from bench.feed import open_corpus
        from model.devices import choose_devices

        choose_devices("none")  # the memory of the GPUs is for the arms
        return open_corpus(read_flags(["--preset", flags.preset]), flags.docs).shard_set
    if not is_shard_set(flags.data):
        raise UserError(f"--data {flags.data}: no shard set; make one with tfdata.ingest")
    import_tensorflow()  # without its greetings, which opening the shards would bring
    shard_set = open_shards(flags.data.absolute())
    if not shard_set.num_docs("valid"):
        raise UserError(f"--data {flags.data}: has no valid part; ingest it with one")
    return shard_set


def run_all(flags: EpochFlags, shard_set: ShardSet) -> tuple[dict[str, Any], list[str]]:
    """Runs every arm every turn; returns the result for JSON, and the table for people.

    Raises:
      UserError: our own arm failed.
    """
    names = {field.name for field in dataclasses.fields(Job)} - {"shards"}
    settings = {name: getattr(flags, name) for name in names}
    settings["learning_rate"] = choose_rate(flags)
    job = Job(shards=shard_set.folder.absolute(), **settings)
    arms = (OURS, *flags.peers)
    machine = describe_machine("")  # now: the load at the end is our own
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    for turn, arm in order_turns(arms, flags.turns):
        print(f"{arm}, turn {turn + 1} of {flags.turns}", flush=True)
        try:
            runs[arm].append(run_arm(arm, job, turn, lambda line: print(f"  {line}", flush=True)))
        except ArmFailed as error:
            if arm == OURS:
                raise UserError(f"train.py: {error}") from error
            print(f"  failed: {error}", flush=True)
            runs[arm].append({"arm": arm, "seed": turn, "error": str(error)})
    ours = runs[OURS]
    result = {
        "benchmark": "epoch", "preset": flags.preset,
        "num_train": ours[0]["num_train"], "num_valid": ours[0]["num_valid"],
        "num_classes": len(shard_set.labels), "epochs": flags.epochs,
        "batch_size": flags.batch_size, "learning_rate": job.learning_rate,
        "precision": flags.precision, "target": flags.target,
        "turns": flags.turns, "machine": machine | {"device": ours[0]["device"]},
        "arms": {arm: summarise(runs[arm], flags.target) for arm in arms},
        "times_as_fast_as": {arm: compare(ours, runs[arm], flags.target) for arm in flags.peers},
        "runs": [record for arm in arms for record in runs[arm]],
    }  # fmt: skip
    lines = [*describe(result), *format_table(result), *describe_ratios(result)]
    print("\n".join(lines), flush=True)
    return result, lines


def choose_rate(flags: EpochFlags) -> float:
    if flags.learning_rate is not None:
        return flags.learning_rate
    preset = PRESETS[flags.preset]
    rate = preset.get("learning_rate", TrainConfig.learning_rate)
    return rate * math.sqrt(flags.batch_size / preset.get("batch_size", PipelineConfig.batch_size))


def write_record(folder: Path, result: dict[str, Any], lines: Sequence[str]) -> None:
    """The figures as epoch.json, as they were printed as epoch.txt, and the curves as epoch.png."""
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{result['num_train']:,} documents, {result['machine']['device']}"
    with write_whole(folder / "epoch.png", "wb") as file:
        draw_curves(file, result["runs"], result["target"], title)
    with write_whole(folder / "epoch.txt") as file:
        file.write("\n".join(lines) + "\n")
    with write_whole(folder / "epoch.json") as file:
        json.dump(result, file, indent=2)


if __name__ == "__main__":
    run_command(main)
