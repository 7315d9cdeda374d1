"""The unit of times, guessed from their size: seconds since 1970, or a thousandth, millionth, ... of them."""

from __future__ import annotations

from typing import Any

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # of each in a second
DAY = 24 * 60 * 60  # seconds

_EARLIEST, _LATEST = 10**8, 10**10  # seconds: from 1973 to 2286, and no unit's range touches another's


def unit_of(time: float) -> str | None:
    """The unit in which ``time`` is a time since 1970 that a log may hold; ``None`` if it is so in none."""
    return next((unit for unit in UNITS if is_plausible(time, unit)), None)


def is_plausible(time: Any, unit: str) -> Any:
    """Whether ``time``, a number or an array of them, lies between 1973 and 2286."""
    return (time >= _EARLIEST * UNITS[unit]) & (time < _LATEST * UNITS[unit])
