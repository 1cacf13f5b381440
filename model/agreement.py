"""What several workers must have alike, before they train together."""

from __future__ import annotations

import dataclasses

from model.flags import Flags, lasting_settings
from model.workers import Workers
from shortline import UserError
from tfdata.shards import ShardSet

_RESIDENCIES = ("stream", "host", "device")
_MACHINES_OWN = {"valid", "test", "residency"}
"""Settings that may differ: paths, and what depends on a machine's memory."""


def agree(flags: Flags, shard_set: ShardSet, workers: Workers) -> Flags:
    """The flags as all workers take them; the chief's where they may differ.

    Args:
      flags: as `settle` filled them in.

    Raises:
      UserError: on all workers, if one has other data or settings.
    """
    settings = lasting_settings(flags) | {"skip_nonfinite": flags.train.skip_nonfinite}
    mine = {
        "settings": {name: settings[name] for name in settings if name not in _MACHINES_OWN},
        "data": shard_set.fingerprint, "residency": flags.pipeline.residency,
        "steps_per_call": flags.train.steps_per_call, "refit": flags.train.refit, "out": flags.out,
    }  # fmt: skip
    chief, *others = workers.gather_values(mine)
    for index, worker in enumerate(others, 1):
        for name, value in worker["settings"].items():
            if value != chief["settings"][name]:
                raise UserError(
                    f"--{name.replace('_', '-')} {value} on worker {index}: worker 0 has "
                    f"{chief['settings'][name]}; give all workers the same flags"
                )
        if worker["data"] != chief["data"]:
            raise UserError(
                f"worker {index} has other data than worker 0; give all the same files, or a copy "
                "of one shard set (python -m tfdata.ingest)"
            )
    residency = min((w["residency"] for w in (chief, *others)), key=_RESIDENCIES.index)
    return dataclasses.replace(
        flags, out=chief["out"],
        pipeline=dataclasses.replace(flags.pipeline, residency=residency),
        train=dataclasses.replace(
            flags.train, steps_per_call=chief["steps_per_call"], refit=chief["refit"]
        ),
    )  # fmt: skip
