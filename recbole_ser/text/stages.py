"""What the stages share that make files of texts for models: how they read their settings, and refuse other ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from recbole_ser.errors import ConfigError
from recbole_ser.settings.checking import nearest

MEAN = "mean"  # users are means of vectors of texts; there is no text about them, and nothing to write one


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


def chosen_backend(
    options: str | Mapping[str, Any], where: str, known: Collection[str], plain: Collection[str]
) -> dict[str, Any]:
    """``backend_options`` of one of the ``known`` back-ends; those that are ``plain`` have no options.

    Raises:
        ConfigError: there is no such back-end, or a plain one has options.
    """
    chosen = backend_options(options, where)
    name = chosen["name"]
    if name not in known:
        hint = f"{nearest(str(name), known)} ".lstrip()
        raise ConfigError(f"{where}: there is no back-end '{name}': {hint}known are {', '.join(known)}")
    if name in plain and len(chosen) > 1:
        raise ConfigError(f"{where}: '{name}' has no options")
    return chosen


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
