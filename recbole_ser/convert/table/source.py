"""The files of a log as a relation of DuckDB, in which every row has its file and line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recbole_ser.convert.duckdb_engine import DuckDBEngine
from recbole_ser.convert.engine import Engine, first_line, identifier, literal
from recbole_ser.convert.raw_files import Files
from recbole_ser.convert.table.text_files import FAULT, FILE, LINE, ROW, TEXT, csv_batches, csv_header, json_batches
from recbole_ser.errors import DataError

NOT_JSON = "the row is not valid JSON"
NOT_OBJECT = "the row is not a JSON object"
NO_TYPE = "nothing"
VALUE_PREFIX = "_the_"
_OWN_NAMES = (FILE, LINE, FAULT, TEXT, ROW, "_reason", "_value", "_keep")  # of the converter, in its relations
_OF_PARQUET = ("filename", "file_row_number")  # columns that DuckDB adds
_LISTED = 200  # characters of the names of columns in an error
_KEY = "has_"
_PART = 1_000_000  # rows of a Parquet file that are read together, at least
_LOOKED_AT = 1000  # rows of JSON lines, for the names of their keys


@dataclass(frozen=True)
class SourceTable:
    """The rows of files, in a relation of the engine.

    Besides the columns of the files, the relation has `FILE` (index of the file in ``files.paths``), `LINE` (1-based
    line of a text file, or row of a Parquet file), `FAULT` (why the row could not be read, else NULL) and `TEXT` (the
    beginning of a row that could not be read).

    Args:
        name: name of the relation.
        files: the files that the rows come from.
        types: DuckDB's type of each column that was asked for; ``JSON`` for values of JSON lines, `NO_TYPE` for Parquet
            columns that have no value in any row.
    """

    name: str
    files: Files
    types: dict[str, str]


@dataclass(frozen=True)
class _Rows:
    """Rows of the files of a log, as `recbole_ser.convert.engine.Source`: all of them, or those of one file.

    Args:
        files: the files.
        columns: the columns that are read.
        number: the index in the log of the first of the files.
        within: the first and the last of the rows that are read of a Parquet file, from 0; ``None``: all.
    """

    files: Files
    columns: tuple[str, ...]
    number: int = 0
    within: tuple[int, int] | None = None

    def load(self, engine: DuckDBEngine, name: str) -> None:
        """Make the relation: a view of Parquet files, a table of text files' rows."""
        if self.files.format == "parquet":
            self._view_parquet(engine, name)
        else:
            self._insert_text(engine, name)

    def without_rows(self) -> _Rows:
        """A view of the first Parquet file, since all have the same types, or an empty table."""
        paths = self.files.paths[:1] if self.files.format == "parquet" else ()
        return replace(self, files=replace(self.files, paths=paths))

    def parts(self) -> list[_Rows]:
        """Parquet files in ranges of row groups with about `_PART` rows, and each text file by itself."""
        parts = []
        for number, path in enumerate(self.files.paths):
            ranges = _ranges(path) if self.files.format == "parquet" else [None]
            parts += [replace(self, files=replace(self.files, paths=(path,)), number=number, within=r) for r in ranges]
        return parts

    def _view_parquet(self, engine: DuckDBEngine, name: str) -> None:
        paths = "[" + ", ".join(literal(str(path)) for path in self.files.paths) + "]"
        where = "" if self.within is None else "\nWHERE file_row_number BETWEEN {} AND {}".format(*self.within)
        engine.run(
            f"CREATE VIEW {name} AS SELECT list_position({paths}, filename) + {self.number - 1} AS {FILE},\n"
            f"  file_row_number + 1 AS {LINE}, CAST(NULL AS VARCHAR) AS {FAULT}, CAST(NULL AS VARCHAR) AS {TEXT},\n"
            f"  {', '.join(map(identifier, self.columns))}\n"
            f"FROM read_parquet({paths}, filename = true, file_row_number = true, hive_partitioning = false){where}"
        )

    def _insert_text(self, engine: DuckDBEngine, name: str) -> None:
        files, named = self.files, ", ".join(map(identifier, self.columns))
        kind = "JSON" if files.format == "jsonl" else "VARCHAR"
        meta = f"{FILE} INTEGER, {LINE} BIGINT, {FAULT} VARCHAR, {TEXT} VARCHAR"
        engine.run(f"CREATE TABLE {name} ({meta}, {', '.join(f'{identifier(c)} {kind}' for c in self.columns)})")
        engine.statements.append(f"-- {name} now gets the rows of its {files.format} files")
        for number, path in enumerate(files.paths, self.number):
            if files.format == "jsonl":
                select, batches = _select_json(number, self.columns), json_batches(path)
            else:
                select = f"SELECT {number}, {LINE}, {FAULT}, {TEXT}, {named} FROM batch"
                batches = csv_batches(files, path, self.columns)
            for batch in batches:
                engine.insert(name, select, batch)


def _ranges(path: Path) -> list[tuple[int, int]]:
    """The first and last row of groups of consecutive row groups of a Parquet file."""
    metadata = pq.read_metadata(path)
    ranges, first, end = [], 0, 0
    for group in range(metadata.num_row_groups):
        end += metadata.row_group(group).num_rows
        if end - first >= _PART or end == metadata.num_rows:
            ranges.append((first, end - 1))
            first = end
    return ranges


