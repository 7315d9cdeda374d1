"""The search log: from its files to ``X.search`` and ``X.query``."""

from __future__ import annotations

from dataclasses import replace

from recbole_ser.atomic.rules import no_common_items
from recbole_ser.atomic.schema import CLICK_TIMES, CLICKED_ITEMS, PADDING, QUERY_ID, SOURCE, TERMS, TIMESTAMP, USER_ID
from recbole_ser.convert.engine import literal
from recbole_ser.convert.sql_conversion import SQLConversion
from recbole_ser.convert.table.checked_rows import (
    DUPLICATE,
    REASON,
    CheckedRows,
    check_rows,
    columns_of,
    move_out,
    reject_malformed,
    require_rows,
)
from recbole_ser.convert.table.columns import (
    Check,
    Value,
    clean_text,
    is_blank,
    kept,
    number,
    plain_text,
    sequence,
    value_name,
    word,
    words,
)
from recbole_ser.convert.table.interactions import INTERACTION_EVENTS
from recbole_ser.convert.table.source import SourceTable, attach
from recbole_ser.convert.table.spec import ClickRows, ListColumn, Query, SearchLog
from recbole_ser.convert.table.times import describe_times, read_times
from recbole_ser.text.words import normalised, query_terms

SEARCH_EVENTS = "search_events"
DIFFERENT = "rows of one search differ in query or source"

_NOTHING = "CAST(NULL AS VARCHAR)"
_NO_TIMES = "CAST(NULL AS BIGINT[])"
_QUERY_ID_DIGITS = 20  # of MD5, in base 16: two of a hundred million queries share one once in 10^8 conversions


def convert_searches(conversion: SQLConversion, log: SearchLog, deduplicate: bool) -> None:
    """Write ``X.search``, sorted by (user, time, query, clicks, source), and ``X.query`` where there is text.

    Where clicks have rows of their own and some are later than their search, ``X.search`` also has the times of the
    clicks: a history must not show a click before its time.  The view `SEARCH_EVENTS` is left for later steps, with
    the columns ``user_id``, ``time`` in nanoseconds, ``query_id``, ``query_text``, ``source``, ``clicked_items`` (a
    list separated by spaces) and ``click_times`` (a list of nanoseconds).

    Raises:
        DataError: a file is damaged, a row is malformed (unless such rows are skipped), or no row is left.
    """
    relation = attach(conversion.engine, "searches", log.files, _columns(log))
    times = read_times(conversion.engine, relation, log.time)
    values = [word(relation, log.user, "user"), times.value, *_query_values(relation, log.query)]
    values += _click_values(relation, log.clicks)
    if log.source is not None:
        values.append(Value(value_name("source"), clean_text(plain_text(relation, log.source))))
    rows = check_rows(conversion, relation, values, log.keep)
    grouped = isinstance(log.clicks, ClickRows) and log.clicks.search is not None
    later_clicks = False
    if grouped:
        later_clicks = _group(conversion, relation, log, deduplicate, rows)
    else:
        _one_row_each(conversion, log, deduplicate, rows)
    queries = _write_queries(conversion, log.query)
    _write_searches(conversion, log, later_clicks)
    fits = "fits_seconds(time) AND coalesce(list_bool_and([fits_seconds(x) for x in click_times]), true)"
    told = "search_facts"
    conversion.engine.rows(told, SEARCH_EVENTS, f"SELECT time, {fits} AS fits FROM {SEARCH_EVENTS}")
    question = f"SELECT count(*), min(time), max(time), bool_and(fits) FROM {told}"
    searches, first, last, all_fit = conversion.engine.ask(question)[0]
    if not grouped:
        move_out(rows.counts, DUPLICATE, rows.counts.rows_out - searches)
    conversion.sizes |= {"search_events": searches, "queries": queries}
    conversion.times["searches"] = describe_times(times, first, last)
    conversion.in_seconds &= all_fit
    if log.clicks is not None:
        _warn_of_unknown_clicks(conversion)


def _columns(log: SearchLog) -> list[str]:
    query, clicks = log.query, log.clicks
    terms = None if query.terms is None else query.terms.column
    found: list[str | None] = [log.user, log.time.column, query.id, query.text, terms, log.source]
    found += columns_of(log.keep)
    if isinstance(clicks, ClickRows):
        found += [clicks.item, clicks.search, clicks.position, *columns_of(clicks.keep)]
    elif clicks is not None:
        found.append(clicks.column)
    return [column for column in found if column is not None]


