"""The statistics of a data set that papers print, counted on the data that a run would load.

Words that could be understood in several ways have these meanings:

- An event is *tied* if another event of the same user has the same time; *within* its own log, or *between* the logs.
- *Sparsity* is one minus a share: that of the (user, item) pairs with an interaction among all pairs of a user and an
  item with at least one interaction.
- *A search's click is an interaction* if its user has an interaction with the clicked item, at any time.

:mod:`recbole_ser.statistics.interests` counts what SESRec's Figure 1(b) shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from recbole_ser.atomic.time_unit import DAY, UNITS, unit_of
from recbole_ser.config import SERConfig
from recbole_ser.data.histories import Searches
from recbole_ser.data.instances import targets_by_split, targets_of
from recbole_ser.data.keys import distinct
from recbole_ser.data.splits import LEAVE_ONE_OUT, points_of
from recbole_ser.data.timed_dataset import TimedDataset
from recbole_ser.statistics.interests import Interests, count_interests

QUANTILES = (25, 50, 75, 90, 99)
SEARCH_EDGES = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # a group of users begins at each number of searches
PERIODS = 60  # how many periods the time is divided into, for the course of both logs

_ALL = (1 << 31) - 1


class DescribedDataset(TimedDataset):
    """A data set that keeps all clicks of a search.

    Attributes:
        query_lengths: the number of words of each query that ``X.query`` lists.
        asked_split: the rule of the split that the user's files set, if they do.
    """

    query_lengths: np.ndarray
    asked_split: Mapping[str, Any] | None = None

    def _query_terms(self) -> Any:
        terms = self.sequences.get(("query_feat", self.terms_field))
        self.query_lengths = np.zeros(0, dtype=np.int64) if terms is None else np.diff(terms.starts)
        return super()._query_terms()


@dataclass(frozen=True)
class Distribution:
    """How a number is distributed: it has the value ``values[k]`` in ``counts[k]`` cases.

    Quantiles are values that occur.  Mean, extremes and quantiles are ``None`` if there is nothing to count.
    """

    mean: float | None
    minimum: int | None
    quantiles: Mapping[str, int | None]
    maximum: int | None
    values: list[int]
    counts: list[int]

    @classmethod
    def of(cls, numbers: np.ndarray) -> Distribution:
        if not len(numbers):
            return cls(None, None, {f"{q}%": None for q in QUANTILES}, None, [], [])
        values, counts = np.unique(numbers, return_counts=True)
        places = np.searchsorted(np.cumsum(counts), np.array(QUANTILES) / 100 * len(numbers))
        quantiles = {f"{q}%": int(values[place]) for q, place in zip(QUANTILES, places)}
        return cls(float(numbers.mean()), int(values[0]), quantiles, int(values[-1]), values.tolist(), counts.tolist())


@dataclass(frozen=True)
class Course:
    """The numbers of events in ``PERIODS`` equal periods from the first event to the last.

    ``unit``, one of `time_unit.UNITS`, is that of the times; ``None`` if it is not known.
    """

    first: float
    last: float
    unit: str | None
    interactions: list[int]
    searches: list[int]


@dataclass(frozen=True)
class Statistics:
    """The result of ``recbole-ser describe``.

    Args:
        dataset: name of the data set.
        data: hash of the files, as runs report it.
        counts: the numbers in the papers' Table 1 and some more, by name.
        sparsity: between 0 and 1, see the module.
        instances: what each split holds, by rule and protocol, see ``targets_by_split``.
        distributions: distributions by the name of what is counted; test targets are those of the first rule.
        users_by_searches: number of users in each range of numbers of searches, by the label of the range.
        ties, clicks: shares between 0 and 1 by name; ``None`` if there is nothing to take the share of.
        course: the numbers of events over time.
        interests: ``None`` if items have no categories, or the unit of times is not known.
    """

    dataset: str
    data: str
    counts: dict[str, int]
    sparsity: float
    instances: dict[str, dict[str, dict[str, int]] | None]
    distributions: dict[str, Distribution]
    users_by_searches: dict[str, int]
    ties: dict[str, float | None]
    clicks: dict[str, float | None]
    course: Course
    interests: Interests | None

    def as_dict(self) -> dict[str, Any]:
        """The statistics as values that JSON can hold."""
        return asdict(self)


def load_described(folder: Path, config_files: str | Path | Sequence[str | Path] | None = None) -> DescribedDataset:
    """Load the data set in ``folder`` as a run would, whether or not its targets have both histories.

    Raises:
        DataError, ConfigError: a run could not load the data set either.
    """
    values = {"data_path": str(folder.parent), "require_both_histories": False}
    config = SERConfig("Pop", folder.name, config_files, values)
    asked = (config.external_config_dict.get("eval_args") or {}).get("split")
    # Leave-one-out fits all data; other splits are counted without being loaded.
    config["eval_args"] = {**config["eval_args"], "split": LEAVE_ONE_OUT}
    config["max_clicks_per_search"] = _ALL  # far more than a run may keep
    dataset = DescribedDataset(config)
    dataset.asked_split = asked
    return dataset


def describe(
    dataset: DescribedDataset,
    category: str | None = None,
    spontaneous: tuple[str, ...] = (),
    unit: str | None = None,
    split: Mapping[str, Any] | None = None,
) -> Statistics:
    """Count everything.

    Args:
        category: column of ``X.item`` that holds categories; ``None``: the first column whose name says so, if any.
        spontaneous: values of ``source`` that mean searches of the user's own accord.
        unit: unit of the times, one of `time_unit.UNITS`; ``None``: it is guessed.
        split: the rule of the split, see `recbole_ser.data.splits`; ``None``: the one of the user's files, or the
            common ones.

    Raises:
        ConfigError: the named column does not exist, no search has one of the named sources, or ``split`` does not fit.
    """
    log, events = dataset.log, _Events(dataset)
    unit = unit or unit_of(float(np.median(dataset.item_times)))
    searches = log.search_start.diff()[1:].numpy()  # of every user but padding
    split = split or dataset.asked_split
    users, times, rule = log.users.numpy(), dataset.item_times, split or LEAVE_ONE_OUT
    test = targets_of(log, True, rule, points_of(rule, users, times, Searches.none(), dataset.user_num)).test
    return Statistics(
        dataset.dataset_name,
        dataset.data_hash,
        _counts(dataset),
        1 - len(events.pairs) / ((dataset.user_num - 1) * (dataset.target_num - 1)),
        targets_by_split(log, users, times, split),
        _distributions(dataset, searches, test),
        _by_edges(searches),
        _ties(events),
        _clicks(events),
        _course(dataset, unit),
        None if unit is None else count_interests(dataset, category, spontaneous, DAY * UNITS[unit]),
    )


def _counts(dataset: DescribedDataset) -> dict[str, int]:
    summary = dataset.summary()
    return {
        **{name: summary[name] for name in ("users", "items", "queries", "searches", "interactions")},
        "clicks": len(dataset.log.clicks),
        "items with an interaction": dataset.target_num - 1,
        "items only clicked": dataset.item_num - dataset.target_num,
        "words": max(dataset.term_num - 1, 0),
    }


def _distributions(dataset: DescribedDataset, searches: np.ndarray, test: Tensor) -> dict[str, Distribution]:
    log = dataset.log
    numbers = {
        "interactions of a user": log.user_start.diff()[1:].numpy(),
        "searches of a user": searches,
        "interactions of an item": np.bincount(log.items.numpy(), minlength=dataset.target_num)[1:],
        "clicks of a search": log.click_start.diff().numpy(),
        "words of a query": dataset.query_lengths,
        "interactions before a test": log.rec_length[test].numpy(),
        "searches before a test": log.search_length[test].numpy(),
    }
    return {name: Distribution.of(values) for name, values in numbers.items()}


def _by_edges(searches: np.ndarray) -> dict[str, int]:
    groups = np.bincount(np.searchsorted(SEARCH_EDGES, searches, side="right") - 1, minlength=len(SEARCH_EDGES))
    ends = [str(b - 1) for b in SEARCH_EDGES[1:]] + [""]
    labels = [str(a) if str(a) == end else f"{a}-{end}" if end else f"{a}+" for a, end in zip(SEARCH_EDGES, ends)]
    return dict(zip(labels, groups.tolist()))


# --- ties and clicks --------------------------------------------------------------------------------------------------


class _Events:
    """Both logs as keys that can be compared: one number for each (user, time) and for each (user, item)."""

    def __init__(self, dataset: DescribedDataset) -> None:
        log = dataset.log
        self.users, self.items = log.users.numpy().astype(np.int64), log.items.numpy()
        self.search_users = np.repeat(np.arange(dataset.user_num), log.search_start.diff().numpy())
        self.clicks, self.click_numbers = log.clicks.numpy(), log.click_start.diff().numpy()
        self.item_num = dataset.item_num
        moments, ranks = np.unique(np.concatenate([dataset.item_times, dataset.search_times]), return_inverse=True)
        self.moments = len(moments)
        self.ranks, self.search_ranks = ranks[: len(self.items)], ranks[len(self.items) :]

    @cached_property
    def keys(self) -> tuple[np.ndarray, np.ndarray]:
        """The key of (user, time) of each interaction, and of each search, rising."""
        return self.users * self.moments + self.ranks, self.search_users * self.moments + self.search_ranks

    @cached_property
    def pairs(self) -> np.ndarray:
        """The distinct keys of (user, item) of interactions, rising."""
        return distinct(self.users * self.item_num + self.items)


def _ties(events: _Events) -> dict[str, float | None]:
    keys, search_keys = events.keys
    within, search_within = _repeated(keys), _repeated(search_keys)
    between, search_between = np.isin(keys, search_keys), np.isin(search_keys, keys)
    tied = distinct(np.concatenate([events.users[within | between], events.search_users[search_within]]))
    return {
        "interactions, within their log": _share(within),
        "searches, within their log": _share(search_within),
        "interactions, with a search": _share(between),
        "searches, with an interaction": _share(search_between),
        "users with any tie": len(tied) / len(distinct(events.users)),
    }


def _repeated(keys: np.ndarray) -> np.ndarray:
    """A mask of those of the rising ``keys`` that occur more than once."""
    same = keys[1:] == keys[:-1]
    return (np.append(same, False) | np.append(False, same))[: len(keys)]


def _clicks(events: _Events) -> dict[str, float | None]:
    # A click is an interaction if its key (user, item) is among those of interactions.  The interaction has the time of
    # the search if (place of that key, time of the search), as one number, is also among those of interactions.
    searches = np.repeat(np.arange(len(events.click_numbers)), events.click_numbers)  # the search of each click
    pair = events.search_users[searches] * events.item_num + events.clicks
    place = np.minimum(np.searchsorted(events.pairs, pair), len(events.pairs) - 1)
    taken = events.pairs[place] == pair
    own_pairs = np.searchsorted(events.pairs, events.users * events.item_num + events.items)
    now = np.isin(place * events.moments + events.search_ranks[searches], own_pairs * events.moments + events.ranks)
    clicked = events.click_numbers > 0
    interactions, at_once = _per_search(taken, events)[clicked], _per_search(taken & now, events)[clicked]
    return {
        "searches without click": _share(~clicked),
        "clicked searches, all clicks are interactions": _share(interactions == events.click_numbers[clicked]),
        "clicked searches, some click is one": _share(interactions > 0),
        "clicked searches, some click is one at the search's time": _share(at_once > 0),
    }


def _per_search(marked: np.ndarray, events: _Events) -> np.ndarray:
    """The number of clicks of each search that are ``marked [clicks]``."""
    before = np.concatenate([[0], np.cumsum(marked)])
    ends = np.cumsum(events.click_numbers)
    return before[ends] - before[ends - events.click_numbers]


def _share(marked: np.ndarray) -> float | None:
    return float(marked.mean()) if len(marked) else None


def _course(dataset: DescribedDataset, unit: str | None) -> Course:
    both = [dataset.item_times, dataset.search_times]
    first = float(min(times.min() for times in both if len(times)))
    last = float(max(times.max() for times in both if len(times)))
    interactions, searches = (np.histogram(times, PERIODS, (first, last))[0].tolist() for times in both)
    return Course(first, last, unit, interactions, searches)
