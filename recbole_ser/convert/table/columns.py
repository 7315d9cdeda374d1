"""SQL expressions that read one column, whatever its type, and checks of what can be wrong with its values."""

from __future__ import annotations

import re
from dataclasses import dataclass

from recbole_ser.atomic.schema import PADDING
from recbole_ser.convert.engine import identifier, literal
from recbole_ser.convert.table.source import NO_TYPE, VALUE_PREFIX, SourceTable
from recbole_ser.convert.table.spec import JSON_LIST, Keep, ListColumn
from recbole_ser.errors import DataError

# White space, control characters and double quotes: none of them can stand in a token of a sequence.
_SEPARATORS = r"""'[\p{Z}\p{Cc}"]'"""
_OTHERS = r"""'[^\p{Z}\p{Cc}"]'"""
_ONE_WORD = "replace white space, quotes and control characters in it, for example with _"

_TEXT = re.compile(r"VARCHAR|ENUM.*")
_EXACT = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL.*|UUID|BOOLEAN|DATE|TIME.*")
_FLOAT = re.compile(r"FLOAT|DOUBLE")
_OF_NOTHING = '"NULL"'  # DuckDB's type of the entries of lists that are all empty


@dataclass(frozen=True)
class Check:
    """A check that can keep a row out.

    Args:
        condition: SQL that is true for a row to be kept out; a row is counted for the first check that does so.
        reason: the reason by which such rows are counted.
        value: SQL for the text of what is wrong.
        column: the column that is to blame.
        hint: what to do about it.
        malformed: whether such a row is wrong; otherwise it is merely not wanted.
    """

    condition: str
    reason: str
    value: str = "CAST(NULL AS VARCHAR)"
    column: str | None = None
    hint: str | None = None
    malformed: bool = True


@dataclass(frozen=True)
class Value:
    """A value read from a column: the SQL that reads it, the name that it then has, and the checks it must pass."""

    name: str
    sql: str
    checks: tuple[Check, ...] = ()


def plain_text(relation: SourceTable, column: str) -> str:
    """SQL of the column's value as text, NULL where it is missing; whole numbers have no decimal point.

    Raises:
        DataError: a value of the column's type is not a single text.
    """
    name, kind = identifier(column), relation.types[column]
    if _TEXT.fullmatch(kind):
        return f"nullif({name}, '')"
    if kind == NO_TYPE:
        return "CAST(NULL AS VARCHAR)"
    if _EXACT.fullmatch(kind):
        return f"CAST({name} AS VARCHAR)"
    if kind == "JSON":
        return f"json_text({name})"
    if _FLOAT.fullmatch(kind):
        return f"number_text({name})"
    raise DataError(relation.files.paths[0], f"a value of type {kind} is not one text", column=column)


def word(relation: SourceTable, column: str, role: str, *, required: bool = True) -> Value:
    """The column as ids, with checks that none is missing (if they are required) and that each is one word.

    Raises:
        DataError: values of the column's type are no ids.
    """
    kind, name = relation.types[column], value_name(role)
    if re.fullmatch("BOOLEAN|DATE|TIME.*", kind):
        raise DataError(relation.files.paths[0], f"values of type {kind} are no ids", column=column)
    checks = [Check(f"{name} IS NULL", f"{role} is missing", column=column)] * required
    if kind == "JSON":
        nested = f"json_type({identifier(column)}) IN ('ARRAY', 'OBJECT', 'BOOLEAN')"
        checks.append(Check(nested, f"{role} is neither text nor a number", name, column))
    if not _EXACT.fullmatch(kind):
        wrong = f"regexp_matches({name}, {_SEPARATORS})"
        checks.append(Check(wrong, f"{role} is not one word", name, column, _ONE_WORD))
        checks.append(Check(f"{name} = {literal(PADDING)}", f"{role} is the id of padding", name, column))
    return Value(name, plain_text(relation, column), tuple(checks))


def clean_text(text: str) -> str:
    """SQL of a text with white space, control characters and quotes as single spaces; NULL where nothing is left."""
    spaced = f"regexp_replace({text}, {_SEPARATORS[:-1]}+', ' ', 'g')"
    return f"nullif(trim({spaced}), '')"


def is_blank(text: str) -> str:
    """SQL that says whether `clean_text` leaves nothing of a text; it is faster than `clean_text` itself."""
    return f"NOT coalesce(regexp_matches({text}, {_OTHERS}), false)"


def number(relation: SourceTable, column: str, role: str) -> Value:
    """The column as doubles, NULL where it is missing, with a check that all others are finite numbers."""
    text = plain_text(relation, column)
    value = f"TRY_CAST({text} AS DOUBLE)"
    wrong = f"{text} IS NOT NULL AND coalesce(isinf({value}) OR isnan({value}), true)"
    return Value(value_name(role), value, (Check(wrong, f"{role} is not a number", text, column),))


