"""Converting Qilin's Parquet tables (Chen et al., SIGIR'25) to atomic files.

The tables ``recommendation_train`` and ``_test`` hold requests with lists of shown notes: every note that was clicked
is an interaction, at the request's time.  ``search_train`` and ``_test`` do the same for searches; their rows of one
user, session, search, query and source are one search, whose clicks are the clicked notes by position.  Train and
test tables are joined, since the protocol has its own split.  Notes and users give attributes.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recbole_ser.convert.layouts.inputs import log_files, take_options
from recbole_ser.convert.settings import Settings
from recbole_ser.errors import ConfigError, UserError

# The tables of each role.
TABLES = {
    "recommendation": ("recommendation_train", "recommendation_test"),
    "search": ("search_train", "search_test"),
    "notes": ("notes",),
    "users": ("user_feat",),
}
_NEEDED = ("recommendation", "search")


def convert(
    files: Mapping[str, Sequence[str | Path]], out: str | Path, *, settings: Settings | None = None
) -> dict[str, Any]:
    """Convert tables into the data set in ``out``, which is named after the folder.

    Args:
        files: Parquet files by role: ``recommendation`` and ``search`` and, if attributes are wanted, ``notes`` and
            ``users``.
        out: folder of the data set.
        settings: how to convert; ``None``: the defaults.

    Returns:
        The manifest, which is also in the folder.

    Raises:
        ConfigError: there is a role besides these, or a role is missing.
        DataError: a row is malformed (with ``stop``), a file is damaged, or a column is missing.
        UserError: a file cannot be read, or memory or disk run out.
    """
    from recbole_ser.convert.layouts import qilin_sql as sql
    from recbole_ser.convert.sql_conversion import convert_with_sql

    found = sorted(role for role, paths in files.items() if paths)
    if not set(_NEEDED) <= set(found) <= set(TABLES):
        raise ConfigError(f"qilin takes files of {', '.join(TABLES)}; the first two are needed; found {found}")
    steps = partial(sql.write, {role: log_files(files[role]) for role in found})
    return convert_with_sql("qilin", out, settings, {}, steps)


def from_raw(files: dict[str, list[Path]], out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Convert the raw files that a data set's YAML names, by role (see `convert`); there are no options."""
    take_options("qilin", options, {})
    return convert(files, out)


def find_tables(folder: str | Path) -> dict[str, list[Path]]:
    """The files of each role in ``folder``; those of a table T are ``T.parquet``, ``T-*.parquet`` or ``T/*.parquet``.

    Raises:
        UserError: a table that is needed is not there.
    """
    found: dict[str, list[Path]] = {}
    for role, tables in TABLES.items():
        for table in tables:
            patterns = (f"{table}.parquet", f"{table}-*.parquet", f"{table}/*.parquet")
            paths = [Path(folder, name) for pattern in patterns for name in glob.glob(pattern, root_dir=folder)]
            if not paths and role in _NEEDED:
                raise UserError(f"{folder} holds neither {table}.parquet nor {table}/*.parquet")
            found.setdefault(role, []).extend(sorted(paths))
    return found
