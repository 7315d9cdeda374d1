"""Finding the raw files and reading the options of logs with a known layout."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_ser.convert.raw_files import Files
from recbole_ser.errors import ConfigError, UserError


def take_options(name: str, options: Mapping[str, Any], known: Mapping[str, type]) -> dict[str, Any]:
    """The options of converter ``name`` in a data set's YAML file, checked against the types in ``known``.

    Raises:
        ConfigError: an option is not known or has another type.
    """
    for key, value in options.items():
        if key not in known or type(value) is not known[key]:
            takes = ", ".join(f"{key} ({kind.__name__})" for key, kind in known.items()) or "no options"
            raise ConfigError(f"raw.convert: {name} takes {takes}; found {key}: {value!r}")
    return dict(options)


def find_file(folder: Path, name: str, *, needed: bool = True) -> Path | None:
    """The file ``name`` in ``folder``, which may be compressed; ``None`` if it is not there and not needed.

    Raises:
        UserError: the file is needed and not there, or there are several versions of it.
    """
    found = [path for suffix in ("", ".gz", ".zst") if os.path.isfile(path := folder / f"{name}{suffix}")]
    if len(found) > 1:
        raise UserError(f"{folder} holds {' and '.join(path.name for path in found)}: keep one of them")
    if needed and not found:
        raise UserError(f"{folder} holds no {name}")
    return found[0] if found else None


def log_files(paths: Sequence[str | Path]) -> Files:
    """The files of a log: CSV files with a header, compressed or not, or Parquet files, according to their names.

    Raises:
        UserError: a file does not exist.
        ConfigError: the files are of both kinds.
    """
    unique = tuple(sorted({Path(path) for path in paths}))
    for path in unique:
        if not os.path.isfile(path):
            raise UserError(f"{path}: there is no such file")
    parquet = {path.suffix == ".parquet" for path in unique}
    if len(parquet) != 1:
        raise ConfigError("give CSV files or Parquet files, and not both")
    return Files(unique, "parquet" if parquet.pop() else "csv")