def kept(relation: SourceTable, keep: Keep, role: str) -> Value:
    """Whether to keep a row (never NULL), with a check of the column that says so."""
    text, name = plain_text(relation, keep.column), value_name(role)
    if keep.values is not None:
        values = ", ".join(map(literal, keep.values))
        return Value(name, f"coalesce({text} IN ({values}), false)")
    value = f"TRY_CAST({text} AS DOUBLE)"
    wrong = f"{text} IS NOT NULL AND coalesce(isnan({value}), true)"
    check = Check(wrong, f"{keep.column} is not a number", text, keep.column)
    return Value(name, f"coalesce({value} >= {keep.minimum}, false)", (check,))


def words(relation: SourceTable, column: ListColumn, role: str, element: str) -> Value:
    """The column as lists of words (VARCHAR[], perhaps empty), with checks that they are lists of single words.

    Raises:
        DataError: the column's values are no lists, or texts without a declared separator.
    """
    entries, checks = entry_list(relation, column, role)
    name = value_name(role)
    wrong = f"[x for x in {name} if x IS NULL OR x = '' OR regexp_matches(x, {_SEPARATORS})]"
    reason, value = f"{element} is not one word", f"coalesce({wrong}[1], '')"
    one_word = Check(f"len({wrong}) > 0", reason, value, column.column, _ONE_WORD)
    return Value(name, entries, (*checks, one_word))


def value_name(role: str) -> str:
    """The name of the value with the given role in a row; no column of a log may have such a name."""
    return VALUE_PREFIX + role.replace(" ", "_")


def entry_list(relation: SourceTable, column: ListColumn, role: str) -> tuple[str, list[Check]]:
    """SQL of the column as lists of texts, whatever they contain, and checks that they are lists; see `words`."""
    name, kind, separator = identifier(column.column), relation.types[column.column], column.separator
    if kind == NO_TYPE:
        return "CAST([] AS VARCHAR[])", []
    if kind.endswith("]"):
        return _native_list(relation, column)
    if kind == "JSON" and separator is None:
        return _json_list(name, column.column, role)
    if separator is None or not (kind == "JSON" or _TEXT.fullmatch(kind)):
        raise DataError(
            relation.files.paths[0], f"values of type {kind} are no lists", column=column.column,
            hint="of text, give its separator: {column: ..., separator: ','}, or separator: json",
        )  # fmt: skip
    text = plain_text(relation, column.column)
    if separator == JSON_LIST:
        valid = f"({text} IS NULL OR json_valid({text}))"
        entries, checks = _json_list(f"CAST(CASE WHEN {valid} THEN {text} END AS JSON)", column.column, role)
        return entries, [Check(f"NOT {valid}", f"{role} is not a list", text, column.column), *checks]
    return f"coalesce([trim(x) for x in string_split({text}, {literal(separator)}) if trim(x) <> ''], [])", []


def sequence(entries: str) -> str:
    """SQL that turns a list of words into an entry of a sequence column, NULL where the list is empty."""
    return f"nullif(array_to_string({entries}, ' '), '')"


def _native_list(relation: SourceTable, column: ListColumn) -> tuple[str, list[Check]]:
    name, element = identifier(column.column), re.sub(r"\[\d*\]$", "", relation.types[column.column])
    if column.separator is not None:
        raise DataError(relation.files.paths[0], "it holds lists: leave out the separator", column=column.column)
    if _FLOAT.fullmatch(element):
        return f"coalesce([number_text(x) for x in {name}], [])", []
    if _TEXT.fullmatch(element) or _EXACT.fullmatch(element) or element == _OF_NOTHING:
        return f"coalesce(CAST({name} AS VARCHAR[]), [])", []
    raise DataError(relation.files.paths[0], f"it holds lists of {element}", column=column.column)


def _json_list(value: str, column: str, role: str) -> tuple[str, list[Check]]:
    """SQL of the list in ``value``, which is SQL of type JSON, and its checks."""
    is_list = f"json_type({value}) = 'ARRAY'"
    entries = f"CAST(CASE WHEN {is_list} THEN {value} END AS JSON[])"
    nested = f"len([x for x in {entries} if json_type(x) IN ('ARRAY', 'OBJECT', 'BOOLEAN')]) > 0"
    wrong = f"json_type({value}) NOT IN ('ARRAY', 'NULL')"
    return f"coalesce(CAST(CASE WHEN {is_list} THEN {value} END AS VARCHAR[]), [])", [
        Check(wrong, f"{role} is not a list", f"CAST({value} AS VARCHAR)", column),
        Check(nested, f"{role} is not a list of texts and numbers", f"CAST({value} AS VARCHAR)", column),
    ]
