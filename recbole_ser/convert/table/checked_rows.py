"""The rows of a log with their values and the reason if a row is left out, and the counts of these reasons."""

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
    """The rows of a log after all of them were checked.

    Args:
        counts: how many rows were kept, and how many rejected for which reason, so far.
        every: name of a relation with all rows: `FILE`, `LINE`, their values, `REASON` (that of the first check that
            keeps the row out; NULL if none does) and `VALUE` (what is wrong with a malformed row).
        kept: name of a relation with the rows that no check keeps out: `FILE`, `LINE` and their values.
    """

    counts: RowCounts
    every: str
    kept: str


def check_rows(
    conversion: SQLConversion, relation: SourceTable, values: Sequence[Value], keep: Keep | None = None
) -> CheckedRows:
    """Check all rows of ``relation``, read as ``values``, and count them.

    Raises:
        DataError: a row is malformed (unless such rows are skipped), or no row is left.
    """
    checks = [check for value in values for check in value.checks]
    if keep is not None:
        decision = kept(relation, keep, "kept row")
        unwanted = Check(f"NOT {decision.name}", f"{keep.column} is not one to keep", malformed=False)
        values, checks = [decision, *values], [*decision.checks, unwanted, *checks]
    columns = ",\n  ".join(f"{value.sql} AS {value.name}" for value in values)
    rows = f"(SELECT *,\n  {columns}\nFROM {relation.name})"
    names = ", ".join([FILE, LINE, *(value.name for value in values)])
    every = _every_row(conversion, relation, rows, names, checks)
    counts, reasons = _account(conversion, relation, every, checks)
    require_rows(relation, counts)
    return CheckedRows(counts, every, _kept_rows(conversion, relation, rows, names, checks, reasons))


def _every_row(conversion: SQLConversion, relation: SourceTable, rows: str, names: str, checks: Sequence[Check]) -> str:
    reasons = "\n  ".join(f"WHEN {check.condition} THEN {literal(check.reason)}" for check in checks)
    wrong = "\n  ".join(f"WHEN {check.condition} THEN {check.value}" for check in checks)
    name = f"{relation.name}_rows"
    conversion.engine.rows(
        name,
        relation.name,
        f"SELECT {names},\n"
        f"  CASE WHEN {FAULT} IS NOT NULL THEN {FAULT}\n  {reasons} END AS {REASON},\n"
        f"  CASE WHEN {FAULT} IS NOT NULL THEN {TEXT}\n  {wrong} END AS {VALUE}\n"
        f"FROM {rows}",
    )
    return name


def _kept_rows(
    conversion: SQLConversion,
    relation: SourceTable,
    rows: str,
    names: str,
    checks: Sequence[Check],
    reasons: set[str],
) -> str:
    """The rows that no check keeps out; checks that every row passed, usually most of them, are not made again."""
    failed = [check.condition for check in checks if check.reason in reasons]
    if reasons - {check.reason for check in checks}:
        failed = [f"{FAULT} IS NOT NULL", *failed]
    if failed:
        cases = "\n  ".join(f"WHEN {condition} THEN false" for condition in failed)
        rows = f"(SELECT *,\n  CASE {cases} ELSE true END AS _keep\nFROM {rows}) WHERE _keep"
    name = f"{relation.name}_kept"
    conversion.engine.rows(name, relation.name, f"SELECT {names} FROM {rows}")
    return name


def _account(
    conversion: SQLConversion, relation: SourceTable, every: str, checks: Sequence[Check]
) -> tuple[RowCounts, set[str]]:
    """Count the rows by reason; rows without a reason are rows out.

    Returns:
        The counts, and the reasons that occur.

    Raises:
        DataError: a row is malformed (unless such rows are skipped); the error names the first one.
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
    """Count malformed rows of a log, with the first of them as examples.

    Args:
        every: see `CheckedRows`.
        counts: the counts to which the rows are added.
        which: SQL that is true for these rows.
        reason: what is wrong with them.
        number: how many there are.

    Raises:
        DataError: malformed rows are not skipped; the error names the first one.
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
    """(file, line, reason, what is wrong) of the first ``limit`` rows for which ``which`` is true."""
    rows = conversion.engine.ask(
        f"SELECT {FILE}, {LINE}, {REASON}, {VALUE} FROM {every} WHERE {which} ORDER BY {FILE}, {LINE} LIMIT {limit}"
    )
    return [(relation.files.paths[file], line, reason, value) for file, line, reason, value in rows]


def require_rows(relation: SourceTable, counts: RowCounts) -> None:
    """Check that a row of the log is left; the error says what became of the others."""
    if not counts.rows_out:
        listed = "; ".join(f"{reason}: {number:,}" for reason, number in sorted(counts.rejected.items()))
        raise DataError(relation.files.paths[0], f"no row of {counts.rows_in:,} is left ({listed or 'it is empty'})")


def columns_of(keep: Keep | None) -> list[str]:
    return [] if keep is None else [keep.column]


def move_out(counts: RowCounts, reason: str, rows: int) -> None:
    """Reject rows that were counted as rows out before."""
    counts.rows_out -= rows
    counts.reject(reason, rows)
