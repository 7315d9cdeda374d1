"""Writing files so that they are either complete or not there at all, checksums, and locks between processes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from recbole_ser.errors import UserError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

ATTEMPTS = 100  # to use folders that other processes make and remove at the same time
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
_log = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` and rename it to ``path`` once the block ends without an error.

    Text is written as UTF-8 with ``\\n`` line ends.  On an error the temporary file is removed and ``path`` is
    as it was; an error of the operating system names a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    binary = "b" in mode
    encoding, newline = (None, None) if binary else ("utf-8", "\n")
    handle = tempfile.NamedTemporaryFile(
        mode, dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False, encoding=encoding, newline=newline
    )
    try:
        _is_free(handle)  # and from now on it is not, see `remove_leftovers`
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(handle.name, 0o666 & ~_umask())
        os.replace(handle.name, path)
    except BaseException as error:
        Path(handle.name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:  # a full disk, say
            error.filename = str(path)
        raise


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the temporary files that killed processes left of files in ``folder`` whose names begin with ``prefix``.

    Those of `atomic_write` are meant.  One that a living process writes to is locked by it, and stays.
    """
    name = re.compile(rf"\.{re.escape(prefix)}.*\.[a-z0-9_]{{8}}\.tmp")
    for path in folder.iterdir():
        if name.fullmatch(path.name) and path.is_file():
            with path.open("rb") as handle:
                if _is_free(handle):
                    path.unlink(missing_ok=True)


def _is_free(handle: IO[Any]) -> bool:
    """Lock an open file until it is closed; false if another process has locked it, or the system has no such locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (AttributeError, OSError):
        return False
    return True


def check_writable(path: str | Path) -> None:
    """Make sure that ``atomic_write`` can write a file at ``path``, before the work whose result it will be.

    Nothing is left behind: neither a file nor a folder.

    Raises:
        UserError: the file could not be written.
    """
    path = Path(path)
    for left in reversed(range(ATTEMPTS)):
        try:
            _write_nothing(path)
            return
        except (OSError, ValueError) as error:  # ValueError: a character that no name can have
            # Another process that checks the same path makes and removes the same folders.
            if left and isinstance(error, (FileNotFoundError, FileExistsError)):
                continue
            problem = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{path}: cannot be written: {problem}") from error


def _write_nothing(path: Path) -> None:
    made = []
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for folder in reversed(path.parents):
            if not folder.is_dir():
                folder.mkdir()
                made.append(folder)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"):
            pass
    finally:
        for folder in reversed(made):
            with suppress(OSError):  # another process has put something there
                folder.rmdir()


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically.  NaN and infinities are refused, as JSON does not have them."""
    with atomic_write(path) as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False, allow_nan=False)
        handle.write("\n")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal digits; the file is read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def exclusive(path: str | Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` inside this block; the operating system releases it whenever this process ends.

    Args:
        path: path of the lock file.
        busy: the message if another process holds the lock.
        wait: whether to log that message and wait until the other process is done; if not, it is an error.

    Raises:
        UserError: another process holds the lock, and ``wait`` is false.
    """
    lock = FileLock(path)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise UserError(busy) from None
            _log.warning(busy)
            lock.acquire()
    except (NotImplementedError, OSError) as error:  # file systems without locks
        if getattr(error, "errno", errno.ENOSYS) not in _NO_LOCKS:
            raise
        _log.warning("%s cannot be locked (%s): do not do this in two processes at once", path, error)
    try:
        yield
    finally:
        lock.release()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
