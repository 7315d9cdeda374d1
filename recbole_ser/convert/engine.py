"""DuckDB as the converters use it: bounded memory, a folder to spill into, every statement kept for the reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from recbole_ser.atomic.schema import Column
from recbole_ser.errors import ConfigError, UserError

_SETTINGS = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET TimeZone = 'UTC'",
    "SET enable_progress_bar = false",
)

_MACROS = (
    "-- a number as text: none for NaN, and a whole one without a decimal point\n"
    "CREATE MACRO number_text(value) AS CASE WHEN isnan(value) THEN NULL\n"
    "  WHEN value = floor(value) AND abs(value) < 9007199254740992 THEN CAST(TRY_CAST(value AS BIGINT) AS VARCHAR)\n"
    "  ELSE CAST(value AS VARCHAR) END",
    "CREATE MACRO json_text(value) AS CASE\n"
    "  WHEN json_type(value) = 'DOUBLE' THEN number_text(TRY_CAST(value ->> '$' AS DOUBLE))\n"
    "  ELSE nullif(value ->> '$', '') END",
    "-- nanoseconds as seconds: exact, and without trailing zeros\n"
    "CREATE MACRO seconds_text(time) AS CASE WHEN time % 1000000000 = 0 THEN CAST(time // 1000000000 AS VARCHAR)\n"
    "  ELSE CAST(time // 1000000000 AS VARCHAR) || '.'\n"
    "    || rtrim(lpad(CAST(time % 1000000000 AS VARCHAR), 9, '0'), '0') END",
)


class Engine:
    """A DuckDB of its own, in memory as far as that goes and in ``folder`` beyond; nothing is fetched.

    Args:
        folder: for what does not fit into memory; it is made, and is left to the caller.
        memory: how much DuckDB may hold, such as ``4GiB``; the process needs a little more.
        threads: how many it uses; ``None``: one for each core.

    Attributes:
        statements: the SQL so far, without what only counts or asks.

    Raises:
        ConfigError: ``memory`` or ``threads`` is wrong.
    """

    def __init__(self, folder: Path, memory: str, threads: int | None = None) -> None:
        self.statements: list[str] = []
        self._connection: Any = duckdb.connect()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for setting in _SETTINGS:
                self._connection.execute(setting)
            self._connection.execute(f"SET temp_directory = {literal(str(folder))}")
            self._connection.execute(f"SET memory_limit = {literal(memory)}")
            if threads is not None:
                self._connection.execute(f"SET threads = {int(threads)}")
        except duckdb.Error as error:
            self._connection.close()
            raise ConfigError(f"memory {memory}, threads {threads}: {_first_line(error)}") from error
        for macro in _MACROS:
            self.run(macro)

    def close(self) -> None:
        """Let go of memory and files; to be called any number of times."""
        self._connection.close()

    def run(self, statement: str) -> int:
        """Run a statement that makes or writes something.

        Returns:
            How many rows it made, if it says so, else 0.

        Raises:
            UserError: memory or disk ran out, or a file cannot be read.
        """
        self.statements.append(statement)
        rows = self.ask(statement)
        return int(rows[0][0]) if rows and isinstance(rows[0][0], int) else 0

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        """The rows that a SELECT gives.  Raises as `run` does."""
        try:
            return self._connection.execute(question).fetchall()
        except duckdb.OutOfMemoryException as error:
            raise UserError(f"out of memory or of disk; allow more: --memory 8GiB ({_first_line(error)})") from error
        except duckdb.Error as error:
            if isinstance(error, duckdb.ProgrammingError) and not isinstance(error, duckdb.InvalidInputException):
                raise  # the SQL is wrong, which is no fault of the user's
            hint = "is a file damaged, or the disk full?"
            raise UserError(f"the conversion stopped: {_first_line(error)} ({hint})") from error

    def insert(self, table: str, select: str, batch: pa.RecordBatch) -> None:
        """Add to a table what ``select`` makes of ``batch``, which is the relation ``batch`` in it."""
        self._connection.register("batch", pa.Table.from_batches([batch]))
        self.ask(f"INSERT INTO {table} {select}")
        self._connection.unregister("batch")

    def define(self, name: str, function: Callable[[str], Any], result: str) -> None:
        """Let SQL call a Python function of one text; NULL stays NULL.  ``result`` is the SQL type it gives."""
        arrow_type = {"VARCHAR": pa.string(), "VARCHAR[]": pa.list_(pa.string())}[result]

        def vectorised(texts: Any) -> Any:
            return pa.array([None if text is None else function(text) for text in texts.to_pylist()], arrow_type)

        self._connection.create_function(name, vectorised, ["VARCHAR"], result, type="arrow")

    def write(self, columns: Mapping[Column, str], relation: str, order: str, path: Path) -> int:
        """Write an atomic file; it is on disk when this returns.

        Args:
            columns: the expression of each column of the file: text without tabs and line ends, or NULL for nothing.
            relation: what the expressions are about.
            order: expressions that sort the rows; rows that are equal in them must be equal.

        Returns:
            How many rows there are.
        """
        names = ", ".join(f"{expression} AS {identifier(column.label)}" for column, expression in columns.items())
        rows = self.run(
            f"COPY (SELECT {names} FROM {relation} ORDER BY {order})\n"
            f"TO {literal(str(path))} (FORMAT csv, DELIMITER '\\t', HEADER true, QUOTE '', ESCAPE '', NULLSTR '')"
        )
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        return rows


def literal(text: str) -> str:
    """``text`` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """``name`` as the name of a column in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
