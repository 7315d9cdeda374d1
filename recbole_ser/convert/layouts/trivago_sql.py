"""Reading the log of the RecSys Challenge 2019 with SQL; see `recbole_ser.convert.layouts.trivago`."""

from __future__ import annotations

from dataclasses import replace

from recbole_ser.convert.engine import literal
from recbole_ser.convert.layouts.shown_items import write_searches
from recbole_ser.convert.raw_files import Files
from recbole_ser.convert.sql_conversion import SQLConversion
from recbole_ser.convert.table.checked_rows import check_rows
from recbole_ser.convert.table.columns import Check, Value, is_blank, number, plain_text, value_name, word
from recbole_ser.convert.table.interactions import write_interactions
from recbole_ser.convert.table.source import SourceTable, attach
from recbole_ser.convert.table.spec import Keep, Query, TimeColumn
from recbole_ser.convert.table.text_files import FILE, LINE
from recbole_ser.convert.table.times import Times, read_times
from recbole_ser.errors import DataError

CLICKOUT = "clickout item"
LOOKS = tuple(f"interaction item {kind}" for kind in ("deals", "image", "info", "rating"))
SEARCHES = tuple(f"search for {kind}" for kind in ("destination", "item", "poi"))

_ORDER = "time, step, file, line"
_REPEAT = "the same item as before"


def write(files: Files, keep_repeats: bool, conversion: SQLConversion) -> None:
    """Write all atomic files."""
    action = Keep("action_type", (*SEARCHES, *LOOKS, CLICKOUT))
    engine = conversion.engine
    relation = attach(engine, "log", files, ["user_id", "session_id", "timestamp", "step", action.column, "reference"])
    times = read_times(engine, relation, TimeColumn("timestamp", "s"))
    user, session = word(relation, "user_id", "user"), word(relation, "session_id", "session")
    step, reference = _step(relation), _reference(relation)
    kind = Value(value_name("action"), plain_text(relation, action.column))
    rows = check_rows(conversion, relation, [user, session, times.value, step, reference, kind], action)
    engine.run(
        f"CREATE TABLE events AS SELECT {user.name} AS user_id, {session.name} AS session,\n"
        f"  {times.value.name} AS time, {step.name} AS step, {FILE} AS file, {LINE} AS line,\n"
        f"  {reference.name} AS reference, {kind.name} AS action,\n"
        f"  starts_with(action, 'search') AS is_search, action = {literal(CLICKOUT)} AS is_clickout,\n"
        f"  count(*) FILTER (WHERE is_search) OVER (PARTITION BY {user.name}, session ORDER BY {_ORDER}) AS search\n"
        f"FROM {rows.kept}"
    )
    engine.run(f"CREATE TABLE item_events AS {_marked('NOT is_search', 'user_id', f'time, session, {_ORDER}')}")
    engine.run(f"CREATE TABLE clickouts AS {_marked('is_clickout AND search > 0', 'user_id, session, search', _ORDER)}")
    _count(conversion, files, keep_repeats)
    wanted = "true" if keep_repeats else "NOT repeats"
    select = f"SELECT user_id, reference AS item_id, * EXCLUDE (user_id, reference) FROM item_events WHERE {wanted}"
    write_interactions(conversion, times, select, f"session, {_ORDER}")
    _write_searches(conversion, times, wanted)


def _write_searches(conversion: SQLConversion, times: Times, wanted: str) -> None:
    """Write the searches with those clickouts for which ``wanted`` is true."""
    shown = (
        f"SELECT user_id, session, search, time, step, file, line, reference, action, true AS clicked FROM clickouts\n"
        f"WHERE {wanted} UNION ALL\n"
        f"SELECT user_id, session, search, time, step, file, line, reference, action, false FROM events WHERE is_search"
    )
    search = f"OVER (PARTITION BY user_id, session, search ORDER BY {_ORDER})"
    select = (
        f"SELECT user_id, session || ' ' || search AS search_id, time,\n"
        f"  CASE WHEN clicked THEN reference END AS item_id, clicked,\n"
        f"  row_number() {search} AS position, first_value(reference) {search} AS query,\n"
        f"  replace(first_value(action) {search}, 'search for ', '') AS source\n"
        f"FROM ({shown})"
    )
    write_searches(conversion, times, Query(text="query"), select)


def _step(relation: SourceTable) -> Value:
    value = number(relation, "step", "step")
    return replace(value, checks=(*value.checks, Check(f"{value.name} IS NULL", "step is missing", column="step")))


def _reference(relation: SourceTable) -> Value:
    """The text of a search or the id of an item."""
    name, text = value_name("reference"), plain_text(relation, "reference")
    of_item = f"NOT starts_with({plain_text(relation, 'action_type')}, 'search')"
    not_number = f"{of_item} AND NOT regexp_full_match({name}, '[0-9]+')"
    hint = "an item is known by its number"
    checks = (
        Check(is_blank(name), "no reference", malformed=False),  # a clickout that was to be predicted
        Check(f"{of_item} AND {name} = 'unknown'", "the item is unknown", malformed=False),
        Check(not_number, "reference is not an item", name, "reference", hint),
    )
    return Value(name, text, checks)


def _marked(which: str, partition: str, order: str) -> str:
    """SQL of the events for which ``which`` is true; ``repeats`` marks those with the item of the event before."""
    before = f"lag(reference) OVER (PARTITION BY {partition} ORDER BY {order})"
    return f"SELECT *, coalesce(reference = {before}, false) AS repeats FROM events WHERE {which}"


def _count(conversion: SQLConversion, files: Files, keep_repeats: bool) -> None:
    """Account for interactions and clickouts.

    Raises:
        DataError: there are no interactions, or no searches.
    """
    question = "SELECT count(*) FILTER (WHERE NOT is_search), count(*) FILTER (WHERE is_clickout), "
    items, clickouts, searches = conversion.engine.ask(f"{question} count(*) FILTER (WHERE is_search) FROM events")[0]
    if not items or not searches:
        raise DataError(files.paths[0], f"there is no {'search' if items else 'interaction'} in the log")
    for source, table, rows in [("interactions", "item_events", items), ("clickouts", "clickouts", clickouts)]:
        counts = conversion.count(source)
        found, repeats = conversion.engine.ask(f"SELECT count(*), count(*) FILTER (WHERE repeats) FROM {table}")[0]
        counts.rows_in, counts.rows_out = rows, found - repeats * (not keep_repeats)
        counts.reject("no search before it in its session", rows - found)
        counts.reject(_REPEAT, found - counts.rows_out)
