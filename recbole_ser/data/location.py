"""Where a data set is."""

from __future__ import annotations

from pathlib import Path

from recbole_ser.config import package_folder
from recbole_ser.errors import UserError


def find_dataset(text: str, data_path: str | Path) -> Path:
    """The folder of the data set that ``text`` names: below ``data_path``, bundled, or a folder anywhere.

    Folders with an ``X.inter`` come first; what else there should be in it is not looked at.

    Raises:
        UserError: there is none; the message names those below ``data_path``.
    """
    places = [Path(data_path) / text, package_folder("dataset_atomic") / text, Path(text)]
    folders = [place.resolve() for place in places if place.is_dir()]
    for folder in folders:
        if (folder / f"{folder.name}.inter").is_file():
            return folder
    if folders:
        return folders[0]
    names = sorted(path.parent.name for path in Path(data_path).glob("*/*.inter") if path.stem == path.parent.name)
    there = f"there are {', '.join(names)}" if names else "there are none"
    raise UserError(f"there is no data set '{text}': no folder of that name, and below {data_path} {there}")
