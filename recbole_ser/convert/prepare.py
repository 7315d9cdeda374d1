"""From the name of a data set to its atomic files: raw files that are missing are downloaded, and converted once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recbole_ser.atomic.location import has_interactions
from recbole_ser.atomic.publishing import read_manifest, restore
from recbole_ser.convert import amazon
from recbole_ser.convert.conversion import format_manifest
from recbole_ser.convert.fetch import SAMPLE_COMMAND, ensure_raw
from recbole_ser.convert.layouts import kuaisar, qilin, trivago
from recbole_ser.errors import ConfigError, UserError
from recbole_ser.files import exclusive

RAW_FOLDER = "raw"

Converter = Callable[[dict[str, list[Path]], Path, dict[str, Any]], dict[str, Any]]

# The converters that `raw.convert.converter` may name: (files by role, folder of the data set, options) -> manifest.
CONVERTERS: dict[str, Converter] = {
    "amazon": amazon.from_raw,
    "kuaisar": kuaisar.from_raw,
    "qilin": qilin.from_raw,
    "trivago": trivago.from_raw,
}

_log = logging.getLogger(__name__)


def ensure_dataset(folder: str | Path, config: Mapping[str, Any]) -> None:
    """Make sure that the atomic files of a data set are in ``folder``, which has the data set's name.

    If they are not there, the raw files that ``config["raw"]`` names are downloaded into ``raw/`` within that folder
    (files already there are used as they are) and converted.  Other processes that need the same data set wait.

    Args:
        folder: folder of the data set.
        config: the data set's configuration; ``raw`` has ``sources`` (see `ensure_raw`) and ``convert``, which has
            the name of the ``converter`` and its options.

    Raises:
        UserError: it is not known where the data set comes from, or its files cannot be downloaded.
        ConfigError: the block ``raw`` is wrong, or the folder holds a conversion with other options.
        DataError: a raw file is wrong.
    """
    folder = Path(folder)
    restore(folder)
    name, raw = folder.name, config.get("raw")
    if _is_ready(folder, raw):
        return
    if not raw:
        raise UserError(
            f"there is no data set '{name}': {folder / f'{name}.inter'} does not exist, and it is not known where to "
            f"get it; put atomic files there, or convert your logs with 'recbole-ser convert'.  To see the package at "
            f"work without any: {SAMPLE_COMMAND}"
        )
    converter, options = _convert_block(raw)
    (folder / RAW_FOLDER).mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock", f"{folder}: waiting for another process that prepares this data set", wait=True):
        if not _is_ready(folder, raw):
            files = ensure_raw(raw, folder / RAW_FOLDER)
            _log.info("%s", format_manifest(converter(files, folder, options)))


def _is_ready(folder: Path, raw: Mapping[str, Any] | None) -> bool:
    """Whether the atomic files are there, be they converted as ``raw`` says or put there by someone else.

    Raises:
        ConfigError: they were converted with other options than ``raw`` says.
    """
    if not has_interactions(folder):
        return False
    manifest = read_manifest(folder)
    if raw and manifest:
        _, options = _convert_block(raw)
        made = {"converter": manifest.converter, **manifest.options}
        wanted = {"converter": raw["convert"]["converter"], **options}
        differing = [
            f"{key} {made.get(key)!r}, not {value!r}" for key, value in wanted.items() if made.get(key) != value
        ]
        if differing:
            raise ConfigError(
                f"{folder} was converted with {', '.join(differing)}: use another name for the data set, or remove "
                f"{folder / f'{folder.name}.inter'} to convert it anew"
            )
    return True


def _convert_block(raw: Mapping[str, Any]) -> tuple[Converter, dict[str, Any]]:
    """The converter that ``raw`` names, and its options."""
    block = raw.get("convert") if isinstance(raw, Mapping) else None
    if not isinstance(block, Mapping) or block.get("converter") not in CONVERTERS:
        raise ConfigError(f"raw.convert.converter must be one of {', '.join(sorted(CONVERTERS))}")
    return CONVERTERS[block["converter"]], {key: value for key, value in block.items() if key != "converter"}
