"""Checks of the configuration's keys that name columns: what they name is there, and they have an effect on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ser.atomic.schema import FILES
from recbole_ser.errors import ConfigError, DataError

_NUMBERS = ("float", "float_seq")
_LISTS = ("token_seq", "float_seq")


@dataclass(frozen=True)
class LoadedColumn:
    """A column that was loaded: its type in the header and the suffix of its file."""

    type: str
    suffix: str

    @property
    def is_attribute(self) -> bool:
        """Whether it is in ``X.item``, in ``X.user`` or in a file that the user added."""
        return self.suffix not in FILES or FILES[self.suffix].attributes


def check_named_columns(config: Any, columns: Mapping[str, LoadedColumn], time_field: str) -> None:
    """Check that the keys which name columns have an effect on ``columns``, the loaded ones by name.

    Raises:
        ConfigError: a key names a column that is not there or that it cannot change, or it has no effect here.
    """
    for key in ("alias_of_user_id", "alias_of_item_id"):
        for name in config[key] or ():
            if _loaded(key, name, columns).type not in ("token", "token_seq"):
                raise ConfigError(f"{key}: '{name}' is a {columns[name].type} column, and ids are tokens")
    both = set(config["alias_of_user_id"] or ()) & set(config["alias_of_item_id"] or ())
    for name in sorted(both):
        raise ConfigError(f"'{name}' is in alias_of_user_id and in alias_of_item_id: leave it out of one of them")
    for name, wanted in (config["val_interval"] or {}).items():
        column = _loaded("val_interval", name, columns)
        if column.type not in ("float", "token"):
            raise ConfigError(f"val_interval: '{name}' is a {column.type} column; name a float or a token column")
        if isinstance(wanted, str) != (column.type == "float"):
            form = "an interval such as [5,inf)" if column.type == "float" else "a list of the values that are kept"
            raise ConfigError(f"val_interval: '{name}' is a {column.type} column: give {form}, not {wanted}")
    for name in config["seq_len"] or ():
        column = _loaded("seq_len", name, columns)
        if column.type not in _LISTS or not column.is_attribute:
            raise ConfigError(
                f"seq_len: '{name}' is not a token_seq or float_seq column of X.item or X.user, and only these are cut "
                "by it; the words of a query and the clicks of a search have max_terms_per_query, max_clicks_per_search"
            )
    _check_normalised(config, columns, time_field)
    _check_preloaded(config, columns)


def check_named_files(config: Any, folder: Path, name: str) -> None:
    """Check that ``load_col`` and ``unload_col`` name files that are read, and columns of files that are there.

    Raises:
        ConfigError: a file is none of those that are read.
        DataError: columns are named of a file that is not there.
    """
    known = {*FILES, *(config["additional_feat_suffix"] or ())}
    for key in ("load_col", "unload_col"):
        for suffix, columns in (config[key] or {}).items():
            if suffix not in known:
                raise ConfigError(
                    f"{key}: X.{suffix} is not read: correct its name, or name it in additional_feat_suffix"
                )
            path = folder / f"{name}.{suffix}"
            if columns != "*" and suffix not in ("search", "query") and not path.is_file():
                raise DataError(path, "file not found", hint=f"its columns are named in {key}")


def normalised(config: Any, columns: Mapping[str, LoadedColumn]) -> set[str]:
    """The names of the columns that ``normalize_field`` names, or of all that ``normalize_all`` means."""
    if config["normalize_all"]:
        return {name for name, column in columns.items() if column.type in _NUMBERS and column.is_attribute}
    return set(config["normalize_field"] or ())


def _check_normalised(config: Any, columns: Mapping[str, LoadedColumn], time_field: str) -> None:
    if config["normalize_field"] and config["normalize_all"]:
        raise ConfigError("normalize_field and normalize_all are both set: leave one of them out")
    if time_field in (config["normalize_field"] or ()):
        raise ConfigError(
            f"'{time_field}' orders the events and cannot be normalised: name other columns in normalize_field"
        )
    for name in config["normalize_field"] or ():
        column = _loaded("normalize_field", name, columns)
        if column.type not in _NUMBERS or not column.is_attribute:
            raise ConfigError(
                f"normalize_field: '{name}' is a {column.type} column of X.{column.suffix}, and only float and "
                "float_seq columns of X.item and X.user are normalised"
            )
    if config["normalize_all"] and not normalised(config, columns):
        raise ConfigError("normalize_all has no effect: no float or float_seq column of X.item or X.user is loaded")


def _check_preloaded(config: Any, columns: Mapping[str, LoadedColumn]) -> None:
    sides = {
        name: suffix
        for suffix, key in (("user", "USER_ID_FIELD"), ("item", "ITEM_ID_FIELD"))
        for name in (config[key], *(config[f"alias_of_{suffix}_id"] or ()))
    }
    for ids, name in (config["preload_weight"] or {}).items():
        column = _loaded("preload_weight", name, columns)
        if ids not in sides:
            raise ConfigError(
                f"preload_weight: '{ids}' holds no ids of items or users: name it in alias_of_item_id or "
                "alias_of_user_id"
            )
        if columns[ids].type != "token" or column.type not in _NUMBERS:
            raise ConfigError(
                f"preload_weight: '{ids}' is a {columns[ids].type} and '{name}' a {column.type} column; they must be a "
                "token and a float or float_seq column"
            )
        own = ids in (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"])
        if column.suffix != (sides[ids] if own else columns[ids].suffix) or not column.is_attribute:
            raise ConfigError(
                f"preload_weight: '{ids}' and '{name}' must be columns of one file, X.{sides[ids]} or one that "
                f"additional_feat_suffix names, where '{ids}' is an alias"
            )


def _loaded(key: str, name: str, columns: Mapping[str, LoadedColumn]) -> LoadedColumn:
    if name not in columns:
        raise ConfigError(
            f"{key}: '{name}' is in no loaded file: correct the name, or load its column (load_col, "
            "additional_feat_suffix)"
        )
    return columns[name]
