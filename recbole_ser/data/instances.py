"""Which interactions are targets, and which split each target belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_ser.data.histories import EventLog, Searches
from recbole_ser.data.splits import COMMON_SPLITS, LEAVE_ONE_OUT, TimePoints, held_out_counts, points_of, split_name
from recbole_ser.errors import ConfigError


@dataclass(frozen=True)
class Split:
    """The instances of each split and the events of the training period, as positions in the log, in its order.

    The training period of a user ends at the user's first held-out target, be it for validation or for test, and is
    everything without one.  Under the rule TS it ends for all users at the point in time where validation begins.

    Args:
        train, valid, test: the targets of each split, positions in the log's interactions, int32; a user may have
            several in each.
        training_interactions: every interaction of the training period, be it a target or not, as positions in the
            log's interactions, int32: those before the held-out target by position, or strictly before the point.
        training_searches: every search strictly before the time at which its user's training period ends, as positions
            in the log's searches, int32.
        training_clicks: the clicks under these searches before that time, as positions in the log's clicks, int32.
        search_train: the instances of the search task, as positions in the log's clicks, int32: a training search
            and one item clicked under it.
        known_items: int64, the items that a training negative may be, rising: under TS those with a training
            interaction; ``None``: every item with an interaction.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    training_interactions: Tensor
    training_searches: Tensor
    training_clicks: Tensor
    search_train: Tensor
    known_items: Tensor | None = None


class Targets(NamedTuple):
    """The targets of each split, as positions in the log's interactions, in its order."""

    train: Tensor
    valid: Tensor
    test: Tensor


def targets_of(
    log: EventLog,
    require_both_histories: bool,
    split: Mapping[str, Any] = LEAVE_ONE_OUT,
    points: TimePoints | None = None,
) -> Targets:
    """Divide the kept targets by the rule ``split``, see `recbole_ser.data.splits`.

    With ``require_both_histories`` a target is kept if it has at least one earlier interaction and one strictly
    earlier search (SESRec, 5.1.1), otherwise always.

    The log is ordered by user and time, so a user's targets stand together in ``kept``.

    Args:
        points: the two points in time of the rule TS, which alone needs them.
    """
    if require_both_histories:
        kept = torch.nonzero((log.rec_length > 0) & (log.search_length > 0)).squeeze(1)  # [kept]
    else:
        kept = torch.arange(len(log.items))
    users = log.users[kept]
    if points is not None:
        is_train, is_test = kept < points.valid_start[users], kept >= points.test_start[users]
    else:
        kept_per_user = torch.bincount(users, minlength=len(log.user_start) - 1)  # [users]
        # How many targets of the same user follow in ``kept``: 0 is the user's last.
        from_end = kept_per_user.cumsum(0)[users] - 1 - torch.arange(len(kept))  # [kept]
        valid, test = (counts[users] for counts in held_out_counts(split, kept_per_user))  # [kept]
        is_train, is_test = from_end >= valid + test, from_end < test
    return Targets(kept[is_train], kept[~is_train & ~is_test], kept[is_test])


def split_instances(
    log: EventLog,
    require_both_histories: bool,
    split: Mapping[str, Any] = LEAVE_ONE_OUT,
    points: TimePoints | None = None,
) -> Split:
    """Divide the targets, see `targets_of`, and find the events of the training period.

    With ``require_both_histories`` an instance of the search task is kept if it has at least one earlier search and one
    strictly earlier interaction.

    The training period of each user is a stretch of the log, from the user's first event on.
    """
    targets = targets_of(log, require_both_histories, split, points)
    if points is None:
        rec_end, search_end = _first_held_out(log, torch.cat([targets.valid, targets.test]))
    else:
        rec_end, search_end = points.valid_start, points.searches_end
    training_interactions = _stretches(log.user_start[:-1], rec_end)
    training_searches = _stretches(log.search_start[:-1], search_end)
    training_clicks = _stretches(log.click_start[training_searches], log.click_start[training_searches + 1])
    if points is None:
        training_clicks = _before_interaction(log, training_clicks, rec_end)
    elif points.clicks is not None:
        training_clicks = training_clicks[points.clicks[training_clicks]]
    return Split(
        train=targets.train.int(),
        valid=targets.valid.int(),
        test=targets.test.int(),
        training_interactions=training_interactions,
        training_searches=training_searches,
        training_clicks=training_clicks,
        search_train=_with_both_histories(log, training_clicks) if require_both_histories else training_clicks,
        known_items=None if points is None else torch.bincount(log.items[training_interactions]).nonzero().squeeze(1),
    )


