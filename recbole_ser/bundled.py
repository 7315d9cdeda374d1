"""The folders that come with the package: ``properties`` and ``dataset_atomic``."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def package_folder(name: str) -> Path:
    """The folder ``properties`` or ``dataset_atomic``: beside the package in a checkout, inside it in a wheel."""
    checkout = _PACKAGE.parent / name
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.is_dir() else _PACKAGE / name
