"""Which interactions are targets, and which split each target belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_ser.data.histories import EventLog

MINIMUM_TARGETS = 3  # one each for training, validation and test


@dataclass(frozen=True)
class Split:
    """The instances of each split and the events of the training period, as positions in the log, in its order.

    Args:
        train, valid, test: the targets of each split, positions in the log's interactions, int32.
        training_interactions: every interaction before its user's validation target, be it a target or not, as
            positions in the log's interactions, int32; all interactions of a user without a validation target.
        training_searches: every search strictly before the time of its user's validation target, as positions in the
            log's searches, int32; all searches of a user without one.
        training_clicks: the clicks under these searches before that time, as positions in the log's clicks, int32.
        search_train: the instances of the search task, as positions in the log's clicks, int32: a training search
            and one item clicked under it.
    """

    train: Tensor
    valid: Tensor
    test: Tensor
    training_interactions: Tensor
    training_searches: Tensor
    training_clicks: Tensor
    search_train: Tensor


def split_instances(log: EventLog, require_both_histories: bool) -> Split:
    """Split by leave-one-out: a user's last kept target is for test, the one before for validation, the rest train.

    With ``require_both_histories`` a target is kept if it has at least one earlier interaction and one strictly
    earlier search (SESRec, 5.1.1), otherwise always.  All targets of users with fewer than three kept ones are for
    training.  Likewise an instance of the search task is kept if it has at least one earlier search and one strictly
    earlier interaction.

    The log is ordered by user and time, so a user's targets stand together in ``kept``, and the training period of
    each user is a stretch: from the user's first event to the validation target, or to the last event without one.
    """
    count = len(log.items)
    if require_both_histories:
        kept = torch.nonzero((log.rec_length > 0) & (log.search_length > 0)).squeeze(1)  # [kept]
    else:
        kept = torch.arange(count)
    users = log.users[kept]
    user_num = len(log.user_start) - 1
    kept_per_user = torch.bincount(users, minlength=user_num)  # [users]
    # How many targets of the same user follow in ``kept``: 0 is the user's last.
    from_end = kept_per_user.cumsum(0)[users] - 1 - torch.arange(len(kept))  # [kept]
    enough = kept_per_user[users] >= MINIMUM_TARGETS
    valid = kept[(from_end == 1) & enough]
    test = kept[(from_end == 0) & enough]

    rec_end, search_end = log.user_start[1:].clone(), log.search_start[1:].clone()  # [users]
    rec_end[log.users[valid]] = valid.int()
    search_end[log.users[valid]] = log.searches_before[valid]
    training_searches = _stretches(log.search_start[:-1], search_end)
    training_clicks = _clicks_of(log, training_searches, rec_end)
    return Split(
        train=kept[(from_end > 1) | ~enough].int(),
        valid=valid.int(),
        test=test.int(),
        training_interactions=_stretches(log.user_start[:-1], rec_end),
        training_searches=training_searches,
        training_clicks=training_clicks,
        search_train=_with_both_histories(log, training_clicks) if require_both_histories else training_clicks,
    )


def targets_by_protocol(log: EventLog) -> dict[str, dict[str, int]]:
    """The number of targets of each split under the papers' protocol, ``both_histories``, and ``all_interactions``."""
    splits = {"both_histories": split_instances(log, True), "all_interactions": split_instances(log, False)}
    return {
        protocol: {part: len(getattr(split, part)) for part in ("train", "valid", "test")}
        for protocol, split in splits.items()
    }


def _clicks_of(log: EventLog, searches: Tensor, rec_end: Tensor) -> Tensor:
    """The clicks of ``searches`` before the user's interaction at ``rec_end [users]``, as positions in the clicks.

    A click is before it if the first interaction later than the click is not behind it.
    """
    clicks = _stretches(log.click_start[searches], log.click_start[searches + 1])
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
