"""Which columns each atomic file has, and what its header says."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recbole_ser.data.atomic import TYPES, Column
from recbole_ser.validation.rules import Findings

MARK = b"\xef\xbb\xbf"
SEPARATOR = "\t"


@dataclass(frozen=True)
class Layout:
    """The columns of one kind of file, as name to type.

    Args:
        required: columns that must be there, filled in every row.
        optional: columns that may be there and have a meaning.
        expected: those of them that are missed when they are not there.
        loaded: whether all columns are loaded by default; otherwise only the required ones of ``X.inter``.
    """

    required: Mapping[str, str]
    optional: Mapping[str, str]
    expected: tuple[str, ...] = ()
    loaded: bool = False

    @property
    def types(self) -> dict[str, str]:
        return {**self.required, **self.optional}


LAYOUTS = {
    "inter": Layout({"user_id": "token", "item_id": "token", "timestamp": "float"}, {}),
    "search": Layout(
        {"user_id": "token", "query_id": "token", "timestamp": "float"},
        {"clicked_items": "token_seq", "click_times": "float_seq", "source": "token"},
        expected=("clicked_items",),
        loaded=True,
    ),
    "query": Layout({"query_id": "token"}, {"terms": "token_seq"}, expected=("terms",), loaded=True),
    "item": Layout({"item_id": "token"}, {}),
    "user": Layout({"user_id": "token"}, {}),
}


def check_header(line: bytes, path: Path, layout: Layout, findings: Findings) -> list[Column] | None:
    """The columns that the first line of ``path`` declares; ``None`` if rows cannot be read by it."""
    before = findings.count("error")
    file = path.name
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if line.startswith(MARK):
        findings.add("byte-order-mark", file, 1)
    for byte, rule in ((b"\0", "nul"), (b"\r", "carriage-return")):
        if byte in line:
            findings.add(rule, file, 1)
            return None
    try:
        text = line.removeprefix(MARK).decode()
    except UnicodeDecodeError:
        findings.add("broken-utf8", file, 1, value=line.decode(errors="backslashreplace"))
        return None
    if not text:
        findings.add("header-missing", file, 1)
        return None
    columns = _columns(text, file, findings)
    if findings.count("error") == before:
        _check_columns(columns, file, layout, findings)
    return columns if findings.count("error") == before else None


def _columns(text: str, file: str, findings: Findings) -> list[Column]:
    columns: dict[str, Column] = {}
    for label in text.split(SEPARATOR):
        name, colon, kind = label.partition(":")
        if not colon or not name or kind not in TYPES:
            findings.add("header-entry", file, 1, value=label)
        elif name in columns:
            findings.add("column-twice", file, 1, name)
        else:
            columns[name] = Column(name, kind)
    return list(columns.values())


def _check_columns(columns: list[Column], file: str, layout: Layout, findings: Findings) -> None:
    names = [column.name for column in columns]
    others = [name for name in names if name not in layout.types]
    for rule, wanted in (("column-missing", layout.required), ("column-absent", layout.expected)):
        for name in wanted:
            if name not in names:
                near = difflib.get_close_matches(name, others, n=1)
                findings.add(rule, file, 1, name, near[0] if near else None)
    if "click_times" in names and "clicked_items" in layout.types and "clicked_items" not in names:
        findings.add("column-missing", file, 1, "clicked_items", "click_times without it")
    for column in columns:
        if column.type != layout.types.get(column.name, column.type):
            findings.add("column-type", file, 1, column.name, f"{column.type}, not {layout.types[column.name]}")
        elif column.type == "float_seq" and column.name not in layout.types:
            findings.add("column-unreadable" if layout.loaded else "column-not-loadable", file, 1, column.name)


def check_shared_columns(headers: Mapping[str, list[Column]], name: str, findings: Findings) -> None:
    """Find columns that two files of data set ``name`` declare: ``headers`` by suffix, in the order of loading."""
    owners: dict[str, list[str]] = {}
    for suffix, columns in headers.items():
        for column in columns:
            others = owners.setdefault(column.name, [])
            foreign = [other for other in others if not _may_share(column.name, suffix, other)]
            loaded = [other for other in foreign if _is_loaded(column.name, other)]
            if foreign:
                both = bool(loaded) and _is_loaded(column.name, suffix)
                rule, other = ("column-shared", loaded[0]) if both else ("column-not-loadable", foreign[0])
                findings.add(rule, f"{name}.{suffix}", 1, column.name, f"also in {name}.{other}")
            if not foreign or column.name not in LAYOUTS[foreign[0]].types:  # else the column is the others'
                others.append(suffix)


def _may_share(column: str, *suffixes: str) -> bool:
    return all(column in LAYOUTS[suffix].types for suffix in suffixes)


def _is_loaded(column: str, suffix: str) -> bool:
    return LAYOUTS[suffix].loaded or (suffix == "inter" and column in LAYOUTS[suffix].required)
