"""Converting the log of the RecSys Challenge 2019 (Knees et al., RecSys'19) to atomic files.

- An interaction is a row in which a user looks into an item (its image, information, rating or deals) or clicks out
  to it.  Successive interactions of a user with the same item count as one, with the time of the first.
- A search is a row that searches for a destination, a point of interest or an item.  Its query is the row's text (for
  an item, the id), and its source says which of the three it searches for.  Its clicks are the clickouts that follow it
  in its session before the next search, again without repeats.

The rows of a session are ordered by time, then step: a few sessions were resumed later, with steps from 1 again.
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
        out: folder of the data set.
        keep_repeats: whether to keep successive repeats of an item, in interactions and clicks.
        settings: how to convert; ``None``: the defaults.

    Returns:
        The manifest, which is also in the folder.

    Raises:
        DataError: a row is malformed (with ``stop``), a file is damaged, a column is missing, or there is no
            interaction or no search.
        UserError: a file cannot be read, or memory or disk run out.
    """
    from recbole_ser.convert.layouts import trivago_sql as sql
    from recbole_ser.convert.sql_conversion import convert_with_sql

    steps = partial(sql.write, log_files(log), keep_repeats)
    return convert_with_sql("trivago", out, settings, {"keep_repeats": keep_repeats}, steps)


def from_raw(files: dict[str, list[Path]], out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Convert the raw files of role ``log`` that a data set's YAML names; ``options`` may have ``keep_repeats``."""
    if list(files) != ["log"]:
        raise ConfigError(f"raw.sources: trivago takes files of the role log; found {sorted(files)}")
    return convert(files["log"], out, **take_options("trivago", options, {"keep_repeats": bool}))
