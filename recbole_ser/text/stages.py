"""What the stages share that make files of texts for models: how they read their settings, and refuse other ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_ser.errors import ConfigError


def backend_options(options: str | Mapping[str, Any], where: str) -> dict[str, Any]:
    """Turn ``template``, or ``{backend: openai, model: ...}``, into the arguments of a factory of back-ends.

    Args:
        where: the key of the setting, for the error.

    Raises:
        ConfigError: the mapping does not name the back-end.
    """
    options = {"backend": options} if isinstance(options, str) else dict(options)
    if "backend" not in options:
        raise ConfigError(f"{where}: name the backend, as in {{backend: openai, model: ...}}")
    return {"name": options.pop("backend"), **options}


def refuse_other_settings(
    path: str | Path, made: Mapping[str, Any], wanted: Mapping[str, Any], key: str, command: str
) -> None:
    """Refuse what was made with other settings than the user gives in this run; what is not given may differ.

    Args:
        path: what was made.
        made, wanted: the settings that it was made with, and those that the user gives.
        key: the key of the configuration that names another place.
        command: the command that makes it anew.

    Raises:
        ConfigError: a setting differs.
    """
    for name, value in wanted.items():
        if made.get(name) != value:
            raise ConfigError(
                f"{path} was made with {name} {made.get(name)}, not {value}: name another place with --{key}, or make "
                f"it anew with 'recbole-ser {command}'"
            )
