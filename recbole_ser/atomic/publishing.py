"""Replacing all files of a data set together, so that nobody takes a mixture of two data sets for one.

The new files are whole before they are named `_READY`, in one step: from then on they are the data set.  Moving them
into place takes several steps.  ``X.inter`` is the first file that goes and the last that comes, so between them there
is no data set to be read; and whoever finds a folder of that name, because a process was killed, finishes the move.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_ser.atomic.schema import FILES
from recbole_ser.errors import DataError
from recbole_ser.files import exclusive
from recbole_ser.records import read_record

MANIFEST = "manifest.json"
LOCK = ".converting"
_READY = ".publishing"


@dataclass(frozen=True)
class Output:
    """A file that a conversion wrote."""

    file: str


@dataclass(frozen=True)
class Manifest:
    """What the manifest of a conversion says to other commands."""

    converter: str
    options: dict[str, Any]
    outputs: list[Output]


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in ``folder``; ``None`` if there is none.

    Raises:
        DataError: ``manifest.json`` is not the manifest of a conversion.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return None
    return read_record(path, Manifest, "it is no manifest of a conversion: move it away, or remove it")


def publishable(folder: Path) -> list[str]:
    """The names of all files that a conversion into ``folder`` may replace or remove."""
    return [*(f"{folder.name}.{suffix}" for suffix in FILES), MANIFEST]


def locked(folder: Path, wait: bool = False) -> AbstractContextManager[None]:
    """Let nobody else convert into ``folder``, or move files there, inside the block.

    Raises:
        UserError: somebody else does, and ``wait`` is false.
    """
    return exclusive(folder / LOCK, f"{folder}: another process is converting into this folder: wait for it", wait)


def publish(files: Path, folder: Path) -> None:
    """Make the files in the folder ``files``, which is in ``folder``, the data set there; ``folder`` is locked.

    Their manifest is among them.  Of an earlier conversion, files that the new one lacks are removed.
    """
    os.replace(files, folder / _READY)
    finish(folder)


def is_unfinished(folder: Path) -> bool:
    """Whether a process was killed, or is at work, while it moved the files of a data set into place."""
    return (folder / _READY).is_dir()


def restore(folder: str | Path) -> None:
    """Finish what a killed process left unfinished, before files are read; if a process is at work, wait for it."""
    folder = Path(folder).resolve()
    if is_unfinished(folder):
        with locked(folder, wait=True):
            finish(folder)


def finish(folder: Path) -> None:
    """Move the files of `_READY`, if there are any, into place; ``folder`` is locked.

    Each step leaves the folder so that the same steps can be taken again.  The manifests are the last files to change,
    since they tell which files are to go.
    """
    ready = folder / _READY
    if not ready.is_dir():
        return
    if (new := read_manifest(ready)) is not None:
        old = read_manifest(folder)
        gone = {output.file for output in (old.outputs if old else [])} - {output.file for output in new.outputs}
        interactions = f"{folder.name}.inter"
        if (ready / interactions).exists():
            (folder / interactions).unlink(missing_ok=True)
        for name in publishable(folder):
            if name in gone:
                (folder / name).unlink(missing_ok=True)
        last = (interactions, MANIFEST)
        for name in [*sorted(path.name for path in ready.iterdir() if path.name not in last), *last]:
            if (ready / name).exists():
                os.replace(ready / name, folder / name)
    shutil.rmtree(ready)


def check_places(folder: Path) -> None:
    """Check that everything that a conversion may replace in ``folder`` is a file that it may replace.

    Raises:
        DataError: one of them is a folder, or ``manifest.json`` is not the manifest of a conversion.
    """
    for name in publishable(folder):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise DataError(folder / name, "a folder is where the conversion writes a file", hint="move it away")
    read_manifest(folder)
