"""A cache of answers of slow or paid services, kept for good under the hash of what was asked."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from recbole_ser.errors import DataError, UserError
from recbole_ser.files import exclusive
from recbole_ser.records import parse_json

_LINE = re.compile(rb'\{"key": "([0-9a-f]{64})", "value": .+\}\n', re.DOTALL)
_REMEDY = "remove this line, or the file to ask anew"
_log = logging.getLogger(__name__)


def key_of(**parts: Any) -> str:
    """Hex SHA-256 of ``parts`` as canonical JSON: everything that the answer depends on.

    Raises:
        TypeError, ValueError: ``parts`` hold something that JSON cannot hold.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class Cache:
    """A file of JSON lines to which every answer is appended as it arrives; use it in a ``with`` block, in one thread.

    A process that is killed loses no answer that was put: at most the last line is cut, and the next opening drops
    it.  Values stay in the file and only their places in memory, so long vectors can be kept too.

    Args:
        path: the file; it is made, with its folder, if it does not exist.

    Raises:
        UserError: another process has the cache open, or the file cannot be opened.
        DataError: the file has a line that this class did not write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._places: dict[str, int] = {}
        busy = f"{self.path}: another process uses this cache: wait until it ends, or end it"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                opened.enter_context(exclusive(f"{self.path}.lock", busy))
                # What a buffer could not write, it would try to write again when it is closed.
                self._appending = opened.enter_context(self.path.open("ab", buffering=0))
                self._reading = opened.enter_context(self.path.open("rb"))
                self._end = self._read()
                self._opened = opened.pop_all()
        except OSError as error:
            raise UserError(f"{self.path}: the cache cannot be opened: {error.strerror}") from error

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> Any | None:
        """The value last put under ``key``; ``None`` if there is none.

        Raises:
            DataError: the line of the value is damaged.
        """
        place = self._places.get(key)
        if place is None:
            return None
        self._reading.seek(place)
        try:
            return parse_json(self._reading.readline())["value"]
        except (ValueError, KeyError) as error:
            raise self.fault(key, f"no cached answer: {error}") from error

    def fault(self, key: str, problem: str) -> DataError:
        """The error that says where the value of ``key`` stands, that it is wrong, and what to do about it."""
        self._reading.seek(0)
        lines = self._reading.read(self._places[key]).count(b"\n")
        return DataError(self.path, problem, line=lines + 1, hint=_REMEDY)

    def put(self, key: str, value: Any) -> None:
        """Write ``value``, anything that JSON can hold but ``None``, to the file at once.

        Raises:
            ValueError: ``key`` does not come from ``key_of``, or ``value`` is ``None`` or nothing for JSON.
            UserError: the value cannot be written, as the disk is full, say; the file keeps what it had.
        """
        line = json.dumps({"key": key, "value": value}, allow_nan=False).encode("ascii") + b"\n"
        if value is None or _LINE.fullmatch(line) is None:
            raise ValueError(f"'{key}' is no key of key_of, or the value is None")
        self._append(line)
        self._places[key] = self._end
        self._end += len(line)

    def close(self) -> None:
        self._opened.close()

    def _append(self, line: bytes) -> None:
        try:
            while line:
                line = line[self._appending.write(line) :]
        except OSError as error:
            self._appending.truncate(self._end)
            remedy = "the answers so far are kept: mend this, and give the same command again"
            raise UserError(f"{self.path}: cannot be written: {error.strerror} ({remedy})") from error

    def _read(self) -> int:
        """Find the place of every value, cut off a last line that is not whole, and return the file's size in bytes."""
        self._reading.seek(0)
        place = 0
        for number, line in enumerate(self._reading, start=1):
            match = _LINE.fullmatch(line)
            if match is None:
                if line.endswith(b"\n"):
                    raise DataError(self.path, f"{line[:60]!r} is no cached answer", line=number, hint=_REMEDY)
                _log.warning("%s: the last answer was cut off and is dropped", self.path)
                self._appending.truncate(place)
                break
            self._places[match[1].decode("ascii")] = place
            place += len(line)
        self._reading.seek(0, os.SEEK_END)  # which drops what has been read of a line that was cut off
        return place
