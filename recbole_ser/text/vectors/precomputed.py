"""Vectors that were made elsewhere, read from NumPy files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.data.vector_file import read_vectors
from recbole_ser.errors import DataError
from recbole_ser.files import sha256
from recbole_ser.text.vectors.distinct import unit_rows


class Precomputed:
    """Reads one ``.npy`` file for each side, float ``[users, d]`` with the same d, and ignores the texts.

    Row u belongs to user id u + 1: users are numbered in the order in which they first appear in ``X.inter``.

    Args:
        search, rec: the files of both sides.
    """

    def __init__(self, search: str | Path, rec: str | Path) -> None:
        self.paths = (Path(search), Path(rec))

    def describe(self) -> dict[str, Any]:
        """The hashes of the files; their paths do not matter."""
        search, rec = (sha256(_existing(path)) for path in self.paths)
        return {"backend": "precomputed", "search": search, "rec": rec}

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """The rows of ``search``, then those of ``rec``, as ``encode_sides`` asks for them; scaled to length 1.

        Raises:
            DataError: a file is missing, damaged or of another shape, or holds NaN or infinities.
        """
        search, rec = (_read(path, users=len(texts) // 2) for path in self.paths)
        if search.shape[1] != rec.shape[1]:
            widths = f"{rec.shape[1]} dimensions, {self.paths[0]} has {search.shape[1]}"
            raise DataError(self.paths[1], f"has {widths}", hint="both sides must be vectors of the same model")
        return unit_rows(np.concatenate([search, rec]))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(path, "file not found")
    return path


def _read(path: Path, users: int) -> np.ndarray:
    vectors = read_vectors(path, "write it with numpy.save, floats only")
    if len(vectors) != users:
        raise DataError(
            path, f"has {len(vectors):,} rows, the data set {users:,} users", hint="row u is for user id u + 1"
        )
    return vectors
