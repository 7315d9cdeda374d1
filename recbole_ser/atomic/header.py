"""The first line of an atomic file: the names and types of its columns."""

from __future__ import annotations

from recbole_ser.atomic.rules import Findings
from recbole_ser.atomic.schema import SEPARATOR, TYPES, Column

MARK = b"\xef\xbb\xbf"  # byte order mark of UTF-8
BLOCK = 1 << 24  # bytes; lines of this length or longer are refused


def header_columns(line: bytes, file: str, findings: Findings, separator: str = SEPARATOR) -> list[Column] | None:
    """The columns that ``line``, the first of ``file``, declares; ``None``, with findings, if it is no header."""
    before = findings.count("error")
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if line.startswith(MARK):
        findings.add("byte-order-mark", file, 1)
    for byte, rule in ((b"\0", "nul"), (b"\r", "carriage-return")):
        if byte in line:
            findings.add(rule, file, 1)
            return None
    if len(line) >= BLOCK:
        findings.add("long-line", file, 1)
        return None
    try:
        text = line.removeprefix(MARK).decode()
    except UnicodeDecodeError:
        findings.add("broken-utf8", file, 1, value=line.decode(errors="backslashreplace"))
        return None
    if not text:
        findings.add("header-missing", file, 1)
        return None
    columns: dict[str, Column] = {}
    for label in text.split(separator):
        name, colon, kind = label.partition(":")
        if not colon or not name or kind not in TYPES:
            findings.add("header-entry", file, 1, value=label)
        elif name in columns:
            findings.add("column-twice", file, 1, name)
        else:
            columns[name] = Column(name, kind)
    return list(columns.values()) if findings.count("error") == before else None
