"""What can be wrong with atomic files: one rule for each kind of finding, and the collection of findings.

An error is something that the loader refuses, or does not read as it was meant.  A warning is something that it reads
as written although it is seldom meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from recbole_ser.errors import DataError

Severity = Literal["error", "warning"]

_WHOLE_TIMES = "write both logs in whole numbers of a finer unit, such as nanoseconds"
_SHOWN = 60  # how many characters of a value are shown
_ORDER = [f".{suffix}" for suffix in ("inter", "search", "query", "item", "user")]  # order of files in reports


@dataclass(frozen=True)
class Rule:
    """One kind of finding.  ``name`` is stable: scripts may rely on it."""

    name: str
    severity: Severity
    problem: str
    hint: str


RULES = {
    rule.name: rule
    for rule in (
        Rule("file-missing", "error", "file not found", "a data set X has its interactions in X/X.inter"),
        Rule("no-file", "error", "not a file", "a folder, or a link to nothing, is in the way: remove or replace it"),
        Rule("header-missing", "error", "the header is missing", "the first line names the columns as name:type"),
        Rule("header-entry", "error", "not name:type", "types are token, token_seq, float, float_seq; tabs separate"),
        Rule("column-twice", "error", "the column is declared twice", "name every column once"),
        Rule("column-missing", "error", "the column is missing", "add it, or correct its name in the header"),
        Rule("column-type", "error", "the column has another type", "correct the type in the header"),
        Rule("column-shared", "error", "another file has a column of this name", "rename one of them"),
        Rule("broken-utf8", "error", "not UTF-8", "save the file as UTF-8"),
        Rule("nul", "error", "the line holds a NUL character", "the file is damaged or is UTF-16: save it as UTF-8"),
        Rule("carriage-return", "error", "a carriage return inside the line", "end lines with a line feed alone"),
        Rule("long-line", "error", "the line is longer than 16 MiB", "a line feed may be missing"),
        Rule("blank-line", "error", "a blank line", "delete it"),
        Rule("row-width", "error", "not as many columns as the header has", "texts hold no tab; empty is allowed"),
        Rule("cut-off", "error", "the last line has no end", "write the file again, or end it with a line feed"),
        Rule("no-rows", "error", "there are no interactions", "the file holds nothing but its header"),
        Rule("not-a-number", "error", "not a number", "write it like 1650000000, -0.5 or 1e9"),
        Rule("not-finite", "error", "not a finite number", "leave the row out"),
        Rule("vector-length", "error", "not as many numbers as the first vector", "all have one length or are empty"),
        Rule("inexact-time", "error", "64 bits hold times of so many digits only if all are whole", _WHOLE_TIMES),
        Rule("empty-entry", "error", "the entry is empty", "every row needs one"),
        Rule("reserved-id", "error", "the id of padding", "choose another id"),
        Rule("click-without-id", "error", "a clicked item has no id", "put one space between two ids, none around"),
        Rule("click-times", "error", "not as many times as clicked items", "give every clicked item its time"),
        Rule("listed-twice", "error", "the id is on an earlier line too", "list every id once"),
        Rule("byte-order-mark", "warning", "the file begins with a byte order mark", "it is skipped"),
        Rule("windows-line-ends", "warning", "lines end in CR LF", "the CR is skipped"),
        Rule("file-absent", "warning", "file not found", "it is optional: there are then no searches, or no words"),
        Rule("no-searches", "warning", "there are no searches", "models that read searches learn nothing from them"),
        Rule("column-absent", "warning", "the column is missing", "it is optional: it is then empty in all rows"),
        Rule("column-not-loadable", "warning", "load_col cannot name this column", "rename it, or leave it unloaded"),
        Rule("space-in-id", "warning", "the id holds a space", "in a list of ids it stands for two"),
        Rule("unknown-query", "warning", "the query is not in X.query", "it has an id, but no words"),
        Rule("unknown-user", "warning", "the user has no interaction", "the search is left out"),
        Rule("clicked-only", "warning", "no interaction has the clicked item", "it is never a target or a negative"),
        Rule("click-ahead", "warning", "most clicks are taken up later", "histories show them before: add click_times"),
        Rule("unlisted", "warning", "X.item or X.user does not list the id", "the row is dropped if load_col names it"),
        Rule("duplicate-event", "warning", "an earlier line is the same event", "it counts twice"),
        Rule("time-unit", "warning", "the two logs do not overlap in time", "write both in one unit, from one origin"),
        Rule("time-out-of-range", "warning", "far from all other times", "check its unit"),
    )
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a file.

    Args:
        rule: name of the rule that is broken.
        file: name of the file.
        line: 1-based line number; ``None`` if the finding concerns the file as a whole.
        column, value: the column and the value that are to blame, if there is just one.
    """

    rule: str
    file: str
    line: int | None = None
    column: str | None = None
    value: str | None = None

    def __str__(self) -> str:
        rule = RULES[self.rule]
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        column = "" if self.column is None else f"column '{self.column}': "
        value = "" if self.value is None else f"{self.value!r}: "
        return f"{where}: {column}{value}{rule.problem} [{rule.name}] ({rule.hint})"

    def as_error(self, path: str | Path) -> DataError:
        """The finding as an error, for code that needs the file ``path`` to be right."""
        rule = RULES[self.rule]
        problem = rule.problem if self.value is None else f"{self.value!r}: {rule.problem}"
        return DataError(path, problem, line=self.line, column=self.column, hint=rule.hint)


