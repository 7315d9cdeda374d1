"""Where the trials of a sweep run, and with how much."""

from __future__ import annotations

import os
from dataclasses import dataclass

from recbole_ser.errors import ConfigError


@dataclass(frozen=True)
class Resources:
    """Args:
    address: of a Ray cluster (``auto``, ``host:6379``, ``ray://...``); by default the variable RAY_ADDRESS, and without
        it a cluster of this machine alone, for the time of the sweep.
    concurrent: trials at the same time at most; by default as many as there are CPUs and GPUs for.
    cpus_per_trial: by default one.
    gpus_per_trial: fractions share a GPU; by default one where there are GPUs.

    Raises:
        ConfigError: a number that cannot be.
    """

    address: str | None = None
    concurrent: int | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None

    def __post_init__(self) -> None:
        if not self.address:
            object.__setattr__(self, "address", os.environ.get("RAY_ADDRESS") or None)
        if self.concurrent is not None and (not isinstance(self.concurrent, int) or self.concurrent < 1):
            raise ConfigError(f"concurrent is a whole number from 1 on, not {self.concurrent}")
        for name, least in [("cpus_per_trial", 0.001), ("gpus_per_trial", 0.0)]:
            value = getattr(self, name)
            if value is None and name == "gpus_per_trial":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise ConfigError(f"{name} is a number{' above 0' if least else ' from 0 on'}, not {value}")
            if value > 1 and value != int(value):
                raise ConfigError(f"{name}: above 1 only whole numbers are possible, not {value}")
