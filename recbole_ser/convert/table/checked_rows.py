"""Rows of a log with what they are read as and why they are left out, and the account of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_ser.convert.engine import literal
from recbole_ser.convert.raw_lines import BadRow, RowCounts
from recbole_ser.convert.sql_conversion import SQLConversion
from recbole_ser.convert.table.columns import Check, Value, kept
from recbole_ser.convert.table.source import SourceTable
from recbole_ser.convert.table.spec import Keep
from recbole_ser.convert.table.text_files import FAULT, FILE, LINE, TEXT
from recbole_ser.errors import DataError

REASON, VALUE = "_reason", "_value"
DUPLICATE = "another row is equal to it"

_EXAMPLES = 3
_HINT = "correct the file, or leave such rows out: recbole-ser convert ... --on-error skip"


@dataclass(frozen=True)
class CheckedRows:
    """The rows of a log after every one was looked at.

    Args:
        counts: what became of them, as far as it is known.
        every: relation of all rows: their columns, their values, `REASON` (of the first check that keeps a row out;
            NULL: none does) and `VALUE` (what is wrong with a malformed one).
        kept: relation of the rows without a reason, with their columns and values.
    """

    counts: RowCounts
    every: str
    kept: str


def check_rows(
    conversion: SQLConversion, relation: SourceTable, values: Sequence[Value], keep: Keep | None = None
) -> CheckedRows:
    """Account for all rows of ``relation``, read as ``values``.

    Raises:
        DataError: a malformed row, unless such are skipped, or no row to keep.
    """
    checks = [check for value in values for check in value.checks]
    if keep is not None:
        decision = kept(relation, keep, "kept row")
        unwanted = Check(f"NOT {decision.name}", f"{keep.column} is not one to keep", malformed=False)
        values, checks = [decision, *values], [*decision.checks, unwanted, *checks]
    columns = ",\n  ".join(f"{value.sql} AS {value.name}" for value in values)
    rows = f"(SELECT *,\n  {columns}\nFROM {relation.name})"
    every = _every_row(conversion, relation, rows, checks)
    counts, reasons = _account(conversion, relation, every, checks)
    if not counts.rows_out:
        listed = "; ".join(f"{reason}: {number:,}" for reason, number in sorted(counts.rejected.items()))
        raise DataError(relation.files.paths[0], f"no row of {counts.rows_in:,} is left ({listed or 'it is empty'})")
    return CheckedRows(counts, every, _kept_rows(conversion, relation, rows, checks, reasons))


def _every_row(conversion: SQLConversion, relation: SourceTable, rows: str, checks: Sequence[Check]) -> str:
    reasons = "\n  ".join(f"WHEN {check.condition} THEN {literal(check.reason)}" for check in checks)
    wrong = "\n  ".join(f"WHEN {check.condition} THEN {check.value}" for check in checks)
    name = f"{relation.name}_rows"
    conversion.engine.run(
        f"CREATE VIEW {name} AS SELECT *,\n"
        f"  CASE WHEN {FAULT} IS NOT NULL THEN {FAULT}\n  {reasons} END AS {REASON},\n"
        f"  CASE WHEN {FAULT} IS NOT NULL THEN {TEXT}\n  {wrong} END AS {VALUE}\n"
        f"FROM {rows}"
    )
    return name


def _kept_rows(
    conversion: SQLConversion, relation: SourceTable, rows: str, checks: Sequence[Check], reasons: set[str]
) -> str:
    """The rows that no check keeps out; checks that none failed, most of them as a rule, are not made again."""
    failed = [check.condition for check in checks if check.reason in reasons]
    if reasons - {check.reason for check in checks}:
        failed = [f"{FAULT} IS NOT NULL", *failed]
    if failed:
        cases = "\n  ".join(f"WHEN {condition} THEN false" for condition in failed)
        rows = f"(SELECT *,\n  CASE {cases} ELSE true END AS _keep\nFROM {rows}) WHERE _keep"
    name = f"{relation.name}_kept"
    conversion.engine.run(f"CREATE VIEW {name} AS SELECT * FROM {rows}")
    return name


def _account(
    conversion: SQLConversion, relation: SourceTable, every: str, checks: Sequence[Check]
) -> tuple[RowCounts, set[str]]:
    """Count rows by reason; those without one are rows out.

    Returns:
        The counts, and the reasons that there are.

    Raises:
        DataError: the first malformed row, unless malformed rows are skipped.
    """
    conversion.add_inputs(relation.files.paths)
    counts = conversion.count(relation.name)
    unwanted = {check.reason for check in checks if not check.malformed}
    found = dict(conversion.engine.ask(f"SELECT {REASON}, count(*) FROM {every} GROUP BY {REASON}"))
    counts.rows_in, counts.rows_out = sum(found.values()), found.pop(None, 0)
    malformed = sorted(reason for reason in found if reason not in unwanted)
    if malformed and conversion.on_error == "stop":
        raise _first_error(conversion, relation, every, checks, unwanted)
    for reason in unwanted & found.keys():
        counts.reject(reason, found[reason])
    for reason in malformed:
        reject_malformed(conversion, relation, every, counts, f"{REASON} = {literal(reason)}", reason, found[reason])
    return counts, set(found)


def reject_malformed(
    conversion: SQLConversion,
    relation: SourceTable,
    every: str,
    counts: RowCounts,
    which: str,
    reason: str,
    number: int,
) -> None:
    """Count ``number`` malformed rows of a log, those for which ``which`` is true, with the first as examples.

    Args:
        every: see `CheckedRows`.

    Raises:
        DataError: the first of them, unless malformed rows are skipped.
    """
    examples = _first(conversion, relation, every, which, _EXAMPLES)
    if conversion.on_error == "stop":
        path, line, _, value = examples[0]
        raise DataError(path, str(BadRow(reason, value)), line=line, hint=_HINT)
    counts.reject(reason, number)
    counts.examples[reason] = [f"{path.name}:{line}: {BadRow(reason, value)}" for path, line, _, value in examples]


def _first_error(
    conversion: SQLConversion, relation: SourceTable, every: str, checks: Sequence[Check], unwanted: set[str]
) -> DataError:
    listed = ", ".join(map(literal, sorted(unwanted))) or "''"
    path, line, reason, value = _first(conversion, relation, every, f"{REASON} NOT IN ({listed})", 1)[0]
    check = next((check for check in checks if check.reason == reason), None)
    hint = f"{check.hint}; or {_HINT}" if check and check.hint else _HINT
    return DataError(path, str(BadRow(reason, value)), line=line, column=check.column if check else None, hint=hint)


def _first(
    conversion: SQLConversion, relation: SourceTable, every: str, which: str, limit: int
) -> list[tuple[Path, int, str, str | None]]:
    """The first rows that are such: (file, line, reason, what is wrong)."""
    rows = conversion.engine.ask(
        f"SELECT {FILE}, {LINE}, {REASON}, {VALUE} FROM {every} WHERE {which} ORDER BY {FILE}, {LINE} LIMIT {limit}"
    )
    return [(relation.files.paths[file], line, reason, value) for file, line, reason, value in rows]


def columns_of(keep: Keep | None) -> list[str]:
    return [] if keep is None else [keep.column]


def move_out(counts: RowCounts, reason: str, rows: int) -> None:
    """Reject rows that were taken to be rows out."""
    counts.rows_out -= rows
    counts.reject(reason, rows)
