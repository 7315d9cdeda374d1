"""Making new folders so that no two processes get the same one."""

from __future__ import annotations

from contextlib import suppress
from itertools import count
from pathlib import Path

from recbole_ser.errors import UserError
from recbole_ser.files import ATTEMPTS, check_writable


def claim(path: str | Path, hint: str) -> Path:
    """Make the folder ``path``, which must not exist yet.

    Args:
        hint: what the user can do if it exists, for the error.

    Raises:
        UserError: the folder exists already.
    """
    path = Path(path)
    try:
        _make(path)
    except FileExistsError:
        raise UserError(f"{path}: this folder is there already: {hint}") from None
    return path


def check_claimable(path: str | Path, hint: str) -> None:
    """Make sure, before work that takes long, that the folder ``path`` is not there and can be made.

    Raises:
        UserError: the folder exists already, which ``hint`` says what to do about, or cannot be made.
    """
    if Path(path).exists():
        raise UserError(f"{path}: this folder is there already: {hint}")
    check_writable(path)


def claim_new(path: str | Path) -> Path:
    """Make the folder ``path`` or, if it exists already, the first of ``path-2``, ``path-3``, ... that does not."""
    path = Path(path)
    folder, numbers = path, count(2)
    while True:
        with suppress(FileExistsError):
            _make(folder)
            return folder
        folder = path.with_name(f"{path.name}-{next(numbers)}")


def _make(folder: Path) -> None:
    for left in reversed(range(ATTEMPTS)):
        try:
            folder.mkdir(parents=True)
            return
        except FileNotFoundError:  # another process has made a parent, and removed it: see ``check_writable``
            if not left:
                raise
