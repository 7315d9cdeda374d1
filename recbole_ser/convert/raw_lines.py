"""Reading raw logs row by row, gzip or not, with line numbers and a reason for every row that is left out."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from tqdm import tqdm

from recbole_ser.atomic.schema import PADDING
from recbole_ser.errors import DataError, UserError

_GZIP_MAGIC = b"\x1f\x8b"
_LINE_LIMIT = 1 << 24
_LINES_PER_UPDATE = 4096
_EXAMPLES = 3
_SEPARATORS = re.compile(r'[\s"\x00-\x1f\x7f\ud800-\udfff]+')
_TOKEN = re.compile(r'[^\s"\x00-\x1f\x7f\ud800-\udfff]+')


class BadRow(ValueError):
    """A malformed row.

    Args:
        reason: what is wrong, in words that do not depend on the row, since rows are counted by reason.
        value: the offending value.
    """

    def __init__(self, reason: str, value: object = None) -> None:
        self.reason = reason
        super().__init__(reason if value is None else f"{reason}: {_beginning(value)!r}")


def _beginning(value: object) -> str:
    try:
        return str(value)[:80]
    except ValueError:  # Python writes no integer of thousands of digits, though it reads them in hexadecimal
        return "a number of thousands of digits"


@dataclass
class RowCounts:
    """What became of the rows of one source: ``rows_in`` equals ``rows_out`` plus the rejected rows.

    ``examples`` holds the first malformed rows for each reason, as ``file:line: problem``.
    """

    source: str
    rows_in: int = 0
    rows_out: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def reject(self, reason: str, rows: int = 1) -> None:
        """Count well-formed rows that the conversion does not use."""
        if rows:
            self.rejected[reason] += rows

    def reject_malformed(self, path: Path, line: int, error: BadRow) -> None:
        self.rejected[error.reason] += 1
        examples = self.examples.setdefault(error.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(f"{path.name}:{line}: {error}")

    def as_dict(self) -> dict[str, Any]:
        """The counts, for the manifest.

        Raises:
            RuntimeError: rows are unaccounted for, which is a bug of the converter.
        """
        if self.rows_in != self.rows_out + self.rejected.total():
            raise RuntimeError(f"rows unaccounted for: {self}")
        rejected = {reason: self.rejected[reason] for reason in sorted(self.rejected)}
        counts = {"in": self.rows_in, "out": self.rows_out, "rejected": rejected}
        return {**counts, "examples": self.examples} if self.examples else counts


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (1-based number, bytes) of each line of a file, gzip or not, in constant memory, with a progress bar.

    Raises:
        DataError: a gzip file is cut off or damaged, or a line is longer than 16 MiB.
        UserError: the file cannot be opened.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such file")
    number = 0
    try:
        with path.open("rb") as raw:
            is_gzip = raw.peek(2)[:2] == _GZIP_MAGIC
            if path.suffix == ".gz" and not is_gzip:
                raise DataError(path, "not a gzip file", line=1, hint="get it again, or take .gz off its name")
            lines = cast(BinaryIO, gzip.GzipFile(fileobj=raw) if is_gzip else raw)
            with tqdm(
                total=path.stat().st_size, desc=f"Reading {path.name}", unit="B", unit_scale=True, disable=None
            ) as bar:
                while line := lines.readline(_LINE_LIMIT):
                    number += 1
                    if len(line) == _LINE_LIMIT:
                        raise DataError(path, "the line is longer than 16 MiB", line=number)
                    yield number, line
                    if number % _LINES_PER_UPDATE == 0:
                        bar.update(raw.tell() - bar.n)
                bar.update(raw.tell() - bar.n)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        hint = "the transfer was cut off or the file is damaged: get it again"
        raise DataError(path, f"damaged gzip file: {error}", line=number + 1, hint=hint) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def decoded(line: bytes) -> str:
    """The text of a line.

    Raises:
        BadRow: the line is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8", line) from error


def token(value: object, name: str) -> str:
    """``value`` as a token of an atomic file, which is one word so that it also fits into a sequence.

    Raises:
        BadRow: ``value`` is no text, is empty, holds white space, a double quote or a control character, or is the id
            of padding.
    """
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise BadRow(f"{name} is not one word", value)
    if value == PADDING:
        raise BadRow(f"{name} is the id of padding", value)
    return value


def words(text: str) -> str:
    """``text`` in which everything that cannot stand in a sequence of tokens is replaced by single spaces."""
    return _SEPARATORS.sub(" ", text).strip()
