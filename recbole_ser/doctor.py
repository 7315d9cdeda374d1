"""``recbole-ser doctor``: what is installed, what it runs on, and what is known not to work, with the fix."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform

from recbole_ser.compat import known_incompatibilities

PACKAGES = ("recbole_ser", "recbole", "torch", "numpy", "scipy", "pandas", "pyarrow", "duckdb", "ray", "setuptools")


def installed_versions() -> dict[str, str | None]:
    """Version of each package that matters here, ``None`` where it is not installed."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    if versions["recbole_ser"] is None:
        from recbole_ser import __version__

        versions["recbole_ser"] = f"{__version__} (not installed: run from a checkout)"
    return versions


def devices() -> list[str]:
    """One line per device that PyTorch can use."""
    import torch

    lines = [f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Print the report; the exit status is 1 if something is known not to work."""
    versions = installed_versions()
    print(f"python        {platform.python_version()} on {platform.platform()}")
    for name, version in versions.items():
        print(f"{name:<13} {version or 'not installed'}")
    for line in devices():
        print(f"device        {line}")
    problems = known_incompatibilities(versions)
    for problem, fix in problems:
        print(f"\nproblem: {problem}\n    fix: {fix}")
    if not problems:
        print("\nno known incompatibility")
    return 1 if problems else 0
