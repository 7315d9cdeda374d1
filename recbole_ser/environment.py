"""The packages that are installed, and the devices they run on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("recbole_ser", "recbole", "torch", "numpy", "scipy", "pandas", "pyarrow", "duckdb", "ray", "setuptools")


def installed_versions() -> dict[str, str | None]:
    """The version of each package in ``PACKAGES``; ``None`` if it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def devices() -> list[str]:
    """One line for each device that PyTorch can use."""
    import torch

    lines = [f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    return lines


def describe_environment(device: torch.device | str) -> dict[str, Any]:
    """Everything besides configuration and data that the numbers of a run may depend on."""
    import torch

    device = torch.device(device)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": installed_versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }
