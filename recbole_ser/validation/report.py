"""The report of ``recbole-ser validate``: all findings of a data set, as text and as JSON."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recbole_ser.atomic.inspection import Table, inspect_table
from recbole_ser.atomic.publishing import restore
from recbole_ser.atomic.rules import RULES, Finding, Findings, Severity
from recbole_ser.atomic.schema import FILES, TERMS, FileSchema
from recbole_ser.errors import UserError
from recbole_ser.validation.checks import Contents, check_contents
from recbole_ser.validation.columns import check_columns, check_shared_columns

_PROTOCOLS = {
    "both_histories": "with both histories",
    "all_interactions": "all interactions (require_both_histories: false)",
}
_SEVERITIES: tuple[Severity, Severity] = ("error", "warning")


@dataclass(frozen=True)
class Report:
    """The result of `validate`.

    Args:
        dataset: name of the data set.
        findings: everything that was found.
        number: how many findings of each severity are shown.
        counts: numbers of users, items, queries and events that a run with default settings loads; ``None`` if there
            are errors.
        targets: what each split holds, by rule and protocol, see ``targets_by_split``; ``None`` if there are errors.
    """

    dataset: str
    findings: Findings
    number: int
    counts: dict[str, int] | None
    targets: dict[str, dict[str, dict[str, int]] | None] | None

    def clean(self, strict: bool = False) -> bool:
        """Whether there are no errors and, with ``strict``, no warnings either."""
        return not self.findings.count("error") and not (strict and self.findings.count("warning"))

    def first(self, severity: Severity) -> list[Finding]:
        return self.findings.first(severity, self.number)

    def as_dict(self) -> dict[str, Any]:
        """The report as values that JSON can hold."""
        sides = {
            f"{severity}s": {
                "count": self.findings.count(severity),
                "by_rule": self.findings.by_rule(severity),
                "first": [{**asdict(f), "hint": RULES[f.rule].hint} for f in self.first(severity)],
            }
            for severity in _SEVERITIES
        }
        return {"dataset": self.dataset, "clean": self.clean(), "counts": self.counts, "targets": self.targets, **sides}

    def __str__(self) -> str:
        lines: list[str] = []
        for severity in _SEVERITIES:
            if count := self.findings.count(severity):
                first = self.first(severity)
                shown = "" if len(first) == count else f", of which the first {len(first):,}"
                lines += [f"{count:,} {severity}{'s' * (count > 1)}{shown}:", *(f"  {finding}" for finding in first)]
                lines += ["", *(self._rule_line(rule, n) for rule, n in self.findings.by_rule(severity).items()), ""]
        if self.counts is None or self.targets is None:
            return "\n".join([*lines, f"{self.dataset}: not fit for a run"])
        sizes = ", ".join(f"{number:,} {name}" for name, number in self.counts.items())
        lines += [f"{self.dataset}: no errors", f"a run loads {sizes}"]
        for protocol, title in _PROTOCOLS.items():
            lines += [f"its targets, {title}:", *(self._targets_line(split, protocol) for split in self.targets)]
        return "\n".join(lines)

    def _targets_line(self, split: str, protocol: str) -> str:
        protocols = (self.targets or {})[split]
        if protocols is None:
            return f"  {split}: none: both points in time are the same"
        numbers = ", ".join(f"{number:,} {part.replace('_', ' ')}" for part, number in protocols[protocol].items())
        return f"  {split}: {numbers}"

    def _rule_line(self, rule: str, count: int) -> str:
        first = self.findings.example(rule)
        where = first.file if first.line is None else f"{first.file}:{first.line}"
        return f"  {rule:<22}{count:>12,}  first: {where}"


def validate(folder: str | Path, number: int = 20, split: Mapping[str, Any] | None = None) -> Report:
    """Find everything that is wrong with the atomic files ``X.inter``, ``X.search``, ... in the folder ``X``.

    The columns are those of the README.  Whatever the loader refuses with the default configuration is an error, and
    loading files without errors gives the ``counts`` of the report.  Files are read in blocks; only ids and times are
    held in memory.

    Args:
        number: how many errors, and how many warnings, are shown with file, line and value.
        split: the rule of the split whose targets are counted; ``None``: the common ones.

    Raises:
        UserError: a file cannot be read.
        ConfigError: ``split`` is no rule, or its points in time do not fit the data.
    """
    folder = Path(folder).resolve()
    restore(folder)
    findings = Findings(max(number, 1))
    tables = {}
    for suffix, schema in FILES.items():
        path = folder / f"{folder.name}.{suffix}"
        if not os.path.isfile(path):
            if os.path.lexists(path):
                findings.add("no-file", path.name)
            elif suffix not in ("user", "item"):
                findings.add("file-missing" if suffix == "inter" else "file-absent", path.name)
            continue
        try:
            table = _inspected(path, schema, findings)
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        if table is not None:
            tables[suffix] = table
    check_shared_columns({suffix: table.header for suffix, table in tables.items()}, folder.name, findings)
    contents = Contents(tables) if "inter" in tables else None
    if contents is not None:
        check_contents(contents, findings)
    if contents is None or findings.count("error"):
        return Report(folder.name, findings, number, None, None)
    return Report(folder.name, findings, number, contents.counts(), contents.targets(split))


def _inspected(path: Path, schema: FileSchema, findings: Findings) -> Table | None:
    """The columns of ``path``, with its findings added to ``findings``; ``None`` if its header is wrong."""
    columns = [column for column in schema.columns if column != TERMS]  # words are any text
    required = {column.name for column in schema.required}
    check = partial(check_columns, file=path.name, schema=schema, findings=findings)
    separator = " " if schema.attributes else None
    return inspect_table(path, columns, required, findings, check_header=check, vector_separator=separator)


def rules_table() -> str:
    """A table of all rules: name, severity, what is wrong, and what to do about it."""
    wide = max(map(len, RULES)) + 2
    return "\n".join(
        f"{rule.name:<{wide}}{rule.severity:<9}{rule.problem}\n{'':<{wide + 9}}({rule.hint})" for rule in RULES.values()
    )
