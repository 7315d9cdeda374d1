"""The settings of a model's class: those that it and its base classes declare, and the values that they come with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, create_model

from recbole_ser.bundled import package_folder
from recbole_ser.compat import recbole_properties
from recbole_ser.errors import ConfigError
from recbole_ser.settings.model import ModelSettings
from recbole_ser.settings.recbole_model import recbole_settings


def settings_of(model: type) -> type[ModelSettings]:
    """All settings of the class ``model``: those of its ``Settings``, and of those of its base classes.

    RecBole's models declare theirs in RecBole's YAML files.

    Raises:
        ConfigError: the class has a ``default_config``, which is not read any more, or ``Settings`` that is none.
    """
    groups: list[type[ModelSettings]] = []
    for base in model.__mro__:
        if "default_config" in vars(base):
            raise ConfigError(
                f"{base.__name__}: default_config is not read: declare its keys in a class Settings(ModelSettings), "
                "with types and defaults"
            )
        group = vars(base).get("Settings")
        if group is None and (path := _theirs(base)) is not None:
            group = recbole_settings(path)
        if group is None or any(issubclass(other, group) for other in groups):
            continue
        if not (isinstance(group, type) and issubclass(group, ModelSettings)):
            raise ConfigError(f"{base.__name__}.Settings must derive from recbole_ser.settings.ModelSettings")
        groups.append(group)
    if len(groups) == 1:
        return groups[0]
    return create_model(f"{model.__name__}Settings", __base__=tuple(groups) or ModelSettings)


def yaml_files(model: type) -> list[Path]:
    """The YAML files with values for the class ``model``, of its base classes first."""
    files = []
    for base in reversed(model.__mro__):
        path = package_folder("properties") / "model" / f"{base.__name__}.yaml"
        if base.__module__.startswith("recbole_ser.") and path.is_file():
            files.append(path)
        elif (theirs := _theirs(base)) is not None:
            files.append(theirs)
    return files


def declared_defaults(group: type[BaseModel]) -> dict[str, Any]:
    """The defaults that are declared in ``group``."""
    return {name: field.get_default() for name, field in group.model_fields.items() if not field.is_required()}


def _theirs(base: type) -> Path | None:
    path = recbole_properties() / "model" / f"{base.__name__}.yaml"
    return path if base.__module__.startswith("recbole.model.") and path.is_file() else None
