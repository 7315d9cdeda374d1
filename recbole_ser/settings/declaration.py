"""How settings are declared: a pydantic model with one field for each key."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticUndefined
from typing_extensions import Self

from recbole_ser.settings.checking import check


class Settings(BaseModel):
    """A group of settings, which can only hold values of the declared types and ranges.

    Nothing is converted (the text "1" is no number, and ``true`` is none either), unknown keys are refused, and numbers
    are finite.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        return plain(values)

    @classmethod
    def of(cls, config: Any) -> Self:
        """These settings with the values that ``config``, a configuration or a dictionary, has for their keys.

        Raises:
            ConfigError: a value is missing or wrong.
        """
        return check(cls, {key: config[key] for key in cls.model_fields if key in config})


def setting(meaning: str, *, default: Any = PydanticUndefined) -> Any:
    """Declare a setting with one line on its ``meaning`` and, unless a YAML file has it, its ``default``."""
    return Field(default, description=meaning, validate_default=True)


def plain(value: Any) -> Any:
    """``value`` as YAML would give it: lists for tuples, Python's numbers for NumPy's, texts for paths and dates."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
