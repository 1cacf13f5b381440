"""The energy that the GPUs have taken, by NVML."""

from __future__ import annotations

import contextlib
import os


class JouleMeter:
    """Sums NVML's energy counters over the GPUs that CUDA_VISIBLE_DEVICES leaves.

    Measured is the whole board, idle or busy, whoever uses it; CPU and memory are not.
    """

    def __init__(self, gpus: str):
        """`gpus` "none": nothing is measured."""
        self._handles = []
        if gpus == "none":
            return
        with contextlib.suppress(Exception):  # no driver, no library, no permission: no figures
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            numbers = range(pynvml.nvmlDeviceGetCount()) if visible is None else visible.split(",")
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(int(number)) for number in numbers]

    def read(self) -> float | None:
        """Joules since the driver was loaded; None where there is no GPU or no counter (MIG)."""
        if not self._handles:
            return None
        with contextlib.suppress(Exception):
            counters = map(self._nvml.nvmlDeviceGetTotalEnergyConsumption, self._handles)
            return sum(counters) / 1000
        return None
