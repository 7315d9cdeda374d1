"""Checks for times that look wrong: they are in another unit than the rest, or far from all others."""

from __future__ import annotations

import numpy as np

from recbole_ser.atomic.inspection import Table
from recbole_ser.atomic.rules import Findings
from recbole_ser.atomic.schema import TIMESTAMP
from recbole_ser.atomic.time_unit import is_plausible, unit_of

_TIME = TIMESTAMP.name
_FAR = 10  # how many times the span of the middle 80 per cent counts as far


def check_times(logs: list[Table], findings: Findings) -> None:
    """Find logs that cannot belong together, and events that are far from all others of their log."""
    ranges = {}
    for table in logs:
        times = table.numbers[_TIME]
        known = times[np.isfinite(times)]
        if len(known):
            ranges[table.file] = np.quantile(known, (0.01, 0.99))
            _check_range(table, times, known, findings)
    if len(ranges) == 2:
        (_, first), (file, second) = ranges.items()
        if second[0] > first[1] or second[1] < first[0]:
            findings.add("time-unit", file, 2, _TIME, f"{_range(second)} against {_range(first)}")


def _check_range(table: Table, times: np.ndarray, known: np.ndarray, findings: Findings) -> None:
    low, middle, high = np.quantile(known, (0.1, 0.5, 0.9))
    span = high - low
    far = (times < low - _FAR * span) | (times > high + _FAR * span) if span else np.zeros(len(times), bool)
    if unit := unit_of(middle):
        far |= ~is_plausible(times, unit)
    rows = np.flatnonzero(far & np.isfinite(times))
    findings.add_rows("time-out-of-range", table.file, table.lines(rows), _TIME, lambda place: times[rows[place]])


def _range(bounds: np.ndarray) -> str:
    return f"{bounds[0]:.10g} to {bounds[1]:.10g}"
