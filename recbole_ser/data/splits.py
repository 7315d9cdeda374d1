"""The rules by which targets are divided: by what is last of a user, by shares, or at two points in time.

A rule is the value of ``eval_args.split``, a mapping with one key:

- ``LS: valid_and_test``: of each user with enough targets the last is for test, and the one before for validation.
- ``RS: [a, b, c]``: of each user's targets, in their order, these shares are for training, validation and test.
- ``TS: [t1, t2]``: for all users, validation begins at the time t1 and test at t2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.time_unit import UNITS, unit_of
from recbole_ser.data.histories import Searches
from recbole_ser.errors import ConfigError
from recbole_ser.settings import Settings, setting
from recbole_ser.settings.checking import check
from recbole_ser.settings.run import Split

LEAVE_ONE_OUT: Mapping[str, Any] = {"LS": "valid_and_test"}
COMMON_SPLITS: tuple[Mapping[str, Any], ...] = (LEAVE_ONE_OUT, {"RS": [0.8, 0.1, 0.1]}, {"TS": [0.8, 0.9]})
MINIMUM_TARGETS = 3  # of a user under LS: one each for training, validation and test

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


class _Rule(Settings):
    split: Split = setting("which targets are held out")


def rule_of(split: Any) -> tuple[str, Any]:
    """The key of ``split``, which is LS, RS or TS, and its value.

    Raises:
        ConfigError: it is no such rule.
    """
    rule = check(_Rule, {"split": split}, lambda key: "eval_args").split
    return next((kind, value) for kind, value in rule if value is not None)


def split_name(split: Any) -> str:
    """A short name of the rule, such as ``LS`` or ``TS [2014-05-01, 2014-06-01]``."""
    kind, value = rule_of(split)
    return kind if kind == "LS" else f"{kind} [{', '.join(map(str, value))}]"


def held_out_counts(split: Mapping[str, Any], counts: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the last of a user's ``counts [users]`` targets are for validation and for test, ``[users]``.

    RS counts as RecBole does: validation and test are rounded down, but if that leaves nothing of a share, it still
    gets one target as long as training keeps one; test comes first.
    """
    kind, value = rule_of(split)
    if kind == "LS":
        enough = (counts >= MINIMUM_TARGETS).long()
        return enough, enough
    valid_share, test_share = (counts.double() * (share / sum(value)) for share in value[1:])
    valid, test = valid_share.long(), test_share.long()
    train = counts - valid - test
    for part, share in ((test, test_share), (valid, valid_share)):
        one_more = ((train > 1) & (share > 0) & (share < 1)).long()
        part += one_more
        train -= one_more
    return valid, test


@dataclass(frozen=True)
class TimePoints:
    """The two points in time of the rule TS, as places in a log that is ordered by user and time.

    Args:
        valid_start, test_start: int32 ``[users]``, where each user's interactions from the first and from the second
            point on begin.
        searches_end: int32 ``[users]``, where each user's searches strictly before the first point end.
        clicks: bool ``[clicks]``, which clicks are strictly before the first point; ``None`` where every click has the
            time of its search.
    """

    valid_start: Tensor
    test_start: Tensor
    searches_end: Tensor
    clicks: Tensor | None


def points_of(
    split: Mapping[str, Any], users: np.ndarray, times: np.ndarray, searches: Searches, user_num: int
) -> TimePoints | None:
    """The points of the rule TS as places in the log that ``build_event_log`` makes of these events.

    Other rules have none.  A log is ordered by user and time: it is enough to count each user's events before a point.

    Args:
        users, times: ``[interactions]``, in any order; times are int64 or float64 in one unit for both logs.

    Raises:
        ConfigError: see `points_in_time`.
    """
    kind, points = rule_of(split)
    if kind != "TS":
        return None
    first, second = points_in_time(points, times)
    clicks = None
    if searches.click_times is not None:
        early = Ragged(_before(searches.click_times, first), searches.clicks.starts)
        clicks = torch.from_numpy(early.take(np.lexsort((searches.times, searches.users))).values)
    return TimePoints(
        _places(users, times, first, user_num),
        _places(users, times, second, user_num),
        _places(searches.users, searches.times, first, user_num),
        clicks,
    )


def points_in_time(points: Sequence[Any], times: np.ndarray) -> tuple[float, float]:
    """The two ``points`` of the rule TS in the unit of ``times [interactions]``, int64 or float64, in any order.

    A number below 1 is a share: its point is the time of the interaction with this share of all interactions in front
    of it in the order of time, so that at most this share is strictly earlier.  Other numbers are times.  Text is a
    date or time in ISO form, in UTC if it names no zone.

    Raises:
        ConfigError: the second point is not later than the first, or text is no date, or the unit of the times is not
            known.
    """
    first, second = (_point(point, times) for point in points)
    if first >= second:
        raise ConfigError(
            f"eval_args.split: TS [{', '.join(map(str, points))}] begins validation at time {first} and test at "
            f"{second}: choose a second point that is later"
        )
    return first, second


def _point(point: Any, times: np.ndarray) -> float:
    if isinstance(point, (int, float)):
        if point >= 1:
            return point
        place = math.floor(point * len(times))
        return np.partition(times, place)[place].item()
    try:
        moment = datetime.fromisoformat(str(point).removesuffix("Z"))
    except ValueError:
        raise ConfigError(
            f"eval_args.split: '{point}' is no date: write it like 2014-05-01 or 2014-05-01T12:00:00+00:00"
        ) from None
    unit = unit_of(float(np.median(times)))
    if unit is None:
        raise ConfigError(
            f"eval_args.split: '{point}' is a date, but the size of the times in the data does not tell their unit: "
            "give TS two times as they are in the data, or two shares of the interactions"
        )
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    exact = (moment - _EPOCH) // _MICROSECOND * UNITS[unit]
    whole, rest = divmod(exact, 10**6)
    return exact / 10**6 if rest else whole  # no float where it could not hold the number exactly


def _places(users: np.ndarray, times: np.ndarray, point: float, user_num: int) -> Tensor:
    """``[user_num]``: where the events of each user from ``point`` on begin, among all events in order."""
    totals, early = (np.bincount(part, minlength=user_num) for part in (users, users[_before(times, point)]))
    return torch.from_numpy((np.cumsum(totals) - totals + early).astype(np.int32))


def _before(times: np.ndarray, point: float) -> np.ndarray:
    """bool, like ``times``: which are strictly before ``point``; whole numbers are compared as such, in 64 bits."""
    return times < (math.ceil(point) if times.dtype.kind == "i" else point)
