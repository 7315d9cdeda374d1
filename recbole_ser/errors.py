"""Errors that a user can act on.  The command line prints their text as it is and exits with status 2."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Something that the user gave is wrong.  The message says what it is, and what to do about it."""


class ConfigError(UserError):
    """A configuration key or value is wrong."""


class DataError(UserError):
    """A data file is wrong.  The message is one line, whatever the file holds.

    Args:
        path: the file.
        problem: what is wrong, with the offending value.
        line: 1-based line number in the file, if a single line is to blame.
        column: name of the column, if a single column is to blame.
        hint: what to do about it.
    """

    def __init__(
        self,
        path: str | Path,
        problem: str,
        *,
        line: int | None = None,
        column: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.path, self.problem, self.line, self.column, self.hint = str(path), problem, line, column, hint
        where = self.path if line is None else f"{self.path}:{line}"
        message = f"{where}: {problem}" if column is None else f"{where}: column '{column}': {problem}"
        super().__init__(printable(message if hint is None else f"{message} ({hint})"))


def one_line(text: str, length: int = 300) -> str:
    """``text`` of foreign origin as at most ``length`` characters of one line, all of them printable."""
    shown = " ".join(printable(text[: 4 * length]).split())
    return shown if len(shown) <= length else f"{shown[: length - 3]}..."


def printable(text: str) -> str:
    """``text`` with a space for each line end and each other character that cannot be seen or printed."""
    return "".join(character if character.isprintable() else " " for character in text)
