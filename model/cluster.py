"""Which machines train together: from TF_CONFIG, as Kubeflow and Vertex set it, or from Slurm.

Imports nothing that is slow to import, unless Slurm started this process.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from shortline import UserError, import_tensorflow

_FIRST_PORT, _NUM_PORTS = 20_000, 10_000  # for Slurm, by the number of the job


@dataclass(frozen=True)
class Cluster:
    """The workers of a training, and which of them this process is."""

    addresses: tuple[str, ...]
    """`host:port` of each; worker 0 writes the run's folder."""
    index: int

    def __len__(self) -> int:
        return len(self.addresses)

    def name(self, index: int) -> str:
        """A worker for a person."""
        return f"worker {index} ({self.addresses[index]})"


def find_cluster() -> Cluster | None:
    """The workers that the environment tells of; None where this process trains alone.

    TF_CONFIG wins over Slurm's variables; `TF_CONFIG={}` says that there is one machine.

    Raises:
      UserError: a variable that cannot be understood.
    """
    config = os.environ.get("TF_CONFIG")
    if config is not None:
        cluster = _read_tf_config(config)
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # a step of srun, not a batch script
        cluster = _read_slurm()
    else:
        return None
    return cluster if cluster is not None and len(cluster) > 1 else None


def _read_tf_config(text: str) -> Cluster | None:
    try:
        config = json.loads(text or "{}")
        jobs = config.get("cluster") or {}
        task = config.get("task") or {}
        jobs = {job: [str(address) for address in jobs[job]] for job in jobs}
        job, index = task.get("type"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"TF_CONFIG: cannot be understood ({error}); {_FORM}") from None
    if not jobs:
        return None
    if jobs.get("ps") or job in ("ps", "evaluator"):
        raise UserError(
            "TF_CONFIG: parameter servers and evaluators are not used here; all tasks must be "
            "workers (or one chief and workers)"
        )
    chiefs, workers = jobs.get("chief") or jobs.get("master") or [], jobs.get("worker") or []
    if job not in ("chief", "master", "worker"):
        raise UserError(f"TF_CONFIG: the task's type is {job!r}; {_FORM}")
    own = workers if job == "worker" else chiefs
    if not 0 <= index < len(own):
        raise UserError(f"TF_CONFIG: there is no {job} {index} among {len(own)}; {_FORM}")
    addresses = (*chiefs, *workers)
    for address in addresses:
        _check_address(address, addresses)
    return Cluster(addresses, index if own is chiefs else len(chiefs) + index)


_FORM = (
    'it must be like {"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def _check_address(address: str, addresses: tuple[str, ...]) -> None:
    port = re.fullmatch(r"\S+:(\d+)", address)
    if not port or not 0 < int(port[1]) < 2**16:
        raise UserError(f"TF_CONFIG: {address!r} is no host:port; {_FORM}")
    if addresses.count(address) > 1:
        raise UserError(f"TF_CONFIG: {address} is named twice; every worker needs its own port")


def _read_slurm() -> Cluster:
    """The tasks of this step of srun, in blocks of a node each, as srun spreads them by default."""
    import_tensorflow()
    import tensorflow as tf

    job = os.environ.get("SLURM_JOB_ID", "0")
    first_port = _FIRST_PORT + int(job if job.isdigit() else 0) % _NUM_PORTS
    try:
        num_tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
        # GPUs are Slurm's to give out: these numbers are only to satisfy the resolver's checks
        resolver: Any = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=first_port, gpus_per_node=num_tasks, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = tuple(resolver.cluster_spec().as_dict()["worker"])
        index = int(os.environ["SLURM_PROCID"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"Slurm's variables cannot be understood ({error}); start the workers with srun, or "
            "say `export TF_CONFIG={}` to train on one machine"
        ) from None
    return Cluster(addresses, index)