class Findings:
    """Counts of all findings by rule, and the earliest of them.

    Args:
        keep: how many findings are kept for each combination of rule, file and column, at least 1.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.counts: Counter[str] = Counter()
        self._first: dict[tuple[str, str, str | None], list[Finding]] = {}

    def add(
        self, rule: str, file: str, line: int | None = None, column: str | None = None, value: str | None = None
    ) -> None:
        """Add one finding.  Findings of the same rule, file and column must be added in the order of their lines."""
        self.counts[rule] += 1
        first = self._first.setdefault((rule, file, column), [])
        if len(first) < self.keep:
            first.append(Finding(rule, file, line, column, None if value is None else _shortened(value)))

    def add_rows(
        self,
        rule: str,
        file: str,
        lines: np.ndarray,
        column: str | None = None,
        value: Callable[[int], object] | None = None,
    ) -> None:
        """Add a finding for each of ``lines``, which rise; ``value(k)`` is the value of the k-th of them."""
        if not len(lines):
            return
        room = self.keep - len(self._first.get((rule, file, column), []))
        for place, line in enumerate(lines[: max(room, 0)].tolist()):
            self.add(rule, file, line, column, None if value is None else str(value(place)))
        self.counts[rule] += max(len(lines) - max(room, 0), 0)

    def count(self, severity: Severity) -> int:
        return sum(self.by_rule(severity).values())

    def by_rule(self, severity: Severity) -> dict[str, int]:
        """The number of findings of each rule that has any, in the order of `RULES`."""
        return {
            name: self.counts[name] for name, rule in RULES.items() if rule.severity == severity and self.counts[name]
        }

    def first(self, severity: Severity, number: int | None = None) -> list[Finding]:
        """The first ``number`` of the findings that were kept (``None``: all of them), ordered by file, then line."""
        found = [f for kept in self._first.values() for f in kept if RULES[f.rule].severity == severity]
        return sorted(found, key=_place)[:number]

    def example(self, rule: str) -> Finding:
        """The first finding of ``rule``, which must have one."""
        return min((f for kept in self._first.values() for f in kept if f.rule == rule), key=_place)


def no_common_items(number: int, clicked: str, interacted: str) -> str:
    """The warning that none of ``number`` clicked items has an interaction, with an example of either kind."""
    return (
        f"no interaction has any of the {number:,} items clicked in searches: they look like '{clicked}', those of "
        f"interactions like '{interacted}'; write both logs with the same ids"
    )


def _place(finding: Finding) -> tuple[int, int]:
    suffix = Path(finding.file).suffix
    return _ORDER.index(suffix) if suffix in _ORDER else len(_ORDER), finding.line or 0


def _shortened(value: str) -> str:
    return value if len(value) <= _SHOWN else value[: _SHOWN - 3] + "..."
