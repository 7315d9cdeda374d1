"""A user's events in flat arrays, and batches of histories gathered from them.

Nothing here has a size of events x history length: a target is a position in the flat array of interactions, and its
histories are the two stretches of events that end where it begins.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from recbole_ser.data.atomic import Ragged


@dataclass(frozen=True)
class EventLog:
    """All events, ordered by (user, time, file order).  Ids are int32, 0 is padding.

    Args:
        items: ``[interactions]`` the item of each interaction.
        users: ``[interactions]`` its user.
        user_start: ``[users + 1]`` where each user's interactions begin, in ``items``.
        searches_before: ``[interactions]`` where the search history of each interaction ends, in ``queries``: behind
            the user's last search that is strictly earlier than the interaction.
        queries: ``[searches]`` the query of each search.
        sources: ``[searches]`` where the search came from; all 1 where the data does not say.
        search_start: ``[users + 1]`` where each user's searches begin, in ``queries``.
        clicks: ``[clicks]`` the clicked items of all searches, end to end.
        click_start: ``[searches + 1]`` where each search's clicks begin.
    """

    items: Tensor
    users: Tensor
    user_start: Tensor
    searches_before: Tensor
    queries: Tensor
    sources: Tensor
    search_start: Tensor
    clicks: Tensor
    click_start: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that all the arrays take."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    @property
    def rec_length(self) -> Tensor:
        """``[interactions]`` how many interactions of the user are earlier, by position."""
        positions = torch.arange(len(self.items), dtype=torch.int32, device=self.items.device)
        return positions - self.user_start[self.users]

    @property
    def search_length(self) -> Tensor:
        """``[interactions]`` how many searches of the user are strictly earlier."""
        return self.searches_before - self.search_start[self.users]


@dataclass(frozen=True)
class Searches:
    """The search side of an event log before it is ordered: one entry per search, in file order."""

    users: np.ndarray
    times: np.ndarray
    queries: np.ndarray
    sources: np.ndarray
    clicks: Ragged


def build_event_log(
    users: np.ndarray, times: np.ndarray, items: np.ndarray, searches: Searches, user_num: int
) -> EventLog:
    """Order both logs and find, for every interaction, where its search history ends.

    Args:
        users, times, items: ``[interactions]`` in file order; times are int64 or float64 in one unit for both logs.
        user_num: number of user ids, the padding id included.
    """
    rec_time, search_time = _comparable(times, searches.times)
    order = _stable_order(users, rec_time, user_num)
    users, rec_time = users[order].astype(np.int32), rec_time[order]
    search_order = _stable_order(searches.users, search_time, user_num)
    search_users, search_time = searches.users[search_order], search_time[search_order]
    before = np.searchsorted(
        _user_time_key(search_users, search_time), _user_time_key(users, rec_time), side="left"
    )  # a search at the interaction's own time is not before it
    clicks = searches.clicks.take(search_order)
    return EventLog(
        items=_int32(items[order]),
        users=torch.from_numpy(users),
        user_start=_starts(users, user_num),
        searches_before=_int32(before),
        queries=_int32(searches.queries[search_order]),
        sources=_int32(searches.sources[search_order]),
        search_start=_starts(search_users, user_num),
        clicks=_int32(clicks.values),
        click_start=_int32(clicks.starts),
    )


@dataclass(frozen=True)
class HistoryReader:
    """Gathers the histories of any targets.

    Args:
        log: the events.
        max_rec: L, latest interactions that are read.
        max_search: S, latest searches that are read.
        max_clicks: C, first clicks of a search that are read.
    """

    log: EventLog
    max_rec: int
    max_search: int
    max_clicks: int

    def read(self, positions: Tensor) -> dict[str, Tensor]:
        """Histories of the interactions at ``positions [B]``, right-padded with 0, oldest first, all int64.

        Returns:
            ``item_id_list [B, L]``, ``item_length [B]``, ``search_query_list [B, S]``,
            ``search_source_list [B, S]``, ``search_click_list [B, S, C]``, ``search_length [B]``.
        """
        log = self.log
        users = log.users[positions]
        rec, rec_inside, rec_length = _window(log.user_start[users], positions, self.max_rec)
        search, search_inside, search_length = _window(
            log.search_start[users], log.searches_before[positions], self.max_search
        )
        clicks, clicks_inside = self._clicks(search, search_inside)
        return {
            "item_id_list": _gather(log.items, rec, rec_inside),  # [B, L]
            "item_length": rec_length,
            "search_query_list": _gather(log.queries, search, search_inside),  # [B, S]
            "search_source_list": _gather(log.sources, search, search_inside),  # [B, S]
            "search_click_list": _gather(log.clicks, clicks, clicks_inside),  # [B, S, C]
            "search_length": search_length,
        }

    def _clicks(self, search: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        search = search.clamp(max=max(len(self.log.queries) - 1, 0))
        if not len(self.log.queries):
            empty = search.unsqueeze(-1).expand(-1, -1, self.max_clicks)
            return empty, torch.zeros_like(empty, dtype=torch.bool)
        start = self.log.click_start[search].long().unsqueeze(-1)  # [B, S, 1]
        end = self.log.click_start[search + 1].unsqueeze(-1)  # [B, S, 1]
        clicks = start + torch.arange(self.max_clicks, device=start.device)  # [B, S, C]
        return clicks, (clicks < end) & inside.unsqueeze(-1)


def _window(start: Tensor, end: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The last ``width`` places of each stretch ``start [B]`` to ``end [B]``.

    Returns:
        Places ``[B, width]``, which of them are inside the stretch, and how many are ``[B]``.
    """
    start, end = start.long(), end.long()
    first = torch.maximum(start, end - width)
    places = first.unsqueeze(1) + torch.arange(width, device=start.device)  # [B, width]
    return places, places < end.unsqueeze(1), end - first


def _gather(values: Tensor, places: Tensor, inside: Tensor) -> Tensor:
    if not len(values):
        return torch.zeros_like(places)
    return values[places.clamp(max=len(values) - 1)].long() * inside


def _stable_order(users: np.ndarray, times: np.ndarray, user_num: int) -> np.ndarray:
    key = _user_time_key(users, times)
    return np.arange(len(key)) if bool(np.all(key[1:] >= key[:-1])) else np.argsort(key, kind="stable")


def _comparable(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both time columns as int64 with the same order and the same ties, from 0, and small enough for a user's id."""
    if a.dtype.kind == "i" and b.dtype.kind == "i":
        both = [int(column.min()) for column in (a, b) if len(column)]
        lowest = min(both, default=0)
        highest = max((int(column.max()) for column in (a, b) if len(column)), default=0)
        if highest - lowest < _TIME_SPAN:
            return a - lowest, b - lowest
    ranks = np.unique(np.concatenate([a, b]), return_inverse=True)[1].astype(np.int64)
    return ranks[: len(a)], ranks[len(a) :]


_TIME_SPAN = 1 << 37  # leaves 26 bits for the user; a longer span of times is replaced by its ranks


def _user_time_key(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    return users.astype(np.int64) * _TIME_SPAN + times


def _starts(users: np.ndarray, user_num: int) -> Tensor:
    return _int32(np.concatenate([[0], np.cumsum(np.bincount(users, minlength=user_num))]))


def _int32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32))