def last_training_interactions(log: EventLog, split: Split) -> Tensor:
    """The position of the last interaction of the training period, of each user who has one."""
    positions = split.training_interactions
    users = log.users[positions]  # ascending
    return positions[torch.cat([users, users.new_zeros(1)]).diff() != 0]


def _first_held_out(log: EventLog, held_out: Tensor) -> tuple[Tensor, Tensor]:
    """Where each user's training period ends, in the interactions and in the searches ``[users]``.

    It ends at the first of the user's ``held_out`` targets, or behind all events of a user without one.
    """
    ends = log.user_start[1:].scatter_reduce(0, log.users[held_out].long(), held_out.int(), "amin")
    search_ends = log.search_start[1:].clone()
    users = torch.nonzero(ends < log.user_start[1:]).squeeze(1)
    search_ends[users] = log.searches_before[ends[users]]
    return ends, search_ends


def targets_by_split(
    log: EventLog, users: np.ndarray, times: np.ndarray, split: Mapping[str, Any] | None = None
) -> dict[str, dict[str, dict[str, int]] | None]:
    """What each split holds, by the name of its rule: ``split``, by default the ``COMMON_SPLITS``.

    Args:
        users, times: ``[interactions]`` of the events in ``log``, in any order.

    Returns:
        By rule and protocol (the papers' is ``both_histories``, the other one ``all_interactions``) the numbers of
        targets ``train``, ``valid`` and ``test``, and ``test_users``, how many users have a test target.  ``None``
        for a common rule that needs two points in time where the data have but one.

    Raises:
        ConfigError: ``split`` is no rule, or its points in time do not fit the data.
    """
    found: dict[str, dict[str, dict[str, int]] | None] = {}
    for rule in COMMON_SPLITS if split is None else [split]:
        try:
            points = points_of(rule, users, times, Searches.none(), len(log.user_start) - 1)
        except ConfigError:
            if split is not None:
                raise
            found[split_name(rule)] = None
            continue
        protocols = {"both_histories": True, "all_interactions": False}
        found[split_name(rule)] = {
            name: _numbers(log, targets_of(log, both, rule, points)) for name, both in protocols.items()
        }
    return found


def _numbers(log: EventLog, targets: Targets) -> dict[str, int]:
    sizes = {part: len(positions) for part, positions in targets._asdict().items()}
    return {**sizes, "test_users": len(log.users[targets.test].unique())}


def _before_interaction(log: EventLog, clicks: Tensor, rec_end: Tensor) -> Tensor:
    """Those of ``clicks`` before the user's interaction at ``rec_end [users]``, as positions in the clicks.

    A click is before it if the first interaction later than the click is not behind it.
    """
    if log.interactions_until_click is None:
        return clicks
    users = log.search_users(log.searches_of_clicks(clicks))
    return clicks[log.interactions_until_click[clicks] <= rec_end[users]]


def _with_both_histories(log: EventLog, clicks: Tensor) -> Tensor:
    """Those of ``clicks`` whose search has an earlier search and a strictly earlier interaction in its history."""
    searches = log.searches_of_clicks(clicks)
    users = log.search_users(searches)
    has_rec = log.interactions_before[searches] > log.user_start[users]
    return clicks[has_rec & (searches > log.search_start[users])]


def _stretches(start: Tensor, end: Tensor) -> Tensor:
    """All the numbers of the half-open stretches ``start [n]`` to ``end [n]``, one stretch after the other, int32.

    They are 0, 1, 2, ..., each shifted by what its own stretch starts at minus the numbers in the stretches before it.
    """
    lengths = (end - start).long()
    before = lengths.cumsum(0) - lengths
    shift = torch.repeat_interleave(start - before.int(), lengths)
    return torch.arange(len(shift), dtype=torch.int32) + shift
