"""Checks of the flags that benchmarks share."""

from __future__ import annotations

from typing import Any

from model.flags import PRESETS


def check_preset(preset: str) -> None:
    """Raises a ValueError that names the presets there are."""
    if preset not in PRESETS:
        raise ValueError(f"--preset {preset}: must be one of {', '.join(PRESETS)}")


def check_least(flags: Any, **least: int) -> None:
    """Raises a ValueError for a field of `flags` below the least that is given by its name."""
    for name, bound in least.items():
        value = getattr(flags, name)
        if value < bound:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be {bound} or more")
