"""The unit of times, guessed from their size: seconds, milliseconds, microseconds or nanoseconds since 1970."""

from __future__ import annotations

from typing import Any

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # how many of each are in a second
DAY = 24 * 60 * 60  # seconds

# Seconds: from 1973 to 2286; finer units are known from 2001 on, as earlier milliseconds may be dates, YYYYMMDDHHMM.
# The ranges of the units do not overlap.
_EARLIEST, _EARLIEST_FINE, _LATEST = 10**8, 10**9, 10**10


def unit_of(time: float) -> str | None:
    """The unit in which ``time``, counted from 1970, is plausible for a log; ``None`` if it is in no unit."""
    return next((unit for unit in UNITS if is_plausible(time, unit)), None)


def is_plausible(time: Any, unit: str) -> Any:
    """Whether ``time``, a number or an array of numbers in ``unit`` since 1970, lies between 1973 and 2286.

    Units finer than seconds begin in 2001.
    """
    earliest = _EARLIEST if unit == "s" else _EARLIEST_FINE
    return (time >= earliest * UNITS[unit]) & (time < _LATEST * UNITS[unit])
