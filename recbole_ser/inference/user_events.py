"""Users' histories after their last event, from the events of the data set, of a request, or of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.histories import HistoryReader, Searches, build_event_log
from recbole_ser.data.timed_dataset import TimedDataset


class Events(NamedTuple):
    """Events of users who are numbered from 0.  Their order matters only among a user's events of equal time."""

    users: np.ndarray
    times: np.ndarray
    items: np.ndarray
    searches: Searches

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs (user, item) of all interactions and of all clicks in searches."""
        clicks = self.searches.clicks
        clickers = np.repeat(self.searches.users, np.diff(clicks.starts))
        return np.concatenate([self.users, clickers]), np.concatenate([self.items, clicks.values])


@dataclass(frozen=True)
class UserEvents:
    """Events of many users in flat arrays, in which the events of each user stand together.

    Args:
        start, search_start: ``[users + 1]`` where each user's interactions and searches begin.
        times, items: ``[interactions]`` the time and the item of each interaction.
        search_times, queries, sources: ``[searches]`` the time, the query and the source of each search.
        click_start: ``[searches + 1]`` where each search's clicks begin in ``clicks``.
        clicks: ``[clicks]`` the clicked items of all searches, end to end.
    """

    start: np.ndarray
    times: np.ndarray
    items: np.ndarray
    search_start: np.ndarray
    search_times: np.ndarray
    queries: np.ndarray
    sources: np.ndarray
    click_start: np.ndarray
    clicks: np.ndarray

    @classmethod
    def of_dataset(cls, dataset: TimedDataset) -> UserEvents:
        """All events of the data set, held-out ones too; users are ids, so user 0 (padding) has no events."""
        log = dataset.log
        return cls(
            log.user_start.numpy(), dataset.item_times, log.items.numpy(),
            log.search_start.numpy(), dataset.search_times, log.queries.numpy(), log.sources.numpy(),
            log.click_start.numpy(), log.clicks.numpy(),
        )  # fmt: skip

    @classmethod
    def of_events(cls, events: Events, user_num: int) -> UserEvents:
        """Group ``events`` by user; the events of each user are ordered by time later, by `latest_histories`."""
        searches = events.searches
        order = np.argsort(events.users, kind="stable")
        search_order = np.argsort(searches.users, kind="stable")
        clicks = searches.clicks.take(search_order)
        return cls(
            _starts(np.bincount(events.users, minlength=user_num)), events.times[order], events.items[order],
            _starts(np.bincount(searches.users, minlength=user_num)), searches.times[search_order],
            searches.queries[search_order], searches.sources[search_order], clicks.starts, clicks.values,
        )  # fmt: skip

    def take(self, users: np.ndarray) -> Events:
        """The events of ``users [n]``, who become 0 to n - 1."""
        starts, places = _stretches(self.start, users)
        search_starts, searches = _stretches(self.search_start, users)
        click_starts, clicks = _stretches(self.click_start, searches)
        rows = np.arange(len(users))
        return Events(
            np.repeat(rows, np.diff(starts)),
            self.times[places],
            self.items[places],
            Searches(
                np.repeat(rows, np.diff(search_starts)), self.search_times[searches], self.queries[searches],
                self.sources[searches], Ragged(self.clicks[clicks], click_starts),
            ),
        )  # fmt: skip


def joined(first: Events, second: Events) -> Events:
    """The events of both, those of ``first`` before those of ``second`` where times are equal."""
    a, b = first.searches, second.searches
    both = {name: _both(getattr(a, name), getattr(b, name)) for name in ("users", "times", "queries", "sources")}
    starts = np.concatenate([a.clicks.starts, b.clicks.starts[1:] + a.clicks.starts[-1]])
    clicks = Ragged(_both(a.clicks.values, b.clicks.values), starts)
    return Events(
        _both(first.users, second.users),
        _both(first.times, second.times),
        _both(first.items, second.items),
        Searches(**both, clicks=clicks),
    )


def latest_histories(events: Events, user_num: int, config: Any) -> dict[str, Tensor]:
    """The histories, in the form of ``HistoryReader.read``, of users 0 to ``user_num`` - 1 after their last event.

    The item to recommend is the target: one more interaction behind all events of the user, in the last one's session.
    """
    log = build_event_log(
        np.concatenate([events.users, np.arange(user_num)]),
        np.concatenate([events.times, _latest(events, user_num)]),
        np.concatenate([events.items, np.zeros(user_num, dtype=events.items.dtype)]),
        events.searches,
        user_num,
        config["session_gap"],
    )
    targets = log.user_start[1:] - 1  # behind all interactions, and here made to be behind all searches
    log.searches_before[targets.long()] = log.search_start[1:]
    return HistoryReader.of(config, log).read(targets)


def _latest(events: Events, user_num: int) -> np.ndarray:
    """``[user_num]``: the time of each user's last event; the earliest time of all for a user without events."""
    times = _both(events.times, events.searches.times)
    last = np.full(user_num, times.min(initial=0), dtype=times.dtype)
    np.maximum.at(last, _both(events.users, events.searches.users), times)
    return last


def _both(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second])


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def _stretches(start: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the stretches ``rows [n]`` of those that begin at ``start``.

    Returns:
        Where each stretch begins when they stand end to end ``[n + 1]``, and the places of all their entries.
    """
    begin = start[rows].astype(np.int64)
    starts = _starts(start[rows + 1] - begin)
    shift = np.repeat(begin - starts[:-1], np.diff(starts))
    return starts, np.arange(starts[-1]) + shift
