"""Where the trials of a sweep run, and how many CPUs and GPUs they get."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from recbole_ser.errors import ConfigError


@dataclass(frozen=True)
class Resources:
    """The machines, CPUs and GPUs that a sweep may use.

    Args:
        address: address of a Ray cluster (``auto``, ``host:6379``, ``ray://...``); by default the environment variable
            RAY_ADDRESS or, if that is not set, a cluster on this machine that lasts as long as the sweep.
        concurrent: the largest number of trials at the same time; by default as many as CPUs and GPUs allow.
        cpus_per_trial: number of CPUs of each trial, by default one.
        gpus_per_trial: number of GPUs of each trial, where a fraction shares a GPU; by default one if there are GPUs.

    Raises:
        ConfigError: a number is out of its range.
    """

    address: str | None = None
    concurrent: int | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None

    def __post_init__(self) -> None:
        if not self.address:
            object.__setattr__(self, "address", os.environ.get("RAY_ADDRESS") or None)
        if self.address is not None and not isinstance(self.address, str):
            raise ConfigError(f"address is written as host:port, not {self.address}")
        if self.concurrent is not None and (type(self.concurrent) is not int or self.concurrent < 1):
            raise ConfigError(f"concurrent is a whole number from 1 on, not {self.concurrent}")
        self._check("cpus_per_trial", self.cpus_per_trial, may_be_0=False)
        if self.gpus_per_trial is not None:
            self._check("gpus_per_trial", self.gpus_per_trial, may_be_0=True)

    @staticmethod
    def _check(name: str, value: float, may_be_0: bool) -> None:
        if type(value) not in (int, float) or not math.isfinite(value) or value < 0 or (value == 0 and not may_be_0):
            raise ConfigError(f"{name} is a number {'from 0 on' if may_be_0 else 'above 0'}, not {value}")
        if value > 1 and value != int(value):
            raise ConfigError(f"{name}: above 1 only whole numbers are possible, not {value}")
