"""Reading vectors from ``.npy`` files."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from recbole_ser.errors import DataError, one_line


def read_vectors(path: Path, hint: str) -> np.ndarray:
    """The floats ``[n, d]`` in ``path``, mapped into memory.

    Args:
        hint: what to do about a file that cannot be read, for the error.

    Raises:
        DataError: the file is missing, damaged or of another shape, or holds NaN or infinities.
    """
    if not path.is_file():
        raise DataError(path, "file not found", hint=hint)
    try:
        # Mapped, since an array that is read gets the memory that the header asks for before its bytes are there.
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OverflowError, EOFError, OSError, RecursionError, MemoryError, BadZipFile) as error:
        raise DataError(path, f"cannot be read: {one_line(str(error))}", hint=hint) from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        shape = f"{vectors.dtype} {list(vectors.shape)}" if isinstance(vectors, np.ndarray) else "an archive"
        raise DataError(path, f"holds {shape}, not floats [rows, dimensions]", hint=hint)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise DataError(path, f"row {int(bad.argmax())} (from 0) holds NaN or an infinity", hint=hint)
    return vectors
