"""What each user searched for and chose in the training period, as ids and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.dataset import SERDataset

Side = Literal["search", "rec", "both"]


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """The text of one query and of the items clicked under it."""

    query: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserHistory:
    """One user's latest searches and interactions of the training period, oldest first."""

    searches: tuple[SearchRecord, ...]
    items: tuple[str, ...]

    def length(self, side: Side) -> int:
        """How many records a side has; ``both`` sides together have those of either."""
        return (len(self.searches) if side != "rec" else 0) + (len(self.items) if side != "search" else 0)


@dataclass(frozen=True)
class TrainingEvents:
    """The latest events of the training period of users 1 to ``user_num - 1``, oldest first.

    Args:
        items: the ids of the items of each user's interactions; list u - 1 belongs to user id u.
        queries: the ids of the queries of each user's searches.
        clicks: the ids of the items clicked in each search, in the order of ``queries.values``.
    """

    items: Ragged
    queries: Ragged
    clicks: Ragged


def training_events(
    dataset: SERDataset, max_records: int = 20, max_clicks: int = 1, until: float = 1.0
) -> TrainingEvents:
    """Each user's latest events of ``split.training_searches`` and ``split.training_interactions`` (GSERec, 4.1.1).

    Args:
        max_records: how many of the latest records of each side are kept (published code: 20).
        max_clicks: how many of the first clicked items of each search are kept (published code: 1).
        until: which share of each user's events of either kind is looked at, from the first one on, rounded up.
    """
    log, split = dataset.log, dataset.split
    interactions = split.training_interactions.numpy()
    latest, rec_start = _latest(log.users.numpy()[interactions], max_records, dataset.user_num, until)
    items = Ragged(log.items.numpy()[interactions[latest]], rec_start)
    searches = split.training_searches.numpy()
    users = log.search_users(split.training_searches).numpy()
    latest, search_start = _latest(users, max_records, dataset.user_num, until)
    searches = searches[latest]
    known = np.bincount(dataset.training_clicks.searches.numpy(), minlength=len(log.queries))  # clicks of each search
    starts = np.concatenate([[0], np.cumsum(known)])
    clicks = Ragged(dataset.training_clicks.items.numpy(), starts).take(searches).truncated(max_clicks)
    return TrainingEvents(items, Ragged(log.queries.numpy()[searches], search_start), clicks)


def as_texts(events: TrainingEvents, items: list[str], queries: list[str]) -> list[UserHistory]:
    """The histories as text, that of user id u at index u - 1; the texts of items and queries are given by id."""
    starts = events.clicks.starts.tolist()
    clicked = [items[item] for item in events.clicks.values.tolist()]
    records = [
        SearchRecord(queries[query], tuple(clicked[starts[row] : starts[row + 1]]))
        for row, query in enumerate(events.queries.values.tolist())
    ]
    chosen = [items[item] for item in events.items.values.tolist()]
    search_start, rec_start = events.queries.starts.tolist(), events.items.starts.tolist()
    return [
        UserHistory(
            tuple(records[search_start[user] : search_start[user + 1]]),
            tuple(chosen[rec_start[user] : rec_start[user + 1]]),
        )
        for user in range(len(rec_start) - 1)
    ]


def _latest(users: np.ndarray, count: int, user_num: int, until: float) -> tuple[np.ndarray, np.ndarray]:
    """The last ``count`` of the first ``until`` of each user's events, given the ``users`` of events in order.

    Returns:
        A mask of the events that are kept, and where those of users 1 to ``user_num - 1`` begin, and the last ends.
    """
    counts = np.bincount(users, minlength=user_num)
    place = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]  # of each event among its user's
    looked_at = np.ceil(until * counts).astype(np.int64)[users]
    kept = (place < looked_at) & (place >= looked_at - count)
    return kept, np.cumsum(np.bincount(users[kept], minlength=user_num))
