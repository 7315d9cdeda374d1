"""Events that come with a request, numbered as the data number theirs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_ser.atomic.numbers import are_exact_together
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.histories import Searches
from recbole_ser.data.timed_dataset import TimedDataset
from recbole_ser.errors import DataError
from recbole_ser.inference.event_file import RawEvents, read_event_file
from recbole_ser.inference.user_events import Events, UserEvents

_EXAMPLES = 3


@dataclass(frozen=True)
class GivenEvents:
    """The events of a request.

    Args:
        users: raw ids of the users, in the order in which they appear.
        events: the users' events; ``users[n]`` is user n + 1 here, and user 0 (padding) has none.
        words: int32 ``[m, W]``, right-padded with 0: the words of the m queries that the data do not have.  The ids of
            these queries follow the data's own.
        notes: lines that say what was left out, and what was read in another way than by its id.
    """

    users: list[str]
    events: UserEvents
    words: Tensor
    notes: list[str]


def read_events(source: str | Path | pd.DataFrame, dataset: TimedDataset, new_queries: bool) -> GivenEvents:
    """Read the events in ``source``, a file or a frame (``Recommender`` describes it), with the ids of ``dataset``.

    Args:
        new_queries: whether the model can read a query that has no id; if not, its search is left out.

    Raises:
        DataError: see ``read_event_file``; or the times are not exact beside those of the data.
    """
    columns = {
        "users": dataset.uid_field, "times": dataset.time_field, "items": dataset.iid_field,
        "queries": dataset.query_field, "sources": dataset.source_field, "terms": dataset.terms_field,
        "clicks": dataset.clicks_field,
    }  # fmt: skip
    raw = read_event_file(source, columns, dataset.config["seq_separator"])
    if not are_exact_together(raw.times, dataset.item_times, dataset.search_times):
        problem = "times are fractions here and whole numbers above 2**53 in the data, or the other way round"
        raise DataError(source if isinstance(source, (str, Path)) else "events", problem, column=dataset.time_field)
    users, tokens = pd.factorize(raw.users)
    notes: list[str] = []

    items = numbered(dataset, dataset.iid_field, raw.items)
    notes += note("clicks on unknown items, left out", raw.items[~raw.is_search & (items == 0)])
    clicked = np.flatnonzero(~raw.is_search & (items != 0))

    queries, words = _queries(raw, dataset, new_queries, notes)
    searched = np.flatnonzero(queries != 0)
    clicks = raw.clicks.take(searched)
    ids = numbered(dataset, dataset.iid_field, clicks.values)
    notes += note("unknown items clicked in searches, left out", clicks.values[ids == 0])
    searches = Searches(
        users[searched] + 1, raw.times[searched], queries[searched], _sources(raw, dataset)[searched],
        _without_zeros(ids, clicks.starts),
    )  # fmt: skip
    events = Events(users[clicked] + 1, raw.times[clicked], items[clicked], searches)
    return GivenEvents(list(tokens), UserEvents.of_events(events, len(tokens) + 1), words, notes)


def numbered(dataset: SERDataset, field: str, tokens: np.ndarray) -> np.ndarray:
    """The id of each of ``tokens [n]``, int64 ``[n]``; 0 where the data do not know the token."""
    places, distinct = pd.factorize(tokens)
    known = dataset.field2token_id.get(field, {})
    return np.array([known.get(token, 0) for token in distinct], dtype=np.int64)[places]


def note(what: str, tokens: Iterable[str]) -> list[str]:
    """One line that counts ``tokens`` and lists the first few different ones; no line if there are none."""
    tokens = list(tokens)
    distinct = list(dict.fromkeys(tokens))
    if not tokens:
        return []
    more = ", ..." if len(distinct) > _EXAMPLES else ""
    return [f"{what}: {len(tokens):,} ({', '.join(distinct[:_EXAMPLES])}{more})"]


def _queries(raw: RawEvents, dataset: SERDataset, new_queries: bool, notes: list[str]) -> tuple[np.ndarray, Tensor]:
    """The query of each row, and the words of the queries that are new.

    A query whose id the data do not know is read by its words, of which unknown ones are left out.  If a query of the
    data consists of just the remaining words, it is that query (the first, if there are several); otherwise it is new.
    A row is 0 if it is no search, if no word of its query is known, or if the query is new and the model cannot read
    new ones.
    """
    ids = numbered(dataset, dataset.query_field, raw.queries) * raw.is_search
    unknown = np.flatnonzero(raw.is_search & (ids == 0))
    terms = raw.terms.take(unknown)
    words = numbered(dataset, dataset.terms_field, terms.values)
    notes += note("unknown words of queries, left out", terms.values[words == 0])
    known = _without_zeros(words, terms.starts)
    width = min(int(np.diff(known.starts).max(initial=1)), dataset.config["max_terms_per_query"])
    ids[unknown], new = _matched(dataset, known.padded(width))
    if not new_queries:
        ids[ids >= dataset.query_num] = 0
        new = new[:0]
    texts = [" ".join(terms.values[start:end]) for start, end in zip(terms.starts[:-1], terms.starts[1:])]
    names = np.array([token or text for token, text in zip(raw.queries[unknown], texts)], dtype=object)
    notes += note("searches with an unknown query, read by its known words", names[ids[unknown] != 0])
    notes += note("searches with an unknown query, left out", names[ids[unknown] == 0])
    return ids, torch.from_numpy(new.astype(np.int32))


def _matched(dataset: SERDataset, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The query of each row of words ``table [n, W]``, 0 of none, and the words of the new queries ``[m, W']``.

    The queries of the data are put above the rows of ``table``, in the order of their ids, and equal rows form a group.
    A group that starts among the data's queries is the first of them; a row without words thus finds the padding id 0,
    which has no words either.  Any other group is a new query, numbered behind those of the data.
    """
    known = dataset.query_terms.numpy()
    width = max(known.shape[1], table.shape[1])
    # Only queries with the same first word can be equal: a few, where the data may have millions.
    alike = np.flatnonzero(np.isin(known[:, 0], table[:, 0]))
    both = np.concatenate([_widened(known[alike], width), _widened(table, width)])
    groups, first, group = np.unique(both, axis=0, return_index=True, return_inverse=True)
    is_new = first >= len(alike)
    ids = np.zeros(len(groups), dtype=np.int64)
    ids[~is_new] = alike[first[~is_new]]
    ids[is_new] = dataset.query_num + np.arange(is_new.sum())
    return ids[group.reshape(-1)[len(alike) :]], groups[is_new]


def _sources(raw: RawEvents, dataset: SERDataset) -> np.ndarray:
    if dataset.source_field not in dataset.field2token_id:
        return np.ones(len(raw.sources), dtype=np.int64)  # as in a log without sources
    return numbered(dataset, dataset.source_field, raw.sources)


def _without_zeros(ids: np.ndarray, starts: np.ndarray) -> Ragged:
    return Ragged(ids[ids != 0], np.concatenate([[0], np.cumsum(ids != 0)])[starts])


def _widened(table: np.ndarray, width: int) -> np.ndarray:
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))
