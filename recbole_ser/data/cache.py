"""Arrays that were made from the files of a data set, kept on disk and mapped into memory by every later process.

An entry is a folder of plain ``.npy`` files and a manifest, which says what the entry was made of: the settings, the
code of this package, and the SHA-256 of each atomic file.  An entry is used if all of that is the same now, and if its
files have the sizes and checksums that the manifest gives; otherwise it is made anew.  Nothing in it is code.

Mapped arrays are pages of the files: processes of one machine share them, and the system reads them when they are
looked at and drops them when memory is short.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.errors import DataError, one_line
from recbole_ser.files import exclusive, sha256
from recbole_ser.records import read_sealed, write_sealed

WORTH_BYTES = 32 << 20  # smaller data sets load in about a second: nothing is kept of them

_MANIFEST = "manifest.json"
_NEW = ".new-"  # what the names of folders that are being written begin with
_ENTRIES = 8  # of one data set: as many are kept, the newest ones
_CODE = ("atomic/*.py", "data/*.py", "compat.py")  # the code that decides what the arrays are
_log = logging.getLogger()


@dataclass(frozen=True)
class Kept:
    """What an entry holds.

    Args:
        arrays: arrays of any shape, by name.
        facts: all else, in values that JSON can hold.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _File:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    """``arrays`` gives, by name, the file of each array; the files are numbered in this order."""

    settings: dict[str, Any]
    files: dict[str, str]
    arrays: dict[str, _File]
    facts: dict[str, Any]


@dataclass
class DataCache:
    """The entries of one data set.

    Args:
        folder: the folder of the entries.
        files: the SHA-256 of each file of the data set, by name.
        writable: whether new entries are written; false once that has failed.
    """

    folder: Path
    files: Mapping[str, str]
    writable: bool = True

    def get(self, what: str, settings: Mapping[str, Any], make: Callable[[], Kept]) -> Kept:
        """What ``make`` makes of the data set under ``settings``, from the cache if it is there.

        One process makes it, and others wait for that.  An entry that was just written is read back, so that the
        first run has the same mapped arrays as all later ones.

        Args:
            what: what it is, for the log.
            settings: all that the result depends on, besides files and code, in values that JSON can hold.
        """
        key = json.dumps({**settings, "what": what, "code": _code_hash(), "numpy": np.__version__}, sort_keys=True)
        folder, made_of = self.folder / hashlib.sha256(key.encode()).hexdigest()[:16], json.loads(key)
        if (kept := self._read(folder, made_of)) is not None:
            return kept
        with self._locked():
            if (kept := self._read(folder, made_of, again=True)) is not None:
                return kept
            made = make()
            if not self.writable or not self._write(folder, what, made_of, made):
                return made
        return self._read(folder, made_of) or made

    def _read(self, folder: Path, settings: dict[str, Any], again: bool = False) -> Kept | None:
        """The entry in ``folder``; ``None`` if there is none, or if it is of other data or damaged.

        Args:
            again: whether the log says already why it cannot be used.
        """
        if not (folder / _MANIFEST).is_file():
            return None
        try:
            manifest = read_sealed(folder / _MANIFEST, _Manifest, "it is made anew")
            if manifest.settings != settings or manifest.files != self.files:
                raise DataError(folder, "made of other files or settings")
            arrays = {name: _mapped(_path(folder, n), file) for n, (name, file) in enumerate(manifest.arrays.items())}
        except (DataError, OSError, ValueError) as error:
            if not again:
                _log.info(f"what was kept of the data is made anew: {one_line(str(error))}")
            return None
        return Kept(arrays, manifest.facts)

    def _write(self, folder: Path, what: str, settings: dict[str, Any], made: Kept) -> bool:
        """Write an entry under another name and rename it; false, with a line in the log, if that is not possible."""
        new = self.folder / f"{_NEW}{os.getpid()}"
        try:
            self._remove_old(settings["code"])
            new.mkdir()
            arrays = {name: _written(_path(new, n), array) for n, (name, array) in enumerate(made.arrays.items())}
            write_sealed(
                new / _MANIFEST, {"settings": settings, "files": self.files, "arrays": arrays, "facts": made.facts}
            )
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(new, folder)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            self._is_not_writable(error)
            return False
        size = sum(array["bytes"] for array in arrays.values()) / 2**20
        _log.info(f"{what}: kept for the next run, which maps it into memory: {folder}, {size:,.0f} MiB")
        return True

    def _remove_old(self, code: str) -> None:
        """Remove what was made of other files or by other code, what was left unfinished, and the oldest entries."""
        good = []
        for folder in [path for path in self.folder.iterdir() if path.is_dir()]:
            try:
                manifest = read_sealed(folder / _MANIFEST, _Manifest, "")
                is_good = manifest.settings.get("code") == code and not folder.name.startswith(_NEW)
                is_good &= all(self.files.get(name, digest) == digest for name, digest in manifest.files.items())
            except DataError:
                is_good = False
            if is_good:
                good.append(folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        good.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in good[_ENTRIES - 1 :]:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from making entries meanwhile, where anything can be written."""
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not (self.folder / ".gitignore").exists():
                    (self.folder / ".gitignore").write_text("*\n")
                busy = f"{self.folder}: another process is preparing these data: waiting for it"
                held.enter_context(exclusive(self.folder / ".lock", busy, wait=True))
            except OSError as error:
                self._is_not_writable(error)
            yield

    def _is_not_writable(self, error: OSError) -> None:
        if self.writable:
            _log.info(
                f"no prepared data are kept for the next run, as {self.folder} cannot be written "
                f"({error.strerror or error}): with data_cache they are kept elsewhere"
            )
        self.writable = False


def cache_folder(dataset_folder: str | Path, name: str, place: str | None) -> Path:
    """The folder of the entries of data set ``name``: ``.cache`` beside its files, or one of its own in ``place``."""
    if place is None:
        return Path(dataset_folder) / ".cache"
    path = str(Path(dataset_folder).resolve())
    return Path(place) / f"{name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


@cache
def _code_hash() -> str:
    """A hash of the code that makes the arrays: nobody has to remember to raise a version when it changes."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(path for pattern in _CODE for path in root.glob(pattern)):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:03d}.npy"


def _written(path: Path, array: np.ndarray) -> dict[str, Any]:
    np.save(path, array, allow_pickle=False)
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}


def _mapped(path: Path, file: _File) -> np.ndarray:
    """The array in ``path``; what is written to it stays in this process.

    Raises:
        DataError: the file is not the one that was written.
    """
    if path.stat().st_size != file.bytes or sha256(path) != file.sha256:
        raise DataError(path, "the file is not the one that was written")
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
