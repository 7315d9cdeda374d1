"""The JSON files that this package itself writes and reads: each has a declared shape, and a damaged one is one line.

Files that later results depend on are sealed: they hold a checksum of their content, so that a changed bit is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from recbole_ser.errors import DataError
from recbole_ser.files import write_json

T = TypeVar("T")

_SEAL = "checksum"  # the last key of a sealed file


def read_record(path: str | Path, shape: type[T], remedy: str) -> T:
    """Read the JSON in ``path`` as a value of type ``shape``: a dataclass, say, or ``dict[str, float]``.

    Args:
        remedy: what the user can do if the file is missing or damaged, for the error.

    Raises:
        DataError: the file is missing, cannot be read, is not JSON, or holds something else than ``shape``.
    """
    return parse_record(_bytes_of(path, remedy), shape, path, remedy)


def read_records(path: str | Path, shape: type[T], remedy: str) -> list[T]:
    """Read a file with one JSON value of type ``shape`` per line; a last line without line end was cut off: no record.

    Raises:
        DataError: as for ``read_record``, with the line.
    """
    lines = _bytes_of(path, remedy).split(b"\n")[:-1]
    return [parse_record(line, shape, path, remedy, number) for number, line in enumerate(lines, start=1)]


def write_sealed(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as ``write_json`` does, with its checksum."""
    write_json(path, {**content, _SEAL: _checksum(json.loads(json.dumps(content)))})


def read_sealed(path: str | Path, shape: type[T], remedy: str) -> T:
    """Read what ``write_sealed`` wrote, as ``read_record`` does.  Who edits such a file removes its checksum.

    Raises:
        DataError: as for ``read_record``, or the content is not the one that was written.
    """
    content = read_record(path, dict[str, Any], remedy)
    if _SEAL in content and content.pop(_SEAL) != _checksum(content):
        hint = f"{remedy}; if you changed it on purpose, remove its last entry, '{_SEAL}'"
        raise DataError(path, "damaged: its checksum is not that of its content", hint=hint)
    return parse_record(json.dumps(content).encode(), shape, path, remedy)


def parse_record(content: bytes, shape: type[T], path: str | Path, remedy: str, line: int | None = None) -> T:
    """Read ``content``, which is the file ``path`` or its line number ``line``, as ``read_record`` does."""
    try:
        return TypeAdapter(shape).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        problem = f"damaged: {place}: {first['msg']}" if place else f"damaged: {first['msg']}"
        raise DataError(path, problem, line=line, hint=remedy) from error


def parse_json(text: str | bytes, make_object: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What the JSON in ``text`` says, whoever wrote it.

    Args:
        make_object: makes the value of a JSON object from its keys and values; by default a dictionary, in which the
            last value of a key counts.

    Raises:
        ValueError: ``text`` is not JSON, is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text, object_pairs_hook=make_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _bytes_of(path: str | Path, remedy: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        problem = "file not found" if missing else f"cannot be read: {error.strerror}"
        raise DataError(path, problem, hint=remedy) from error


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()