def _query_values(relation: SourceTable, query: Query) -> list[Value]:
    """The query's id, text or terms.  Without an id the text or terms must not be empty: they tell queries apart."""
    values = [] if query.id is None else [word(relation, query.id, "query id")]
    if query.text is not None:
        name = value_name("query text")
        missing = Check(is_blank(name), "query is missing", column=query.text)
        values.append(Value(name, plain_text(relation, query.text), () if query.id else (missing,)))
    elif query.terms is not None:
        value = words(relation, query.terms, "query", "a query term")
        missing = Check(f"len({value.name}) = 0", "query is missing", column=query.terms.column)
        values.append(value if query.id else replace(value, checks=(*value.checks, missing)))
    return values


def _click_values(relation: SourceTable, clicks: ListColumn | ClickRows | None) -> list[Value]:
    if clicks is None:
        return []
    if isinstance(clicks, ListColumn):
        value = words(relation, clicks, "clicked items", "a clicked item")
        reserved = f"list_contains({value.name}, {literal(PADDING)})"
        check = Check(reserved, "a clicked item is the id of padding", literal(PADDING), clicks.column)
        return [replace(value, checks=(*value.checks, check))]
    values = [word(relation, clicks.item, "item", required=False)]
    if clicks.keep is not None:
        values.append(kept(relation, clicks.keep, "click"))
    if clicks.position is not None:
        values.append(number(relation, clicks.position, "position"))
    if clicks.search is not None:
        name = value_name("search")
        missing = Check(f"{name} IS NULL", "search id is missing", column=clicks.search)
        values.append(Value(name, plain_text(relation, clicks.search), (missing,)))
    return values


def _event_values(log: SearchLog) -> dict[str, str]:
    """SQL expressions that read the values of a search, except its clicks, from a row."""
    query = log.query
    text = value_name("query text") if query.text else sequence(value_name("query")) if query.terms else _NOTHING
    return {
        "user_id": value_name("user"),
        "time": value_name("time"),
        "query_id": value_name("query id") if query.id else _NOTHING,
        "query_text": text,
        "source": value_name("source") if log.source else _NOTHING,
    }


def _clicked(clicks: ListColumn | ClickRows | None) -> str:
    """An SQL expression for the items that were clicked according to a row; NULL: none."""
    if clicks is None:
        return _NOTHING
    if isinstance(clicks, ListColumn):
        return sequence(value_name("clicked items"))
    item = value_name("item")
    return f"CASE WHEN {value_name('click')} THEN {item} END" if clicks.keep else item


def _one_row_each(conversion: SQLConversion, log: SearchLog, deduplicate: bool, rows: CheckedRows) -> None:
    values = {**_event_values(log), "clicked_items": _clicked(log.clicks), "click_times": _NO_TIMES}
    conversion.engine.run(
        f"CREATE VIEW {SEARCH_EVENTS} AS SELECT {'DISTINCT ' * deduplicate}{_named(values)}\nFROM {rows.kept}"
    )


def _group(
    conversion: SQLConversion, relation: SourceTable, log: SearchLog, deduplicate: bool, rows: CheckedRows
) -> bool:
    """Make one search of all rows with the same user and search id: the earliest time, and the clicks in their order.

    ``search_groups`` has a row for each search.  Where its rows do not agree on the query or the source (``differ``),
    all of them are rejected.  The counts say afterwards what became of the rows and of the items shown in them.

    Returns:
        Whether a click is later than its search.
    """
    engine, counts, clicks = conversion.engine, rows.counts, log.clicks
    assert isinstance(clicks, ClickRows)
    values = {**_event_values(log), "search": value_name("search"), "item": value_name("item")}
    values["clicked"] = _clicked(clicks)
    values["position"] = value_name("position") if clicks.position else "CAST(NULL AS DOUBLE)"
    same = ("query_id", "query_text", "source")
    engine.run(
        f"CREATE TABLE search_groups AS SELECT user_id, search, min(time) AS time,\n"
        f"  {', '.join(f'min({name}) AS {name}' for name in same)},\n"
        f"  list({{'position': position, 'time': time, 'item': clicked}}) FILTER (WHERE clicked IS NOT NULL) AS rows,\n"
        f"  coalesce(max(time) FILTER (WHERE clicked IS NOT NULL) > min(time), false) AS later_click,\n"
        f"  count(*) AS all_rows, count(item) AS items, count(clicked) AS clicks,\n"
        f"  {' OR '.join(f'coalesce(min({name}) <> max({name}), false)' for name in same)} AS differ\n"
        f"FROM (SELECT {'DISTINCT ' * deduplicate}{_named(values)}\n"
        f"  FROM {rows.kept})\n"
        f"GROUP BY user_id, search"
    )
    in_order = "list_sort(rows, 'ASC', 'NULLS LAST')"
    engine.rows(
        SEARCH_EVENTS,
        "search_groups",
        f"SELECT user_id, time, {', '.join(same)},\n"
        f"  {sequence('[x.item for x in clicked]')} AS clicked_items, [x.time for x in clicked] AS click_times\n"
        f"FROM (SELECT *, {in_order} AS clicked FROM search_groups WHERE NOT differ)",
    )
    question = "coalesce(sum({}) FILTER (WHERE {}), 0)".format
    totals = [question("all_rows", "true"), question("all_rows", "differ")]
    totals += [question(column, "NOT differ") for column in ("all_rows", "items", "clicks")]
    distinct, differing, shown, items, clicked = map(
        int, engine.ask(f"SELECT {', '.join(totals)} FROM search_groups")[0]
    )
    move_out(counts, DUPLICATE, counts.rows_out - distinct)
    if differing:
        counts.rows_out -= differing
        place = f"EXISTS (SELECT 1 FROM search_groups WHERE differ AND user_id = {value_name('user')} "
        where = f"{REASON} IS NULL AND {place} AND search = {value_name('search')})"
        reject_malformed(conversion, relation, rows.every, counts, where, DIFFERENT, differing)
        require_rows(relation, counts)
    account = conversion.count("items shown under searches")
    account.rows_in, account.rows_out = shown, clicked
    account.reject("no item", shown - items)
    account.reject("not clicked", items - clicked)
    return bool(engine.ask("SELECT coalesce(bool_or(later_click AND NOT differ), false) FROM search_groups")[0][0])


