"""The log of the RecSys Challenge 2019 (Knees et al., RecSys'19) to atomic files.

- An interaction is a row in which a user looks into an item (its image, information, rating or deals) or clicks out
  to it.  Where a user's next interaction is with the same item, it counts once, with the first time.
- A search is a row that searches for a destination, a point of interest or an item; its query is the row's text (of
  an item, the id), its source is which of the three.  Its clicks are the clickouts that follow it in its session
  before the next search, again without repeats.

A session is in order of time, then step: a few sessions were taken up later, and their steps began anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recbole_ser.convert.layouts.inputs import log_files, take_options
from recbole_ser.convert.settings import Settings
from recbole_ser.errors import ConfigError


def convert(
    log: Sequence[str | Path], out: str | Path, *, keep_repeats: bool = False, settings: Settings | None = None
) -> dict[str, Any]:
    """Convert the log into the data set in ``out``, which is named after the folder.

    Args:
        log: CSV files (as published; compressed or not) or Parquet files.
        keep_repeats: keep repeats of an item, in interactions and clicks.

    Returns:
        The manifest, which is also in the folder.

    Raises:
        DataError: a malformed row (with ``stop``), a damaged file, a column that is missing, or no search.
        UserError: a file cannot be read, or memory or disk run out.
    """
    from recbole_ser.convert.layouts import trivago_sql as sql
    from recbole_ser.convert.sql_conversion import convert_with_sql

    steps = partial(sql.write, log_files(log), keep_repeats)
    return convert_with_sql("trivago", out, settings, {"keep_repeats": keep_repeats}, steps)


def from_raw(files: dict[str, list[Path]], out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Convert the raw files that a data set's YAML names, of the role ``log``.  It may have ``keep_repeats``."""
    if list(files) != ["log"]:
        raise ConfigError(f"raw.sources: trivago takes files of the role log; found {sorted(files)}")
    return convert(files["log"], out, **take_options("trivago", options, {"keep_repeats": bool}))
