"""The files of a log as a relation of DuckDB, in which every row has its file and line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

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


def attach(engine: Engine, name: str, files: Files, columns: Sequence[str]) -> SourceTable:
    """Make the relation ``name`` with ``columns`` of ``files``: a view of Parquet files, a table of text files' rows.

    Raises:
        DataError: a file is damaged, or lacks one of the columns (of JSON lines: no row of any file has the key).
        UserError: a file cannot be read.
    """
    columns = list(dict.fromkeys(columns))
    _check_names(files.paths[0], columns)
    empty: list[str] = []
    if files.format == "parquet":
        empty = _attach_parquet(engine, name, files, columns)
    else:
        _attach_text(engine, name, files, columns)
    described = engine.ask(f"SELECT column_name, column_type FROM (DESCRIBE {name})")
    types = {column: kind for column, kind in described if column in columns}
    return SourceTable(name, files, types | dict.fromkeys(empty, NO_TYPE))


def _attach_parquet(engine: Engine, name: str, files: Files, columns: list[str]) -> list[str]:
    """Make the view, and return the columns that have no value in any row."""
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
    paths = "[" + ", ".join(literal(str(path)) for path in files.paths) + "]"
    engine.run(
        f"CREATE VIEW {name} AS SELECT list_position({paths}, filename) - 1 AS {FILE}, file_row_number + 1 AS {LINE},\n"
        f"  CAST(NULL AS VARCHAR) AS {FAULT}, CAST(NULL AS VARCHAR) AS {TEXT}, {', '.join(map(identifier, columns))}\n"
        f"FROM read_parquet({paths}, filename = true, file_row_number = true, hive_partitioning = false)"
    )
    return [column for column, kind in first.items() if pa.types.is_null(kind)]


def _attach_text(engine: Engine, name: str, files: Files, columns: list[str]) -> None:
    kind = "JSON" if files.format == "jsonl" else "VARCHAR"
    meta = f"{FILE} INTEGER, {LINE} BIGINT, {FAULT} VARCHAR, {TEXT} VARCHAR"
    engine.run(f"CREATE TABLE {name} ({meta}, {', '.join(f'{identifier(column)} {kind}' for column in columns)})")
    engine.statements.append(f"-- {name} now gets the rows of its {files.format} files")
    for number, path in enumerate(files.paths):
        if files.format == "jsonl":
            select = _select_json(number, columns)
            batches = json_batches(path)
        else:
            _require(path, columns, csv_header(files, path))
            select = f"SELECT {number}, {LINE}, {FAULT}, {TEXT}, {', '.join(map(identifier, columns))} FROM batch"
            batches = csv_batches(files, path, columns)
        for batch in batches:
            engine.insert(name, select, batch)
    if files.format == "jsonl":
        _require_keys(engine, name, files, columns)


def _require_keys(engine: Engine, name: str, files: Files, columns: list[str]) -> None:
    """Check that each of ``columns`` is a key of some row of JSON lines, be its value null."""
    counts = ", ".join(f"count({identifier(column)})" for column in columns)
    rows, *found = engine.ask(f"SELECT count(*) FILTER ({FAULT} IS NULL), {counts} FROM {name}")[0]
    if rows and 0 in found:
        column, path = columns[found.index(0)], files.paths[0]
        begin = next(json_batches(path)).column(ROW).drop_null()[:_LOOKED_AT].to_pylist()
        rows = f"(SELECT unnest([{', '.join(map(literal, begin))}]) AS row)"
        keys = engine.ask(f"SELECT DISTINCT unnest(json_keys(TRY_CAST(row AS JSON))) AS key FROM {rows} ORDER BY key")
        hint = _nearest(column, [key for (key,) in keys])
        raise DataError(path, "no row has the key", column=column, hint=hint)


def _nearest(column: str, present: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(column, present, n=1)
    if nearest:
        return f"did you mean '{nearest[0]}'?"
    listed = ", ".join(present)
    return f"it has {listed if len(listed) <= _LISTED else listed[:_LISTED] + '...'}"


def _select_json(number: int, columns: list[str]) -> str:
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
