"""The seed's whole job, and its peers at it: `python -m bench.epoch --against keras,torch`.

Our arm is train.py itself; each peer is a script of bench.peers. All train on the same split, for
the same number of epochs, in batches of the same size, each in a process of its own, one after the
other; with `--turns` in the order A B C, C B A, ... with another seed each turn. Prints a row for
each arm, draws validation accuracy against time (`--out`), and ends with one line of JSON. The
record is written after each turn of an arm: what is cut short keeps what it has measured.

  epoch s      seconds of an epoch, without validation; the first, in which ours tokenises (preset
               default: in its start-up), does not count
  ours x       how many times as fast ours is, by that
  to .95       seconds of training until the validation accuracy first reaches the target
  start, wall  from the start of the process to the first step, compiling included; to the last
               validation
  joules       the GPUs' meanwhile, by NVML

fastText's learning rate ends with its training: its time to the target is that of the shortest
training of 1, 2, 4, ... epochs that reaches it, and its epochs include counting its vocabulary.
Of several GPUs train.py takes all and a peer one; CUDA_VISIBLE_DEVICES chooses among them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from bench.arm_table import describe, describe_ratios, format_table
from bench.arms import OURS, PEERS, ArmFailed, Job, check_peers, run_arm
from bench.checks import check_least, check_preset
from bench.compare import compare, order_turns, summarise
from bench.curves import draw_curves
from bench.record import check_out, write_record
from bench.timing import describe_machine
from model.config import TrainConfig
from model.flags import PRESETS, read_flags
from shortline import UserError, import_tensorflow, parse_flags, run_command
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
    torch_threads: int | None = None
    """Of torch on a CPU (default: PyTorch's own choice)."""
    turns: int = 1
    """How often each arm runs."""
    out: Path | None = None
    """Folder of the record to write, as bench/records/2026-01-31_what."""

    def __post_init__(self) -> None:
        check_preset(self.preset)
        for name in self.peers:
            if name not in PEERS:
                raise ValueError(f"--against {name}: must be one of {', '.join(PEERS)}")
        check_least(self, docs=1_000, epochs=1, batch_size=1, turns=1)
        if self.torch_threads is not None:
            check_least(self, torch_threads=1)
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
    check_out(flags.out, "epoch")
    check_peers(flags.peers)
    result, lines = run_all(flags, open_split(flags))
    print("\n".join(lines), flush=True)
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

    With `--out` the record is there after each turn of an arm, marked as not finished.

    Raises:
      UserError: our own arm failed.
    """
    names = {field.name for field in dataclasses.fields(Job)} - {"shards"}
    settings = {name: getattr(flags, name) for name in names}
    settings["learning_rate"] = choose_rate(flags)
    job = Job(shards=shard_set.folder.absolute(), **settings)
    machine = describe_machine("")  # now: the load at the end is our own
    turns = order_turns((OURS, *flags.peers), flags.turns)
    runs: dict[str, list[dict[str, Any]]] = {}  # ours has the first turn
    result, lines = {}, []
    for number, (turn, arm) in enumerate(turns, start=1):
        print(f"{arm}, turn {turn + 1} of {flags.turns}", flush=True)
        runs.setdefault(arm, []).append(run_turn(arm, job, turn))
        result = sum_up(flags, job, len(shard_set.labels), runs, machine)
        result["finished"] = number == len(turns)
        lines = [*describe(result), *format_table(result), *describe_ratios(result)]
        if not result["finished"]:
            lines.append(f"not finished: {number} of {len(turns)} turns")
        if flags.out is not None:
            title = f"{result['num_train']:,} documents, {result['machine']['device']}"
            draw = partial(draw_curves, records=result["runs"], target=flags.target, title=title)
            write_record(flags.out, result, lines, draw)
    return result, lines


def run_turn(arm: str, job: Job, turn: int) -> dict[str, Any]:
    """The record of an arm, or of a peer that failed, why.

    Raises:
      UserError: our own arm failed.
    """
    try:
        return run_arm(arm, job, turn, lambda line: print(f"  {line}", flush=True))
    except ArmFailed as error:
        if arm == OURS:
            raise UserError(f"train.py: {error}") from error
        print(f"  failed: {error}", flush=True)
        return {"arm": arm, "seed": turn, "error": str(error)}


def sum_up(
    flags: EpochFlags, job: Job, num_classes: int, runs: Mapping[str, Sequence[dict[str, Any]]],
    machine: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """All figures of the turns so far.

    Args:
      runs: records by arm, ours first, each in the order of its turns.
    """
    ours = runs[OURS]
    return {
        "benchmark": "epoch", "preset": flags.preset,
        "num_train": ours[0]["num_train"], "num_valid": ours[0]["num_valid"],
        "num_classes": num_classes, "epochs": flags.epochs,
        "batch_size": flags.batch_size, "learning_rate": job.learning_rate,
        "precision": flags.precision, "torch_threads": flags.torch_threads,
        "target": flags.target, "turns": flags.turns,
        "machine": {**machine, "device": ours[0]["device"]},
        "arms": {arm: summarise(records, flags.target) for arm, records in runs.items()},
        "times_as_fast_as": {
            arm: compare(ours, records, flags.target)
            for arm, records in runs.items()
            if arm != OURS
        },
        "runs": [record for records in runs.values() for record in records],
    }  # fmt: skip


def choose_rate(flags: EpochFlags) -> float:
    if flags.learning_rate is not None:
        return flags.learning_rate
    preset = PRESETS[flags.preset]
    rate = preset.get("learning_rate", TrainConfig.learning_rate)
    return rate * math.sqrt(flags.batch_size / preset.get("batch_size", PipelineConfig.batch_size))


if __name__ == "__main__":
    run_command(main)
