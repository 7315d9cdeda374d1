"""Reading times in any unit as nanoseconds since 1970; `SQLConversion` writes them in the end.

They are 64-bit integers, since doubles would lose digits: a time of today in nanoseconds needs 61 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import pyarrow.parquet as pq

from recbole_ser.convert.engine import Engine, identifier
from recbole_ser.convert.table.columns import Check, Value, plain_text, value_name
from recbole_ser.convert.table.source import SourceTable
from recbole_ser.convert.table.spec import TimeColumn, Unit
from recbole_ser.errors import DataError

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
SECOND = 10**9
END = 7_258_118_400  # the beginning of the year 2200, in seconds
_TYPED = "timestamp"
# Below this many seconds (March 1973) a number does not reveal its unit: it may be seconds, or a counter.
_FIRST_TELLING = 10**8
# Finer units are told from times since September 2001: earlier milliseconds may be a date, YYYYMMDDHHMM.
_FIRST_FINE = 10**9
# A number of seconds from 2033 to 2036 may be a date as well, YYYYMMDDHH.
_DATE_AND_HOUR = "20[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])"
_FINEST = {"s": 9, "ms": 6, "us": 3, "ns": 0, "iso": 9}  # decimals that are whole nanoseconds


@dataclass(frozen=True)
class Times:
    """A column of times.

    Args:
        value: the times as BIGINT, nanoseconds since 1970; NULL where the time is missing or unreadable.
        unit: ``s``, ``ms``, ``us``, ``ns``, ``iso``, or ``timestamp`` if the column has a type of times.
        inferred: whether the unit was inferred from the values.
    """

    value: Value
    unit: str
    inferred: bool


def read_times(engine: Engine, relation: SourceTable, column: TimeColumn) -> Times:
    """Find out how to read a column of times.

    Without a declared unit all values are looked at: the unit is the one that puts most of them between March 1973
    (September 2001 for units finer than seconds) and 2200.  A time before 1973 is then as wrong as one after that span,
    since it may have another unit.

    Raises:
        DataError: the unit cannot be inferred, or the column's type and the declared unit exclude each other.
    """
    path, kind = relation.files.paths[0], relation.types[column.column]
    if kind.startswith(("TIMESTAMP", "DATE")):
        if column.unit not in (None, "iso"):
            raise DataError(path, f"the type is {kind}, not a number: leave out the unit", column=column.column)
        if kind == "TIMESTAMP WITH TIME ZONE" and "[ns" in str(pq.read_schema(path).field(column.column).type):
            hint = "update DuckDB to version 2, or write the column without a time zone"
            raise DataError(path, "this DuckDB rounds the times to microseconds", column=column.column, hint=hint)
        return _times(relation, column.column, _TYPED, False, _typed_nanoseconds(column.column, kind), 0)
    if kind == "FLOAT":
        hint = "write the column with 64 bits"
        raise DataError(path, "32-bit floats step by 128 s at today's times", column=column.column, hint=hint)
    unit = column.unit or _infer(engine, relation, column.column)
    if unit == "iso":
        text = plain_text(relation, column.column)
        return _times(relation, column.column, unit, column.unit is None, _iso_nanoseconds(text), 0)
    first = 0 if column.unit else _FIRST_TELLING
    return _times(relation, column.column, unit, column.unit is None, _number(relation, column.column, unit), first)


def describe_times(times: Times, first: int, last: int) -> dict[str, Any]:
    """What the manifest says about a column of times, the ``first`` and ``last`` of which are in nanoseconds."""
    return {"unit": times.unit, "inferred": times.inferred, "first": _date(first), "last": _date(last)}


def _date(nanoseconds: int) -> str:
    moment = datetime(1970, 1, 1) + timedelta(seconds=nanoseconds // 10**9)
    return f"{moment.isoformat()}Z"


def _times(relation: SourceTable, column: str, unit: str, inferred: bool, nanoseconds: str, first: int) -> Times:
    """The times with checks that they can be read and lie between ``first``, in seconds, and 2200."""
    name, text = value_name("time"), plain_text(relation, column)
    checks = [Check(f"{text} IS NULL", "time is missing", column=column)]
    if unit == "iso":
        reason, hint = "time is not ISO 8601 text", "declare the unit of numbers: s, ms, us or ns"
        checks.append(Check(f"iso_moment({text}) IS NULL", reason, text, column, hint))
    elif unit != _TYPED:
        reason, hint = "time is not a number", "ISO 8601 text has the unit iso"
        checks.append(Check(f"TRY_CAST({text} AS DOUBLE) IS NULL", reason, text, column, hint))
    if unit in _FINEST and not relation.types[column].endswith(("INT", "INTEGER", "DOUBLE")):
        end = "" if unit == "iso" else "[0-9]*$"  # behind an exponent the digits say something else
        finer = f"regexp_matches({text}, '[.,][0-9]{{{_FINEST[unit]}}}[0-9]*[1-9]{end}')"
        hint = "round it: nothing finer is kept"
        checks.append(Check(finer, "time is finer than a nanosecond", text, column, hint))
    if unit in PER_SECOND and relation.types[column] == "JSON":
        rounded = f"json_type({identifier(column)}) = 'DOUBLE' AND abs(TRY_CAST({text} AS DOUBLE)) >= {2**53}"
        hint = "write it without a decimal point, or as text"
        checks.append(Check(rounded, "so long a number is exact in JSON only if it is whole", text, column, hint))
    since = "March 1973" if first else "1970"
    how = "" if unit in ("iso", _TYPED) else f" in {unit}, as most times are" if inferred else f" in {unit}"
    beyond = f"coalesce({name} NOT BETWEEN {first * SECOND} AND {END * SECOND - 1}, true)"
    hint = "declare the unit if it is another one, or correct the time"
    checks.append(Check(beyond, f"time is not between {since} and 2200{how}", text, column, hint))
    return Times(Value(name, nanoseconds, tuple(checks)), unit, inferred)


def _typed_nanoseconds(column: str, kind: str) -> str:
    name = identifier(column)
    if kind in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):
        return f"epoch_ns({name})"
    return _scaled(f"epoch_us(CAST({name} AS TIMESTAMP))", "0")


def _iso_nanoseconds(text: str) -> str:
    fraction = f"CAST(rpad(regexp_extract({text}, '[.,]([0-9]+)', 1), 9, '0') AS BIGINT)"
    return _scaled(f"epoch_us(iso_moment({text}))", fraction)


def _scaled(microseconds: str, fraction: str) -> str:
    """SQL of microseconds as nanoseconds, plus a fraction in nanoseconds; NULL where 64 bits may not hold them."""
    return f"CASE WHEN {microseconds} BETWEEN 0 AND {END * 10**6} THEN {microseconds} * 1000 + {fraction} END"


def _number(relation: SourceTable, column: str, unit: str) -> str:
    """SQL of a column of numbers as nanoseconds, exact if a value has at most nine decimals; NULL if it is far off."""
    name, kind, factor = identifier(column), relation.types[column], SECOND // PER_SECOND[unit]
    limit = END * PER_SECOND[unit]
    if kind.endswith(("INT", "INTEGER")):
        return f"CASE WHEN {name} BETWEEN 0 AND {limit} THEN TRY_CAST({name} AS BIGINT) * {factor} END"
    exact = f"TRY_CAST({plain_text(relation, column)} AS DECIMAL(28, 9))"
    nanoseconds = f"CASE WHEN {exact} BETWEEN 0 AND {limit} THEN TRY_CAST({exact} * {factor} AS BIGINT) END"
    if kind != "DOUBLE":
        return nanoseconds
    whole = f"{name} = floor({name}) AND {name} BETWEEN 0 AND {limit}"
    return f"CASE WHEN {whole} THEN TRY_CAST({name} AS BIGINT) * {factor} ELSE {nanoseconds} END"


def _infer(engine: Engine, relation: SourceTable, column: str) -> Unit:
    """The unit that most values have."""
    text = plain_text(relation, column)
    is_number = relation.types[column].endswith(("INT", "INTEGER", "DOUBLE"))
    value = f"CAST({identifier(column)} AS DOUBLE)" if is_number else f"TRY_CAST({text} AS DOUBLE)"
    units = {
        unit: f"{value} >= {(_FIRST_TELLING if unit == 's' else _FIRST_FINE) * scale} AND {value} < {END * scale}"
        for unit, scale in PER_SECOND.items()
    }
    units["iso"] = "false" if is_number else f"iso_moment({text}) IS NOT NULL"
    late = f"{value} BETWEEN 2e9 AND 2.1e9"  # only these are looked at closely
    dates = f"CASE WHEN {late} THEN regexp_full_match({text}, '{_DATE_AND_HOUR}') END"
    values = [f"{sql} AS is_{name}" for name, sql in {**units, "date": dates}.items()]
    told = f"{relation.name}_units"
    engine.rows(told, relation.name, f"SELECT {', '.join(values)} FROM {relation.name} WHERE {text} IS NOT NULL")
    counts = ", ".join(f"count(*) FILTER (WHERE is_{name})" for name in [*units, "date"])
    total, *found, as_dates = engine.ask(f"SELECT count(*), {counts} FROM {told}")[0]
    numbers = dict(zip(units, found))
    unit = max(numbers, key=numbers.__getitem__)
    if total and 2 * (numbers[unit] - as_dates * (unit == "s")) <= total:
        raise DataError(
            relation.files.paths[0], "the unit of the times cannot be told from them", column=column,
            hint="declare it: {column: ..., unit: s}, or ms, us, ns, iso; dates are text like 2023-11-14T22:13",
        )  # fmt: skip
    return cast(Unit, unit)