def attach(engine: Engine, name: str, files: Files, columns: Sequence[str]) -> SourceTable:
    """Make the relation ``name`` with ``columns`` of ``files``.

    Raises:
        DataError: a file is damaged, or lacks one of the columns (of JSON lines: no row of any file has the key).
        UserError: a file cannot be read.
    """
    columns = list(dict.fromkeys(columns))
    _check_names(files.paths[0], columns)
    empty: list[str] = []
    if files.format == "parquet":
        empty = _check_parquet(files, columns)
    elif files.format != "jsonl":
        for path in files.paths:
            _require(path, columns, csv_header(files, path))
    engine.read(name, _Rows(files, tuple(columns)))
    if files.format == "jsonl":
        _require_keys(engine, name, files, columns)
    types = {column: kind for column, kind in engine.types(name).items() if column in columns}
    return SourceTable(name, files, types | dict.fromkeys(empty, NO_TYPE))


def _check_parquet(files: Files, columns: list[str]) -> list[str]:
    """Check that all files have the columns with the same types; return those that have no value in any row."""
    first: dict[str, pa.DataType] = {}
    for path in files.paths:
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise DataError(path, f"not a Parquet file, or a damaged one: {first_line(error)}") from error
        _require(path, columns, schema.names)
        for column in schema.names:
            if column.lower() in _OF_PARQUET:
                raise _own_name(path, column)
        for column in columns:
            kind = schema.field(column).type
            if first.setdefault(column, kind) != kind:
                problem = f"the type is {kind}, but {first[column]} in {files.paths[0].name}"
                raise DataError(path, problem, column=column, hint="write the files with one type")
    return [column for column, kind in first.items() if pa.types.is_null(kind)]


def _require_keys(engine: Engine, name: str, files: Files, columns: list[str]) -> None:
    """Check that each of ``columns`` is a key of some row of JSON lines, be its value null."""
    present = ", ".join(f"{identifier(column)} IS NOT NULL AS {_KEY}{n}" for n, column in enumerate(columns))
    keys = f"{name}_keys"
    engine.rows(keys, name, f"SELECT {present} FROM {name} WHERE {FAULT} IS NULL")
    counts = ", ".join(f"count(*) FILTER (WHERE {_KEY}{n})" for n in range(len(columns)))
    rows, *found = engine.ask(f"SELECT count(*), {counts} FROM {keys}")[0]
    if rows and 0 in found:
        column, path = columns[found.index(0)], files.paths[0]
        begin = next(json_batches(path)).column(ROW).drop_null()[:_LOOKED_AT].to_pylist()
        raise DataError(path, "no row has the key", column=column, hint=_nearest(column, _keys(begin)))


def _keys(lines: Sequence[str]) -> list[str]:
    """The keys of the objects among lines of JSON."""
    found: set[str] = set()
    for line in lines:
        with suppress(ValueError):
            value = json.loads(line)
            found.update(value if isinstance(value, dict) else ())
    return sorted(found)


def _nearest(column: str, present: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(column, present, n=1)
    if nearest:
        return f"did you mean '{nearest[0]}'?"
    listed = ", ".join(present)
    return f"it has {listed if len(listed) <= _LISTED else listed[:_LISTED] + '...'}"


def _select_json(number: int, columns: Sequence[str]) -> str:
    """SQL that reads the columns from JSON lines; a line that is no object gives its fault and its beginning."""
    values = ", ".join(f"json_extract(row, {literal(_pointer(column))})" for column in columns)
    return (
        f"SELECT {number}, {LINE}, fault, CASE WHEN fault IS NOT NULL THEN coalesce({TEXT}, left({ROW}, 80)) END,\n"
        f"  {values}\n"
        f"FROM (SELECT *, CASE WHEN fault IS NULL THEN {ROW} END AS row FROM (SELECT *,\n"
        f"  CASE WHEN {FAULT} IS NOT NULL THEN {FAULT} WHEN NOT json_valid({ROW}) THEN {literal(NOT_JSON)}\n"
        f"  WHEN json_type({ROW}) <> 'OBJECT' THEN {literal(NOT_OBJECT)} END AS fault FROM batch))"
    )


def _pointer(key: str) -> str:
    """The JSON pointer (RFC 6901) to a key of the outermost object."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _require(path: Path, columns: Sequence[str], present: Sequence[str]) -> None:
    """Check that each of ``columns`` is there exactly once; SQL does not distinguish upper and lower case."""
    folded = [name.casefold() for name in present]
    for column in columns:
        if column not in present:
            raise DataError(path, "the column is missing", column=column, line=1, hint=_nearest(column, present))
        if folded.count(column.casefold()) > 1:
            raise DataError(
                path, "another column has this name, upper and lower case aside", column=column, line=1,
                hint="rename one of them",
            )  # fmt: skip


def _check_names(path: Path, columns: Sequence[str]) -> None:
    """Check that SQL can tell ``columns`` from each other and from the converter's own."""
    folded: dict[str, str] = {}
    for column in columns:
        other = folded.setdefault(column.casefold(), column)
        if other != column:
            problem = f"only upper and lower case tell it from the column '{other}'"
            raise DataError(path, problem, column=column, hint="rename one of them")
        if column.casefold() in _OWN_NAMES or column.casefold().startswith(VALUE_PREFIX):
            raise _own_name(path, column)


def _own_name(path: Path, column: str) -> DataError:
    return DataError(path, "the converter needs this name itself", column=column, line=1, hint="rename it")
