"""What the search logs of known layouts have in common: a row for each shown item, and ids that became floats."""

from __future__ import annotations

from dataclasses import replace

from recbole_ser.convert.sql_conversion import SQLConversion
from recbole_ser.convert.table.columns import Value
from recbole_ser.convert.table.searches import convert_searches
from recbole_ser.convert.table.spec import ClickRows, Keep, Query, SearchLog, TimeColumn
from recbole_ser.convert.table.times import Times

_WHOLE_FLOAT = r"'^(-?[0-9]+)\.0+$', '\1'"


def write_searches(conversion: SQLConversion, times: Times, query: Query, select: str) -> None:
    """Write ``X.search`` and ``X.query``.

    Args:
        times: how the times of the log were read.
        query: the column of ``select`` that has the text or the terms of the query.
        select: SQL that gives a row for each shown item: ``user_id``, ``search_id``, ``time`` in nanoseconds, the
            query, ``item_id`` (NULL: none), ``clicked`` (boolean), ``position`` among the clicks, and ``source``.
            Query and source are the same in all rows of one search.
    """
    log = SearchLog(
        conversion.stage("searches", select), "user_id", TimeColumn("time", "ns"), query,
        ClickRows("item_id", "search_id", Keep("clicked", ("true",)), "position"), "source",
    )  # fmt: skip
    convert_searches(conversion, log, False)
    conversion.times["searches"] |= {"unit": times.unit, "inferred": times.inferred}


def whole(value: Value) -> Value:
    """The value without the ``.0`` of whole numbers that were once stored as floats."""
    return replace(value, sql=f"regexp_replace({value.sql}, {_WHOLE_FLOAT})")


def whole_list(value: Value) -> Value:
    """Like `whole`, for the entries of a list."""
    return replace(value, sql=f"[regexp_replace(x, {_WHOLE_FLOAT}) for x in {value.sql}]")
