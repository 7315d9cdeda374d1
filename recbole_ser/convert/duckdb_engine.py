"""DuckDB as the converters use it: with bounded memory, a folder to spill into, and a record of every statement."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from recbole_ser.atomic.schema import Column
from recbole_ser.convert.engine import Engine, Source, first_line, identifier, literal
from recbole_ser.errors import ConfigError, UserError

_BATCH = 1 << 16  # rows that are handed on at once

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
    "-- nanoseconds as seconds, without trailing zeros\n"
    "CREATE MACRO seconds_text(time) AS CASE WHEN time % 1000000000 = 0 THEN CAST(time // 1000000000 AS VARCHAR)\n"
    "  ELSE CAST(time // 1000000000 AS VARCHAR) || '.'\n"
    "    || rtrim(lpad(CAST(time % 1000000000 AS VARCHAR), 9, '0'), '0') END",
    "-- whether a 64-bit float keeps a time, in nanoseconds, as seconds: whole microseconds it always does\n"
    "CREATE MACRO fits_seconds(time) AS CASE WHEN time % 1000 = 0 THEN true\n"
    "  ELSE CAST(CAST(seconds_text(time) AS DOUBLE) AS VARCHAR) = seconds_text(time) END",
    "-- an entry of ISO 8601 text as a moment, without its fraction of a second, which may be finer than the type\n"
    "CREATE MACRO iso_moment(text) AS CASE WHEN regexp_full_match(text,\n"
    "    '[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
    "(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?)?')\n"
    "  THEN TRY_CAST(regexp_replace(text, '[.,][0-9]+', '') AS TIMESTAMPTZ) END",
)


class DuckDBEngine(Engine):
    """A private DuckDB database, in memory as far as it fits and in ``folder`` beyond that; nothing is downloaded.

    Args:
        folder: folder for what does not fit into memory; it is made here, and the caller has to remove it.
        memory: how much memory DuckDB may use, such as ``4GiB``; the process needs a little more.
        threads: number of threads of DuckDB; ``None``: one for each core.

    Raises:
        ConfigError: ``memory`` or ``threads`` is wrong.
    """

    def __init__(self, folder: Path, memory: str, threads: int | None = None) -> None:
        self.statements = []
        self.versions = {"duckdb": duckdb.__version__, "pyarrow": pa.__version__}
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
            raise ConfigError(f"memory {memory}, threads {threads}: {first_line(error)}") from error
        for macro in _MACROS:
            self.define_macro(macro)

    def close(self) -> None:
        self._connection.close()

    def define_macro(self, statement: str) -> None:
        self.run(statement)

    def read(self, name: str, source: Source) -> None:
        source.load(self, name)

    def types(self, name: str) -> dict[str, str]:
        return dict(self.ask(f"SELECT column_name, column_type FROM (DESCRIBE {name})"))

    def rows(self, name: str, relation: str, select: str, *, stored: bool = False) -> None:
        self.run(f"CREATE {'TABLE' if stored else 'VIEW'} {name} AS {select}")

    def run(self, statement: str) -> int:
        self.statements.append(statement)
        rows = self.ask(statement)
        return int(rows[0][0]) if rows and isinstance(rows[0][0], int) else 0

    def ask(self, question: str) -> list[tuple[Any, ...]]:
        with _named_errors():
            rows: list[tuple[Any, ...]] = self._connection.execute(question).fetchall()
        return rows

    def schema(self, name: str) -> pa.Schema:
        """The columns of a relation as Arrow has them."""
        with _named_errors():
            return self._connection.sql(f"SELECT * FROM {name} LIMIT 0").to_arrow_table().schema

    def batches(self, select: str) -> Iterator[pa.RecordBatch]:
        """The rows of a SELECT in their order; it raises the same errors as `run`."""
        with _named_errors():
            relation = self._connection.sql(select)
            # Older versions know only the other name, which newer ones give up.
            read = relation.to_arrow_reader if hasattr(relation, "to_arrow_reader") else relation.fetch_arrow_reader
            yield from read(_BATCH)

    def name_batch(self, name: str, batch: pa.RecordBatch) -> None:
        """Make ``name`` the relation of the rows of a batch, in place of the batch that had the name before."""
        self._connection.register(name, pa.Table.from_batches([batch]))

    def insert(self, table: str, select: str, batch: pa.RecordBatch) -> None:
        """Insert into ``table`` the rows of ``select``, in which the relation ``batch`` is the given batch."""
        self.name_batch("batch", batch)
        self.ask(f"INSERT INTO {table} {select}")
        self._connection.unregister("batch")

    def define(self, name: str, function: Callable[[str], Any], result: str) -> None:
        arrow_type = {"VARCHAR": pa.string(), "VARCHAR[]": pa.list_(pa.string())}[result]

        def vectorised(texts: Any) -> Any:
            return pa.array([None if text is None else function(text) for text in texts.to_pylist()], arrow_type)

        self._connection.create_function(name, vectorised, ["VARCHAR"], result, type="arrow")

    def write(self, columns: Mapping[Column, str], relation: str, order: str, path: Path) -> int:
        names = ", ".join(f"{expression} AS {identifier(column.label)}" for column, expression in columns.items())
        rows = self.run(
            f"COPY (SELECT {names} FROM {relation} ORDER BY {order})\n"
            f"TO {literal(str(path))} (FORMAT csv, DELIMITER '\\t', HEADER true, QUOTE '', ESCAPE '', NULLSTR '')"
        )
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
        return rows


@contextmanager
def _named_errors() -> Iterator[None]:
    """Turn an error of DuckDB that is no fault of the SQL into one line."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UserError(f"out of memory or of disk; allow more: --memory 8GiB ({first_line(error)})") from error
    except duckdb.Error as error:
        if isinstance(error, duckdb.ProgrammingError) and not isinstance(error, duckdb.InvalidInputException):
            raise  # the SQL is wrong, which is no fault of the user's
        hint = "is a file damaged, or the disk full?"
        raise UserError(f"the conversion stopped: {first_line(error)} ({hint})") from error
