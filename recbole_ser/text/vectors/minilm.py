"""Vectors by all-MiniLM-L6-v2, an embedding model that comes as a Python package and needs no network."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from recbole_ser.errors import DataError, UserError, one_line
from recbole_ser.files import sha256
from recbole_ser.text.vectors.local import LocalEncoder

MODEL = "all-MiniLM-L6-v2"
PACKAGE = "all_minilm_l6_v2"  # its own code, which would only unpack the archive, is not run
LONGEST = 256  # tokens, as the model was trained

# The files that are used, and their SHA-256.  The weights are those that the authors of the model publish.
FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}
_INSTALL = 'pip install "recbole_ser[minilm]"'
_BROKEN = (BadZipFile, KeyError, OSError, RuntimeError, EOFError, zlib.error)  # what reading an archive may raise


class MiniLM:
    """Encodes texts with the mean of the model's last states, 384 numbers; see ``LocalEncoder``.

    Args:
        cache: file of vectors, see ``text.cache``.
        max_length: how many tokens of a text are read, at most 256.
        batch_size: number of texts that are encoded together.
        device: PyTorch's name of the device; by default a GPU if there is one.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(
        self, cache: str | Path, max_length: int = LONGEST, batch_size: int = 32, device: str | None = None
    ) -> None:
        self.archive = _shipped_archive()
        self.max_length = min(max_length, LONGEST)
        self._cache, self._batch_size, self._device = Path(cache), batch_size, device

    def describe(self) -> dict[str, Any]:
        """The model, the hash of its weights, and the settings."""
        known = {"model": MODEL, "sha256": FILES["model.safetensors"]}
        return {"backend": "minilm", **known, "max_length": self.max_length}

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """See ``TextEncoder``.

        Raises:
            UserError: transformers is not installed, or the model cannot be unpacked for want of space, say.
            DataError: the installed model is not the one that is expected, or the cache is damaged.
        """
        folder = unpacked(self.archive)
        local = LocalEncoder(self._cache, folder, "auto", self.max_length, self._batch_size, self._device)
        return local.encode(texts, progress)


def unpacked(archive: Path) -> Path:
    """The folder of the model in the user's cache of files, which is made from ``archive`` if it does not exist.

    The files are written to a folder of another name, checked, and moved to their place together.  Only the members
    that ``FILES`` names are read.

    Raises:
        UserError: the folder cannot be written.
        DataError: a file is missing from the archive, or is not the one that is expected.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recbole_ser"
    folder = home / f"{MODEL}-{FILES['model.safetensors'][:12]}"
    if folder.is_dir():
        _check(folder, folder, "remove the folder")
        return folder
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home, prefix=f".{MODEL}-") as temporary:
            whole = Path(temporary) / MODEL
            _extract(archive, whole)
            _check(whole, archive, f"install it again: {_INSTALL}")
            if not folder.is_dir():  # or another process was faster
                whole.rename(folder)
    except OSError as error:
        place = f"{home}: cannot be written: {error.strerror or error}"
        raise UserError(f"{place}: the model needs 90 MB there; XDG_CACHE_HOME names another place") from error
    return folder


def _shipped_archive() -> Path:
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"vectors by minilm need the package that holds the model: {_INSTALL}")
    return Path(found.submodule_search_locations[0]) / "model.zip"


def _extract(archive: Path, folder: Path) -> None:
    for name in FILES:
        try:
            with ZipFile(archive) as opened:
                content = opened.read(name)
        except _BROKEN as error:
            problem = f"cannot be unpacked: {one_line(str(error))}"
            raise DataError(archive, problem, hint=f"install it again: {_INSTALL}") from error
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _check(folder: Path, origin: Path, remedy: str) -> None:
    for name, expected in FILES.items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise DataError(origin, f"{name} is missing, or is not the file of {MODEL} that is expected", hint=remedy)
