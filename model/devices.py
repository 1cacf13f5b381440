"""Which devices train, and what NVML says of them meanwhile."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tensorflow as tf

from model.lifeline import Lifeline
from shortline import UserError

_LEAST_CONNECT_SECONDS, _MOST_CONNECT_SECONDS = 45, 24 * 3600  # between: by --wait-minutes


@dataclass(frozen=True)
class Devices:
    """The strategy to train under, and how to name the devices to a person."""

    strategy: tf.distribute.Strategy
    gpus: tuple[int, ...]
    """Numbers of the GPUs in use; none on a CPU."""
    description: str
    lifeline: Lifeline | None = None
    """To the other machines, if several train together."""

    @property
    def has_gpu(self) -> bool:
        return bool(self.gpus)

    @property
    def memory_bytes(self) -> int | None:
        """Of the smallest GPU in use; 0 without one, None where NVML does not tell."""
        return GpuMonitor(self.gpus).memory_bytes() if self.gpus else 0


def count_gpus(gpus: str) -> int:
    """As many as `--gpus` asks for; raises as `choose_devices`."""
    return len(_choose_gpus(gpus, tf.config.list_physical_devices("GPU")))


def choose_devices(gpus: str, cpu_replicas: int = 1, lifeline: Lifeline | None = None) -> Devices:
    """Reads `--gpus all | N | 0,2 | none`; call it before TensorFlow touches a device.

    `N` is a number of GPUs, `0,2` (or `0,`) are their numbers.

    Args:
      lifeline: to other machines that train together with this one.

    Raises:
      UserError: a GPU that is not there or cannot be used, or a value of another form.
    """
    if lifeline is not None and cpu_replicas > 1:
        raise UserError(f"--cpu-replicas {cpu_replicas}: only on a single machine")
    found = tf.config.list_physical_devices("GPU")
    chosen = _choose_gpus(gpus, found)
    numbers = tuple(found.index(gpu) for gpu in chosen)
    tf.config.set_visible_devices(chosen, "GPU")
    if chosen:
        if cpu_replicas > 1:
            raise UserError(f"--cpu-replicas {cpu_replicas}: only with --gpus none")
        for gpu in chosen:
            tf.config.experimental.set_memory_growth(gpu, True)
        names = [
            tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
            for gpu in chosen
        ]
        description = f"{len(chosen)} x {names[0]}"
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        with contextlib.suppress(RuntimeError):  # too late in this process: slower, not wrong
            # the parts of a batch run side by side instead: see model.lstm.count_blocks
            tf.config.threading.set_intra_op_parallelism_threads(1)
        description = "CPU" if cpu_replicas == 1 else f"CPU as {cpu_replicas} logical devices"
    if lifeline is not None:  # before TensorFlow is started, which a list of its devices does
        description = f"{len(lifeline.cluster)} workers of {description}"
        with _name_busy_gpus(gpus, numbers):
            strategy = join_workers(lifeline, len(chosen))
        return Devices(strategy, numbers, description, lifeline)
    if chosen:
        with _name_busy_gpus(gpus, numbers):
            logical = tf.config.list_logical_devices("GPU")
    else:
        with contextlib.suppress(RuntimeError):  # already split as asked, by an earlier call
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(cpu_replicas)]
            )
        logical = tf.config.list_logical_devices("CPU")[:cpu_replicas]
        if len(logical) < cpu_replicas:
            raise UserError(
                f"--cpu-replicas {cpu_replicas}: TensorFlow already runs on {len(logical)} "
                "logical CPUs in this process; start a new one"
            )
    if len(logical) == 1:
        return Devices(tf.distribute.get_strategy(), numbers, description)
    strategy = mirror(tuple(device.name for device in logical))
    return Devices(strategy, numbers, description)


def join_workers(lifeline: Lifeline, num_gpus: int) -> tf.distribute.MultiWorkerMirroredStrategy:
    """The strategy of workers that have met already; the first that TensorFlow is asked for."""
    cluster = lifeline.cluster
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}), task_type="worker",
        task_id=cluster.index, num_accelerators={"GPU": num_gpus}, rpc_layer="grpc",
    )  # fmt: skip
    # TensorFlow would wait for a worker that ends right now for an hour, and no Python runs
    # meanwhile: the kernel ends this process, then, and without a word.
    seconds = max(_LEAST_CONNECT_SECONDS, min(lifeline.wait_seconds, _MOST_CONNECT_SECONDS))
    seconds = math.ceil(seconds)
    print(f"connecting the workers (at most {seconds} s)", flush=True)
    alarm = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    terminate = signal.getsignal(signal.SIGTERM)
    signal.alarm(seconds)
    try:
        with lifeline.connecting():
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGTERM, terminate)  # TensorFlow has set one that does nothing


@contextlib.contextmanager
def _name_busy_gpus(gpus: str, numbers: Sequence[int]) -> Iterator[None]:
    """What TensorFlow says when it cannot start on a GPU, in words that name the GPU."""
    try:
        yield
    except (tf.errors.OpError, RuntimeError) as error:
        ordinal = re.search(r"(?:device ordinal|GPU:)\s*(\d+)", str(error))
        if not re.search(r"(?i)cuda|gpu", str(error)):
            raise
        named = f"GPU {ordinal[1]}" if ordinal else ", ".join(f"GPU {n}" for n in numbers)
        raise UserError(
            f"--gpus {gpus}: {named} cannot be used: {str(error).splitlines()[0][:300]}; another "
            "process may hold it (nvidia-smi shows which): end that, or choose other GPUs"
        ) from error


@functools.cache
def mirror(names: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """The one strategy of this process over these devices.

    A second one would count its collective operations from the same start as the first, and
    TensorFlow takes two of the same number for one.
    """
    return tf.distribute.MirroredStrategy(names)


def _choose_gpus(gpus: str, found: list) -> list:
    if gpus == "none":
        return []
    if gpus == "all":
        return found
    try:
        numbers = [int(part) for part in gpus.split(",") if part.strip()]
    except ValueError:
        numbers = [-1]
    if not numbers or min(numbers) < 0:
        raise UserError(f"--gpus {gpus}: must be all, none, a number of GPUs, or GPUs like 0,2")
    if gpus.strip() == "0":
        raise UserError("--gpus 0: say none for no GPU, or 0, (with the comma) for GPU number 0")
    have = ", ".join(f"GPU {number}" for number in range(len(found))) or "no GPU"
    have += "; `--gpus all` uses what is there, `pip install -e '.[gpu]'` brings CUDA"
    if "," not in gpus:
        if numbers[0] > len(found):
            wanted = "one GPU" if numbers == [1] else f"{numbers[0]} GPUs"
            raise UserError(f"--gpus {gpus}: asks for {wanted}, and TensorFlow sees {have}")
        numbers = list(range(numbers[0]))
    missing = [f"GPU {number}" for number in numbers if number >= len(found)]
    if missing:
        raise UserError(
            f"--gpus {gpus}: there is no {' and no '.join(missing)}; TensorFlow sees {have}"
        )
    return [found[number] for number in dict.fromkeys(numbers)]


class GpuMonitor:
    """Utilisation, memory and power of some GPUs by NVML; nothing where there is no NVML."""

    def __init__(self, numbers: Sequence[int]):
        """`numbers` of the GPUs, as CUDA_VISIBLE_DEVICES leaves them."""
        self._handles = []
        if not numbers:
            return
        with contextlib.suppress(Exception):  # no driver, no library, no permission: no figures
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
            if all(name.strip().isdigit() for name in visible):  # else NVML's order, or UUIDs
                numbers = [int(visible[number]) for number in numbers]
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in numbers]

    def memory_bytes(self) -> int | None:
        """Of the smallest of the GPUs; None where there is none or it cannot be asked."""
        with contextlib.suppress(Exception):
            return min(int(self._nvml.nvmlDeviceGetMemoryInfo(h).total) for h in self._handles)
        return None

    def read(self) -> dict[str, float]:
        """gpu_percent (mean), gpu_memory_gib, gpu_watts (sums); what cannot be asked is absent."""
        figures: dict[str, float] = {}
        for handle in self._handles:
            with contextlib.suppress(Exception):  # under MIG some queries are not supported
                busy = int(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
                share = busy / len(self._handles)
                figures["gpu_percent"] = figures.get("gpu_percent", 0.0) + share
            with contextlib.suppress(Exception):
                used = int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used) / 2**30
                figures["gpu_memory_gib"] = figures.get("gpu_memory_gib", 0.0) + used
            with contextlib.suppress(Exception):
                watts = int(self._nvml.nvmlDeviceGetPowerUsage(handle)) / 1000
                figures["gpu_watts"] = figures.get("gpu_watts", 0.0) + watts
        return figures
