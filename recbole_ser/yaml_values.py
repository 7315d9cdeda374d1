"""Reading values and files in YAML; this module does not need RecBole, which takes seconds to load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from recbole_ser.errors import ConfigError

# What PyYAML raises at text that is no YAML, at values such as 2026-13-45 or !!bool maybe, and at deep nesting.
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


class Loader(yaml.SafeLoader):
    """YAML's safe loader that also reads ``1e-3`` as a number, as RecBole's files write it."""


class Dumper(yaml.SafeDumper):
    """YAML's safe dumper that quotes what ``Loader`` would read as a number."""


for _side in (Loader, Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def parse_value(text: str) -> Any:
    """The value of ``text`` as YAML: a number, truth value, null (``~``), list or mapping, or else the text itself."""
    try:
        return yaml.load(text, Loader=Loader)
    except _NOT_YAML:
        return text


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is not YAML (with the line, if it is known), or is not a mapping.
    """
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = (str(getattr(error, "problem", error)).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{where}: not valid YAML: {problem}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no 'key: value' pairs")
    return values
