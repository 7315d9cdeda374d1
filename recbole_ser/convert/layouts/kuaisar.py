"""Converting KuaiSAR's recommendation and search logs (Sun et al., CIKM'23) to atomic files.

An interaction is a row of ``rec_inter.csv`` that was clicked; those of one user and time keep the order of the file.
``src_inter.csv`` has a row for each shown item: the rows of a user with the same session are one search, whose clicks
are the clicked videos and image atlases in the order of the file.  Other results (people, live streams) are left out,
since they are never recommended.  Words, categories and authors are numbers, because the logs are anonymised.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from recbole_ser.convert.layouts.inputs import find_file, take_options
from recbole_ser.convert.layouts.kuaisar_files import INTERACTIONS, NAMES, SEARCHES
from recbole_ser.convert.settings import Settings
from recbole_ser.errors import ConfigError, DataError


def convert(
    logs: str | Path, out: str | Path, *, first_shown: bool = False, settings: Settings | None = None
) -> dict[str, Any]:
    """Convert the logs in a folder into the data set in ``out``, which is named after the folder.

    Args:
        logs: folder of ``rec_inter.csv`` and ``src_inter.csv`` and, if attributes are wanted, of ``user_features.csv``
            and ``item_features.csv``; each may be compressed (.gz, .zst).
        out: folder of the data set.
        first_shown: whether a search without a click gets a click on the first item it shows that can be recommended,
            as the logs' authors advise (results play by themselves); otherwise it has no click.
        settings: how to convert; ``None``: the defaults.

    Returns:
        The manifest, which is also in the folder.

    Raises:
        DataError: a row is malformed (with ``stop``), a file is damaged, or a column is missing.
        UserError: a file cannot be read, or memory or disk run out.
    """
    from recbole_ser.convert.layouts import kuaisar_sql as sql
    from recbole_ser.convert.sql_conversion import convert_with_sql

    paths = {name: find_file(Path(logs), name, needed=name in (INTERACTIONS, SEARCHES)) for name in NAMES}
    steps = partial(sql.write, paths, first_shown)
    return convert_with_sql("kuaisar", out, settings, {"first_shown": first_shown}, steps)


def from_raw(files: dict[str, list[Path]], out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Convert the raw files that a data set's YAML names, an ``archive`` (zip) or ``logs`` (the CSV files).

    ``options`` may have ``first_shown``.
    """
    taken = take_options("kuaisar", options, {"first_shown": bool})
    numbers = {role: len(paths) for role, paths in files.items()}
    if numbers == {"archive": 1}:
        with _extracted(files["archive"][0]) as folder:
            return convert(folder, out, **taken)
    if list(numbers) == ["logs"]:
        return convert(files["logs"][0].parent, out, **taken)
    raise ConfigError(f"raw.sources: kuaisar takes one file of the role archive, or some of logs; found {numbers}")


@contextmanager
def _extracted(archive: Path) -> Iterator[Path]:
    """A temporary folder with the CSV files of a zip archive, whatever folder of the archive they are in."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        try:
            with zipfile.ZipFile(archive) as whole:
                for member in whole.infolist():
                    if (name := Path(member.filename).name) in NAMES and "__MACOSX" not in member.filename:
                        with whole.open(member) as source, (Path(folder) / name).open("xb") as target:
                            shutil.copyfileobj(source, target)
        except (zipfile.BadZipFile, EOFError) as error:
            raise DataError(archive, f"a damaged archive: {error}", hint="get it again") from error
        except FileExistsError as error:
            raise DataError(archive, f"it holds several files {Path(error.filename).name}") from error
        yield Path(folder)
