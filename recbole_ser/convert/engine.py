"""What a conversion in SQL asks of the engine that runs it, and the quoting of names and texts in SQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from recbole_ser.atomic.schema import Column

if TYPE_CHECKING:
    from recbole_ser.convert.duckdb_engine import DuckDBEngine

# A function of one text in SQL: its name, the Python function, and the SQL type of what it returns.
TextFunction = tuple[str, Callable[[str], Any], str]


class Source(Protocol):
    """Where the rows of a log come from.  It can be pickled."""

    def load(self, engine: DuckDBEngine, name: str) -> None:
        """Make the relation ``name`` of the rows."""

    def without_rows(self) -> Source:
        """A source whose relation has the same types, and is made without reading rows."""

    def parts(self) -> Sequence[Source]:
        """Sources that can be read in parallel and have the same rows together."""


class Engine(ABC):
    """An engine with relations that are made, asked and written by SQL, which is that of DuckDB.

    There are two kinds of statements.  Those of `rows` and the expressions of `write` make each row from a single one:
    they hold the rules for values, may use all that DuckDB has, and are run by DuckDB whatever the engine.  Those of
    `run` and `ask` group, join and sort: another engine runs a translation, so they have to do without functions of
    text, of JSON and of times, and without turning numbers into text.

    Attributes:
        statements: the SQL that was run so far, without statements that only count or ask.
        versions: the versions of the libraries that do the work.
    """

    statements: list[str]
    versions: dict[str, str]

    @abstractmethod
    def close(self) -> None:
        """Release memory and files; it may be called more than once."""

    @abstractmethod
    def define(self, name: str, function: Callable[[str], Any], result: str) -> None:
        """Let `rows` call a Python function of one text, which returns the SQL type ``result``; NULL stays NULL."""

    @abstractmethod
    def define_macro(self, statement: str) -> None:
        """Let `rows` and `write` call the function that a CREATE MACRO statement defines."""

    @abstractmethod
    def read(self, name: str, source: Source) -> None:
        """Make the relation ``name`` of the rows of ``source``, which `rows` can read."""

    @abstractmethod
    def types(self, name: str) -> dict[str, str]:
        """DuckDB's type of each column of a relation."""

    @abstractmethod
    def rows(self, name: str, relation: str, select: str, *, stored: bool = False) -> None:
        """Make a relation of a SELECT that makes each of its rows from a single row of ``relation``.

        Args:
            name: name of the new relation.
            relation: the only relation that ``select`` reads.
            select: the statement.
            stored: whether to store the rows, because it takes long to make them and they are used several times.
        """

    @abstractmethod
    def run(self, statement: str) -> int:
        """Run a statement that makes a relation.

        Returns:
            The number of rows that it made, if the engine reports one, else 0.

        Raises:
            UserError: memory or disk ran out, or a file cannot be read.
        """

    @abstractmethod
    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """The rows of a SELECT; it raises the same errors as `run`."""

    @abstractmethod
    def write(self, columns: Mapping[Column, str], relation: str, order: str, path: Path) -> int:
        """Write an atomic file, which is safely on disk when this returns.

        Args:
            columns: the SQL expression of each column of the file: text without tabs and line ends, or NULL for an
                empty entry.
            relation: the relation that the expressions read.
            order: columns of the relation that sort the rows; rows that are equal in them must be equal.
            path: path of the file.

        Returns:
            The number of rows.
        """


def literal(text: str) -> str:
    """``text`` as a string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """``name`` as a quoted identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    """The first line of an error's text, which says what is wrong; others show where in the SQL."""
    return str(error).strip().splitlines()[0]
