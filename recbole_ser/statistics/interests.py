"""Spontaneous and passive search, and whether a search is like what the user lately took: SESRec, Figure 1(b).

A search is *spontaneous* if the user typed the query of their own accord, *passive* if they followed a suggested one.
A log says so, if at all, in the source of a search (``X.search``, ``source``), so the sources that are spontaneous have
to be named.

A search is *similar* to the user's recent interests if all the categories of its clicked items are among those of the
items that the user interacted with in the seven days before it; otherwise it is *dissimilar*.  An interaction at the
very time of the search is not before it.  Searches without a clicked item that has a category are not judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.item_categories import category_column, item_categories
from recbole_ser.data.keys import distinct
from recbole_ser.data.timed_dataset import TimedDataset
from recbole_ser.errors import ConfigError

RECENT_DAYS = 7

_EVENTS_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class SearchKind:
    """How many searches there are of one kind, how many of them are judged, and how many of these are similar."""

    kind: str
    searches: int
    judged: int
    similar: int


@dataclass(frozen=True)
class Interests:
    """The searches of each kind and, in the last row, all of them.

    Kinds are spontaneous and passive where the spontaneous sources are named, and the sources themselves otherwise.
    """

    category: str
    rows: list[SearchKind]


def count_interests(
    dataset: TimedDataset, category: str | None, spontaneous: tuple[str, ...], day: int
) -> Interests | None:
    """Count the searches of each kind that are similar to their user's recent interests.

    Args:
        category: column of ``X.item`` (token or token_seq) that holds the categories; ``None``: the first such column
            with "categor" in its name.
        spontaneous: values of ``source`` that mean a spontaneous search; every other search is passive.
        day: length of a day in the data's unit of time.

    Returns:
        ``None`` if no column is named and none is found.

    Raises:
        ConfigError: the named column does not exist, or no search has one of the named sources.
    """
    name = category or category_column(dataset)
    if name is None:
        return None
    judged, similar = _judge(dataset, item_categories(dataset, name)[0], RECENT_DAYS * day)
    rows = [
        SearchKind(kind, int(inside.sum()), int((judged & inside).sum()), int((similar & inside).sum()))
        for kind, inside in _kinds(dataset, spontaneous)
    ]
    return Interests(name, rows)


def _kinds(dataset: TimedDataset, spontaneous: tuple[str, ...]) -> list[tuple[str, np.ndarray]]:
    """The name of each kind with a mask, bool ``[searches]``, of the searches of this kind."""
    sources = dataset.log.sources.numpy()
    everything = [("all", np.ones(len(sources), dtype=bool))]
    known = dataset.field2token_id.get(dataset.source_field, {})
    for source in spontaneous:
        if source not in known:
            there = f"there are {', '.join(list(known)[1:])}" if known else "searches have no source"
            raise ConfigError(f"no search has the source '{source}': {there}")
    if spontaneous:
        own = np.isin(sources, [known[source] for source in spontaneous])
        return [("spontaneous", own), ("passive", ~own), *everything]
    kinds = [(source, sources == number) for source, number in known.items() if number]
    return [*kinds, *everything]


def _judge(dataset: TimedDataset, categories: Ragged, span: int) -> tuple[np.ndarray, np.ndarray]:
    """Two masks, bool ``[searches]``: which searches can be judged, and which of those are similar.

    The clicks of all searches are unrolled into one entry per category of a clicked item.  A search can be judged if
    it has an entry, and is similar if its user lately met the category of every entry: none is missed.
    """
    log, count = dataset.log, int(categories.values.max(initial=0)) + 1
    clicked = categories.take(log.clicks.numpy())
    per_click = np.diff(clicked.starts)
    search = np.repeat(np.repeat(np.arange(len(log.queries)), log.click_start.diff().numpy()), per_click)
    users = np.repeat(np.arange(dataset.user_num), log.search_start.diff().numpy())
    missed = ~_seen_lately(dataset, categories, count, users[search] * count + clicked.values, search, span)
    judged = np.bincount(search, minlength=len(log.queries)) > 0
    return judged, judged & (np.bincount(search[missed], minlength=len(log.queries)) == 0)


def _seen_lately(
    dataset: TimedDataset, categories: Ragged, count: int, pair: np.ndarray, search: np.ndarray, span: int
) -> np.ndarray:
    """bool ``[n]``: whether ``pair [n]`` (user * ``count`` + category) occurs in the ``span`` before ``search [n]``.

    It is enough to look at the latest interaction with the pair that is strictly before the search.  One binary search
    finds it: every interaction becomes one number that sorts by (pair, moment), with pairs and moments replaced by
    their places among the distinct ones so that the number fits into int64.  What stands just below the number of
    (pair, moment of the search) is that latest interaction; if it belongs to another pair, there is none.
    """
    if not len(pair):
        return np.zeros(0, dtype=bool)
    wanted, number = np.unique(pair, return_inverse=True)
    moments = distinct(np.concatenate([dataset.item_times, dataset.search_times]))
    keys = np.sort(_keys_of_interactions(dataset, categories, count, wanted, moments))
    now = dataset.search_times[search]
    place = np.searchsorted(keys, number * len(moments) + np.searchsorted(moments, now)) - 1  # the last one before
    last = np.append(keys, -1)[place]  # -1 is in no pair: it answers where nothing at all is before
    return (last // len(moments) == number) & (moments[last % len(moments)] >= now - span)


def _keys_of_interactions(
    dataset: TimedDataset, categories: Ragged, count: int, wanted: np.ndarray, moments: np.ndarray
) -> np.ndarray:
    """The number (place in ``wanted``) * moments + (place in ``moments``) for each category of each interaction.

    Pairs that no search asks for, those that are not in the sorted ``wanted``, are left out.  Interactions are read in
    parts, since each may have many categories.
    """
    keys = []
    for start in range(0, len(dataset.item_times), _EVENTS_AT_A_TIME):
        part = slice(start, start + _EVENTS_AT_A_TIME)
        lists = categories.take(dataset.log.items[part].numpy())
        lengths = np.diff(lists.starts)
        pair = np.repeat(dataset.log.users[part].numpy().astype(np.int64), lengths) * count + lists.values
        place = np.minimum(np.searchsorted(wanted, pair), len(wanted) - 1)
        inside = wanted[place] == pair
        moment = np.repeat(np.searchsorted(moments, dataset.item_times[part]), lengths)
        keys.append(place[inside] * len(moments) + moment[inside])
    return np.concatenate(keys)
