"""Where the files of a data set are."""

from __future__ import annotations

import os
from pathlib import Path

from recbole_ser.atomic.publishing import is_unfinished
from recbole_ser.atomic.rules import Finding
from recbole_ser.bundled import package_folder
from recbole_ser.errors import UserError


def dataset_folder(name: str, data_path: str | Path) -> Path:
    """The folder of data set ``name`` for a run: the one below ``data_path``, or the bundled one if that has none.

    A data set that is in neither place will be made below ``data_path``.
    """
    folder, bundled = Path(data_path) / name, package_folder("dataset_atomic") / name
    return bundled if has_interactions(bundled) and not has_interactions(folder) else folder


def find_dataset(text: str, data_path: str | Path) -> Path:
    """The folder of the data set that ``text`` names: the name of a data set, as for a run, or the path of any folder.

    Folders with an ``X.inter`` are preferred; no other file is looked at.

    Raises:
        UserError: there is no such folder; the message names the data sets below ``data_path``.
    """
    folders = [place.resolve() for place in (dataset_folder(text, data_path), Path(text)) if os.path.isdir(place)]
    for folder in folders:
        if has_interactions(folder):
            return folder
    if folders:
        return folders[0]
    names = sorted(path.parent.name for path in Path(data_path).glob("*/*.inter") if path.stem == path.parent.name)
    there = f"there are {', '.join(names)}" if names else "there are none"
    raise UserError(f"there is no data set '{text}': no folder of that name, and below {data_path} {there}")


def has_interactions(folder: Path) -> bool:
    """Whether ``folder`` holds a data set: the file ``X.inter``, where X is the folder's name."""
    return os.path.isfile(folder / f"{folder.name}.inter") or is_unfinished(folder)


def is_there(path: Path) -> bool:
    """Whether there is a file ``path``, which is allowed to be missing.

    Raises:
        DataError: something of this name is there that is no file: it is not to be taken for a missing one.
    """
    if os.path.isfile(path):  # false, too, for a link that leads to an impossible name
        return True
    if os.path.lexists(path):
        raise Finding("no-file", path.name).as_error(path)
    return False
