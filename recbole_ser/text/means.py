"""Vectors of users as means of the vectors of what they searched for and chose."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from recbole_ser.text.user_histories import Side, TrainingEvents
from recbole_ser.text.vectors.distinct import unit_rows


def queries_read(events: TrainingEvents, side: Side) -> np.ndarray:
    """The distinct ids of the queries that ``mean_vectors`` reads, in order."""
    return np.unique(events.queries.values) if side != "rec" else np.zeros(0, dtype=np.int64)


def mean_vectors(events: TrainingEvents, side: Side, items: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Each user's mean of the vectors of the events of ``side``, scaled to length 1, float32 ``[users, m]``.

    Every event counts the same, however long ago it was, and so do the query and each clicked item of a search.  Only
    the latest events are here at all, see ``training_events``.  A user without events has zeros.

    Args:
        items: ``[item_num - 1, m]``; row r belongs to item id r + 1.
        queries: ``[queries read, m]``, in the order of ``queries_read``.
    """
    users = np.arange(len(events.items.starts) - 1)
    owners, places = [], []  # of the terms of all means: the user, and the row of the vector
    if side != "search":
        owners.append(np.repeat(users, np.diff(events.items.starts)))
        places.append(events.items.values - 1)
    if side != "rec":
        searchers = np.repeat(users, np.diff(events.queries.starts))  # of each search
        owners += [searchers, np.repeat(searchers, np.diff(events.clicks.starts))]
        rows = np.searchsorted(queries_read(events, side), events.queries.values)
        places += [len(items) + rows, events.clicks.values - 1]
    vectors = np.concatenate([items, queries])
    user, place = np.concatenate(owners), np.concatenate(places)
    counts = csr_matrix((np.ones(len(user), np.float32), (user, place)), shape=(len(users), len(vectors)))
    return unit_rows(counts @ vectors)