def _write_queries(conversion: SQLConversion, query: Query) -> int:
    """Write ``X.query``, if there is text or terms, and return the number of queries."""
    engine = conversion.engine
    if query.text is None and query.terms is None:
        return int(engine.ask(f"SELECT count(DISTINCT query_id) FROM {SEARCH_EVENTS}")[0][0])
    text, terms = "query_text", "query_text"
    if query.text is not None:
        engine.define("normalised", normalised, "VARCHAR")
        engine.define("query_terms", query_terms, "VARCHAR[]")
        text, terms = "normalised(query_text)", "array_to_string(query_terms(query_text), ' ')"
    engine.run(f"CREATE VIEW searched AS SELECT DISTINCT query_id, query_text FROM {SEARCH_EVENTS}")
    engine.rows(
        "queries",
        "searched",
        f"SELECT coalesce(query_id, left(md5({text}), {_QUERY_ID_DIGITS})) AS query_id,\n"
        f"  query_text, nullif({terms}, '') AS terms\n"
        f"FROM searched",
        stored=True,
    )
    chosen = "(SELECT query_id, min(terms) AS terms FROM queries GROUP BY query_id)"
    counts = conversion.count("texts of queries")
    counts.rows_in = int(engine.ask("SELECT count(*) FROM queries")[0][0])
    counts.rows_out = engine.write({QUERY_ID: "query_id", TERMS: "terms"}, chosen, "query_id", conversion.path("query"))
    reason = "another text of the query" if query.id else "the same query after normalisation"
    counts.reject(reason, counts.rows_in - counts.rows_out)
    return counts.rows_out


def _write_searches(conversion: SQLConversion, log: SearchLog, click_times: bool) -> None:
    events = SEARCH_EVENTS
    if log.query.id is None:
        ids = "(SELECT query_id AS id, query_text AS text FROM queries)"
        wanted = "id AS query_id, user_id, time, clicked_items, click_times, source"
        events = f"(SELECT {wanted} FROM {SEARCH_EVENTS} JOIN {ids} ON query_text = text)"
    columns = {USER_ID: "user_id", QUERY_ID: "query_id", TIMESTAMP: "time_text(time)", CLICKED_ITEMS: "clicked_items"}
    if click_times:
        columns[CLICK_TIMES] = "array_to_string([time_text(x) for x in click_times], ' ')"
    if log.source is not None:
        columns[SOURCE] = "source"
    conversion.write_later("search", columns, events, "user_id, time, query_id, clicked_items, click_times, source")


def _warn_of_unknown_clicks(conversion: SQLConversion) -> None:
    """Warn if no clicked item has an interaction: the two logs may write ids in different ways."""
    clicked = f"SELECT DISTINCT unnest(string_split(clicked_items, ' ')) AS item_id FROM {SEARCH_EVENTS}"
    known = f"SELECT DISTINCT item_id, true AS known FROM {INTERACTION_EVENTS}"
    question = f"SELECT count(*), count(known), min(item_id) FROM ({clicked}) LEFT JOIN ({known}) USING (item_id)"
    items, shared, example = conversion.engine.ask(question)[0]
    if items and not shared:
        other = conversion.engine.ask(f"SELECT min(item_id) FROM {INTERACTION_EVENTS}")[0][0]
        conversion.warnings.append(no_common_items(items, example, other))


def _named(values: dict[str, str]) -> str:
    return ", ".join(f"{sql} AS {name}" for name, sql in values.items())
