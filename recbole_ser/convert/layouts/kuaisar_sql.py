"""Reading KuaiSAR's tables with SQL; see `recbole_ser.convert.layouts.kuaisar`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recbole_ser.convert.engine import identifier
from recbole_ser.convert.layouts.kuaisar_files import INTERACTIONS, ITEMS, SEARCHES, USERS
from recbole_ser.convert.layouts.shown_items import whole, whole_list, write_searches
from recbole_ser.convert.raw_files import Files
from recbole_ser.convert.sql_conversion import SQLConversion
from recbole_ser.convert.table.attributes import convert_attributes
from recbole_ser.convert.table.checked_rows import CheckedRows, check_rows
from recbole_ser.convert.table.columns import (
    Check,
    Value,
    clean_text,
    kept,
    plain_text,
    sequence,
    value_name,
    word,
    words,
)
from recbole_ser.convert.table.interactions import write_interactions
from recbole_ser.convert.table.searches import DIFFERENT
from recbole_ser.convert.table.source import SourceTable, attach
from recbole_ser.convert.table.spec import Attribute, AttributeTable, Keep, ListColumn, Query, TimeColumn
from recbole_ser.convert.table.text_files import LINE, csv_header
from recbole_ser.convert.table.times import read_times

RECOMMENDED_TYPES = ("VIDEO", "IMAGE_ATLAS")

_CLICK = Keep("click", minimum=1)
_SHOWN_CLICK = Keep("click_cnt", minimum=1)
_USER_COLUMNS = ("search_active_level", "rec_active_level", "onehot_feat1", "onehot_feat2")
_ITEM_COLUMNS = ("author_id", "item_type")
_CATEGORY = "category_id"  # how the names of the columns of the four levels end


def write(paths: Mapping[str, Path | None], first_shown: bool, conversion: SQLConversion) -> None:
    """Write all atomic files from ``paths``, by the names of the tables; ``None`` for a table that is not there."""
    files = {name: Files((path,), "csv") for name, path in paths.items() if path is not None}
    _write_interactions(conversion, files[INTERACTIONS])
    _write_searches(conversion, files[SEARCHES], first_shown)
    if ITEMS in files:
        categories = [name for name in csv_header(files[ITEMS], files[ITEMS].paths[0]) if name.endswith(_CATEGORY)]
        _write_attributes(conversion, "item", files[ITEMS], [*_ITEM_COLUMNS, *categories], ["caption"])
    if USERS in files:
        _write_attributes(conversion, "user", files[USERS], [*_USER_COLUMNS], [])


def _write_interactions(conversion: SQLConversion, files: Files) -> None:
    relation = attach(conversion.engine, "rec_inter", files, ["user_id", "item_id", "timestamp", _CLICK.column])
    times = read_times(conversion.engine, relation, TimeColumn("timestamp", "ms"))
    user, item = whole(word(relation, "user_id", "user")), whole(word(relation, "item_id", "item"))
    rows = check_rows(conversion, relation, [user, item, times.value], _CLICK)
    select = (
        f"SELECT {user.name} AS user_id, {item.name} AS item_id, {times.value.name} AS time, {LINE} AS line\n"
        f"FROM {rows.kept}"
    )
    write_interactions(conversion, times, select, "line")


def _write_searches(conversion: SQLConversion, files: Files, first_shown: bool) -> None:
    time, session = "search_session_timestamp", "search_session_id"
    columns = ["user_id", session, time, "keyword", "search_source", "item_id", "item_type", _SHOWN_CLICK.column]
    relation = attach(conversion.engine, "src_inter", files, columns)
    times = read_times(conversion.engine, relation, TimeColumn(time, "ms"))
    user, search = whole(word(relation, "user_id", "user")), whole(word(relation, session, "session"))
    item, query = whole(word(relation, "item_id", "item", required=False)), _query(relation)
    source = Value(value_name("source"), clean_text(plain_text(relation, "search_source")))
    click, shown = kept(relation, _SHOWN_CLICK, "click"), kept(relation, Keep("item_type", RECOMMENDED_TYPES), "type")
    same = Value(value_name("same"), "true", (_one_query(user, search, query, source),))
    rows = check_rows(conversion, relation, [user, search, times.value, query, source, item, click, shown, same])
    _count_clicks(conversion, rows, click, shown, item)
    wanted = f"{shown.name} AND {item.name} IS NOT NULL"
    clicked = f"{click.name} AND {wanted}"
    if first_shown:
        same_search = f"OVER (PARTITION BY {user.name}, {search.name})"
        first = f"{LINE} = min({LINE}) FILTER (WHERE {wanted}) {same_search}"
        clicked = f"({clicked}) OR (NOT bool_or({clicked}) {same_search} AND coalesce({first}, false))"
    select = (
        f"SELECT {user.name} AS user_id, {search.name} AS search_id, {times.value.name} AS time,\n"
        f"  {query.name} AS query, {item.name} AS item_id, {clicked} AS clicked, {LINE} AS position,\n"
        f"  {source.name} AS source\n"
        f"FROM {rows.kept}"
    )
    write_searches(conversion, times, Query(terms=ListColumn("query")), select)


def _query(relation: SourceTable) -> Value:
    value = whole_list(words(relation, ListColumn("keyword", "json"), "query", "a query term"))
    missing = Check(f"len({value.name}) = 0", "query is missing", column="keyword")
    return Value(value.name, value.sql, (*value.checks, missing))


def _one_query(user: Value, search: Value, query: Value, source: Value) -> Check:
    """The check that a row has the same query and source as the first row of its search."""
    both = f"{sequence(query.name)} || '/' || coalesce({source.name}, '')"
    first = f"first_value({both} IGNORE NULLS) OVER (PARTITION BY {user.name}, {search.name} ORDER BY {LINE})"
    return Check(f"{both} <> {first}", DIFFERENT, both, hint="does an id stand for two sessions?")


def _count_clicks(conversion: SQLConversion, rows: CheckedRows, click: Value, shown: Value, item: Value) -> None:
    counts = conversion.count("clicked rows of src_inter")
    clicked, kept_rows, without = conversion.engine.ask(
        f"SELECT count(*), count(*) FILTER (WHERE {shown.name} AND {item.name} IS NOT NULL),\n"
        f"  count(*) FILTER (WHERE {shown.name} AND {item.name} IS NULL)\n"
        f"FROM {rows.kept} WHERE {click.name}"
    )[0]
    counts.rows_in, counts.rows_out = clicked, kept_rows
    counts.reject("item is missing", without)
    counts.reject(f"item_type is not {' or '.join(RECOMMENDED_TYPES)}", clicked - kept_rows - without)


def _write_attributes(
    conversion: SQLConversion, entity: str, files: Files, tokens: list[str], lists: list[str]
) -> None:
    name, key = f"{entity}_features", f"{entity}_id"
    relation = attach(conversion.engine, name, files, [key, *tokens, *lists])
    values = {key: whole(word(relation, key, entity))}
    for column in tokens:
        values[column] = whole(Value(value_name(column), clean_text(plain_text(relation, column))))
    for column in lists:
        values[column] = whole_list(words(relation, ListColumn(column, "json"), column, f"an entry of {column}"))
    rows = check_rows(conversion, relation, list(values.values()))
    columns = ", ".join(f"{value.name} AS {identifier(column)}" for column, value in values.items())
    staged = conversion.stage(name, f"SELECT {columns} FROM {rows.kept}")
    attributes = {column: Attribute("token", column) for column in tokens}
    attributes |= {column: Attribute("token_seq", column) for column in lists}
    convert_attributes(conversion, AttributeTable(staged, key, attributes), entity, True)
