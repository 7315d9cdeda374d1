"""Checks of the columns that the headers of a data set's files declare."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from recbole_ser.atomic.rules import Findings
from recbole_ser.atomic.schema import CLICK_TIMES, CLICKED_ITEMS, FILES, Column, FileSchema


def check_columns(columns: list[Column], file: str, schema: FileSchema, findings: Findings) -> None:
    """Find columns of ``file`` that are missing, have another type than ``schema`` says, or cannot be read."""
    names = [column.name for column in columns]
    others = [name for name in names if name not in schema.types]
    for rule, wanted in (("column-missing", schema.required), ("column-absent", schema.expected)):
        for name in (column.name for column in wanted):
            if name not in names:
                near = difflib.get_close_matches(name, others, n=1)
                findings.add(rule, file, 1, name, near[0] if near else None)
    clicks, times = CLICKED_ITEMS.name, CLICK_TIMES.name
    if times in names and clicks in schema.types and clicks not in names:
        findings.add("column-missing", file, 1, clicks, f"{times} without it")
    for column in columns:
        if column.type != schema.types.get(column.name, column.type):
            findings.add("column-type", file, 1, column.name, f"{column.type}, not {schema.types[column.name]}")
        elif column.type == "float_seq" and column.name not in schema.types and not schema.attributes:
            findings.add("column-not-loadable", file, 1, column.name)


def check_shared_columns(headers: Mapping[str, list[Column]], name: str, findings: Findings) -> None:
    """Find columns that two files of data set ``name`` declare; ``headers`` are by suffix, in the order of loading."""
    owners: dict[str, list[str]] = {}
    for suffix, columns in headers.items():
        for column in columns:
            others = owners.setdefault(column.name, [])
            foreign = [other for other in others if not _may_share(column.name, suffix, other)]
            loaded = [other for other in foreign if _is_read(column.name, other)]
            if foreign:
                both = bool(loaded) and (FILES[suffix].loaded or _is_read(column.name, suffix))
                rule, other = ("column-shared", loaded[0]) if both else ("column-not-loadable", foreign[0])
                findings.add(rule, f"{name}.{suffix}", 1, column.name, f"also in {name}.{other}")
            if not foreign or column.name not in FILES[foreign[0]].types:  # else the column belongs to the other file
                others.append(suffix)


def _may_share(column: str, *suffixes: str) -> bool:
    return all(column in FILES[suffix].types for suffix in suffixes)


def _is_read(column: str, suffix: str) -> bool:
    """Whether the column has a meaning in a file that is loaded by default; the loader leaves out all others."""
    schema = FILES[suffix]
    if schema.loaded:
        return column in schema.types
    return suffix == "inter" and column in {required.name for required in schema.required}
