"""Reading Qilin's tables with SQL; see `recbole_ser.convert.layouts.qilin`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from recbole_ser.convert.engine import identifier
from recbole_ser.convert.layouts.shown_items import write_searches
from recbole_ser.convert.raw_files import Files
from recbole_ser.convert.sql_conversion import SQLConversion
from recbole_ser.convert.table.attributes import convert_attributes
from recbole_ser.convert.table.checked_rows import check_rows
from recbole_ser.convert.table.columns import (
    Check,
    Value,
    is_blank,
    kept,
    number,
    plain_text,
    value_name,
    word,
)
from recbole_ser.convert.table.interactions import write_interactions
from recbole_ser.convert.table.source import SourceTable, attach
from recbole_ser.convert.table.spec import Attribute, AttributeTable, Keep, Query, TimeColumn
from recbole_ser.convert.table.text_files import FAULT, FILE, LINE, TEXT
from recbole_ser.convert.table.times import read_times
from recbole_ser.errors import DataError

_CLICK = Keep("click", minimum=1)
_SHOWS_NOTHING = Check("NOT shown", "the request shows no note", malformed=False)
_NOTES = {
    "title": Attribute("token_seq", "note_title"),
    "content": Attribute("token_seq", "note_content"),
    "type": Attribute("token", "note_type"),
    **{f"taxonomy{level}": Attribute("token", f"taxonomy{level}_id") for level in (1, 2, 3)},
}
_USERS = {
    **{name: Attribute("token", name) for name in ("gender", "platform", "age", "location")},
    **{name: Attribute("float", name) for name in ("fans_num", "follows_num")},
}


def write(files: Mapping[str, Files], conversion: SQLConversion) -> None:
    """Write all atomic files from ``files``, by role."""
    _write_interactions(conversion, files["recommendation"])
    _write_searches(conversion, files["search"])
    if "notes" in files:
        table = AttributeTable(files["notes"], "note_idx", _NOTES)
        convert_attributes(conversion, table, "item", True)
    if "users" in files:
        convert_attributes(conversion, AttributeTable(files["users"], "user_idx", _USERS), "user", True)


def _write_interactions(conversion: SQLConversion, files: Files) -> None:
    shown = ("note_idx", "position", "request_timestamp", _CLICK.column)
    relation = _attach(conversion, "recommendation", files, ["user_idx"], "rec_result_details_with_idx", shown)
    times = read_times(conversion.engine, relation, TimeColumn("request_timestamp"))
    click, user, item, position = _common(relation)
    unwanted = Check(f"NOT {click.name}", "the note was not clicked", malformed=False)
    click = replace(click, checks=(*click.checks, unwanted))
    rows = check_rows(conversion, relation, [click, user, item, times.value, position])
    select = (
        f"SELECT {user.name} AS user_id, {item.name} AS item_id, {times.value.name} AS time,\n"
        f"  {FILE} AS file, {LINE} AS line, {position.name} AS position\n"
        f"FROM {rows.kept}"
    )
    write_interactions(conversion, times, select, "file, line, position")


def _write_searches(conversion: SQLConversion, files: Files) -> None:
    asked = ["user_idx", "session_idx", "search_idx", "query", "query_from_type"]
    shown = ("note_idx", "position", "search_timestamp", _CLICK.column)
    relation = _attach(conversion, "search", files, asked, "search_result_details_with_idx", shown)
    times = read_times(conversion.engine, relation, TimeColumn("search_timestamp"))
    click, user, item, position = _common(relation)
    session, search = word(relation, "session_idx", "session"), word(relation, "search_idx", "search")
    missing = Check(is_blank(value_name("query")), "query is missing", column="query")
    query = Value(value_name("query"), plain_text(relation, "query"), (missing,))
    source = Value(value_name("source"), plain_text(relation, "query_from_type"))
    values = [click, user, session, search, query, source, item, times.value, position]
    rows = check_rows(conversion, relation, values)
    select = (
        f"SELECT {user.name} AS user_id, {times.value.name} AS time, {query.name} AS query, {item.name} AS item_id,\n"
        f"  concat_ws(' ', {session.name}, {search.name}, md5({query.name}), {source.name}) AS search_id,\n"
        f"  {click.name} AS clicked, {position.name} AS position, {source.name} AS source\n"
        f"FROM {rows.kept}"
    )
    write_searches(conversion, times, Query(text="query"), select)


def _common(relation: SourceTable) -> tuple[Value, Value, Value, Value]:
    """The values that both tables have: whether a note was clicked, the user, the note and the position.

    The first check is whether the request shows a note at all.
    """
    click = kept(relation, _CLICK, "click")
    click = replace(click, checks=(_SHOWS_NOTHING, *click.checks))
    user, item = word(relation, "user_idx", "user"), word(relation, "note_idx", "note")
    return click, user, item, number(relation, "position", "position")


def _attach(
    conversion: SQLConversion, name: str, files: Files, columns: list[str], shown: str, fields: tuple[str, ...]
) -> SourceTable:
    """Make a relation with a row for each note that a request shows; its line is that of the request.

    The ``fields`` of the entries of the list column ``shown`` become columns.  A request that shows nothing has one row
    in which these are empty and the column ``shown`` is false.

    Raises:
        DataError: a file is damaged or lacks one of the columns.
    """
    listed = ", ".join(map(identifier, columns))
    taken = ", ".join(f"note.{identifier(field)} AS {identifier(field)}" for field in fields)
    selects = []
    # One by one, because the lists of two tables may have different types.
    for number_of_file, path in enumerate(files.paths):
        part = attach(conversion.engine, f"{name}_{number_of_file}", Files((path,), "parquet"), [*columns, shown])
        _require_fields(part, shown, fields)
        notes = f"CASE WHEN len({identifier(shown)}) > 0 THEN {identifier(shown)} ELSE [NULL] END"
        selects.append(
            f"SELECT {number_of_file} AS {FILE}, {LINE}, {FAULT}, {TEXT}, {listed},\n"
            f"  note IS NOT NULL AS shown, {taken}\n"
            f"FROM (SELECT *, unnest({notes}) AS note FROM {part.name})"
        )
    conversion.engine.run(f"CREATE VIEW {name} AS " + "\nUNION ALL ".join(selects))
    types = dict(conversion.engine.ask(f"SELECT column_name, column_type FROM (DESCRIBE {name})"))
    return SourceTable(name, files, types)


def _require_fields(relation: SourceTable, column: str, fields: tuple[str, ...]) -> None:
    kind = relation.types[column]
    inner = re.fullmatch(r"STRUCT\((.*)\)\[\]", kind)
    present = re.findall(r'(?:^|, )"?(\w+)"? ', inner[1]) if inner else []
    missing = [field for field in fields if field not in present]
    if missing:
        problem = f"it is no list of structs with {', '.join(missing)}, but {kind}"
        raise DataError(relation.files.paths[0], problem, column=column)
