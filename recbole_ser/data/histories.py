"""All events in flat arrays, and batches of histories gathered from them.

No array here has the size events x history length: a target is a position in the flat array of interactions, and its
histories are the two stretches of its user's interactions and searches that end just before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_ser.atomic.ragged import Ragged


@dataclass(frozen=True)
class EventLog:
    """All events, ordered by (user, time, file order).  All arrays are int32, and id 0 is padding.

    Args:
        items: ``[interactions]`` the item of each interaction.
        users: ``[interactions]`` the user of each interaction.
        user_start: ``[users + 1]`` where each user's interactions begin, in ``items``.
        searches_before: ``[interactions]`` where the search history of each interaction ends, in ``queries``: behind
            the user's last search that is strictly earlier than the interaction.
        interactions_before: ``[searches]`` where the interaction history of each search ends in ``items``: behind the
            user's last interaction that is strictly earlier than the search.
        queries: ``[searches]`` the query of each search.
        sources: ``[searches]`` where the search came from; all 1 where the data does not say.
        search_start: ``[users + 1]`` where each user's searches begin, in ``queries``.
        clicks: ``[clicks]`` the clicked items of all searches, end to end.
        click_start: ``[searches + 1]`` where each search's clicks begin.
        item_sessions, search_sessions: the session of each interaction and search, rising within a user; ``None``
            where events are not divided into sessions.
        interactions_until_click, searches_until_click: ``[clicks]`` where, in ``items`` and in ``queries``, the events
            of the user begin that are strictly later than the click: only these have the click in their history.
            ``None`` where every click has the time of its search.
    """

    items: Tensor
    users: Tensor
    user_start: Tensor
    searches_before: Tensor
    interactions_before: Tensor
    queries: Tensor
    sources: Tensor
    search_start: Tensor
    clicks: Tensor
    click_start: Tensor
    item_sessions: Tensor | None = None
    search_sessions: Tensor | None = None
    interactions_until_click: Tensor | None = None
    searches_until_click: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """How many bytes all the arrays take together."""
        arrays = [getattr(self, field.name) for field in fields(self)]
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def rec_length(self) -> Tensor:
        """``[interactions]`` how many interactions of the same user come before each, by position."""
        positions = torch.arange(len(self.items), dtype=torch.int32, device=self.items.device)
        return positions - self.user_start[self.users]

    @property
    def search_length(self) -> Tensor:
        """``[interactions]`` how many searches of the same user are strictly earlier than each."""
        return self.searches_before - self.search_start[self.users]

    def search_users(self, searches: Tensor) -> Tensor:
        """The user ``[n]``, int64, of each of ``searches [n]``."""
        return torch.searchsorted(self.search_start, searches.to(torch.int32), right=True) - 1

    def searches_of_clicks(self, clicks: Tensor) -> Tensor:
        """The search ``[n]``, int64, under which each of ``clicks [n]`` (places in ``clicks``) happened."""
        return torch.searchsorted(self.click_start, clicks.to(torch.int32), right=True) - 1


@dataclass(frozen=True)
class Searches:
    """The search side of an event log before it is ordered: one entry per search, in file order.

    ``click_times`` holds the time of each of ``clicks.values``, rising within a search; ``None``: every click has the
    time of its search.
    """

    users: np.ndarray
    times: np.ndarray
    queries: np.ndarray
    sources: np.ndarray
    clicks: Ragged
    click_times: np.ndarray | None = None

    @classmethod
    def none(cls) -> Searches:
        """The search side of a data set without searches."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(nothing, nothing, nothing, nothing, Ragged(nothing, np.zeros(1, dtype=np.int64)))


def build_event_log(
    users: np.ndarray,
    times: np.ndarray,
    items: np.ndarray,
    searches: Searches,
    user_num: int,
    session_gap: float | None = None,
) -> EventLog:
    """Order both logs and find, for every event, where its history of the other kind ends.

    Each event gets one int64 key that sorts by (user, time).  Both logs are ordered by their keys, so the place at
    which an interaction's key would be inserted among the keys of the searches is the end of its search history:
    in front of it are all searches of the users before, and those of its own user that are strictly earlier.  One
    ``searchsorted`` finds these places for all interactions at once, and likewise for searches and clicks.

    Args:
        users, times, items: ``[interactions]`` in file order; times are int64 or float64 in one unit for both logs.
        user_num: number of user ids, the padding id included.
        session_gap: a session ends where a user's next event, of either kind, is more than this much later; ``None``:
            events are not divided into sessions.
    """
    item_sessions, search_sessions = (
        (None, None) if session_gap is None else _sessions(users, times, searches, session_gap)
    )
    click_time = times[:0] if searches.click_times is None else searches.click_times
    rec_time, search_time, click_time = _comparable(times, searches.times, click_time)
    order = _stable_order(users, rec_time, user_num)
    users, rec_time = users[order].astype(np.int32), rec_time[order]
    search_order = _stable_order(searches.users, search_time, user_num)
    search_users, search_time = searches.users[search_order], search_time[search_order]
    rec_key, search_key = _user_time_key(users, rec_time), _user_time_key(search_users, search_time)
    # An event of the other kind at the event's own time is not before it.
    searches_before = np.searchsorted(search_key, rec_key, side="left")
    interactions_before = np.searchsorted(rec_key, search_key, side="left")
    clicks = searches.clicks.take(search_order)
    until_click: dict[str, Tensor] = {}
    if searches.click_times is not None:
        click_time = Ragged(click_time, searches.clicks.starts).take(search_order).values
        click_key = _user_time_key(np.repeat(search_users, np.diff(clicks.starts)), click_time)
        for name, key in [("interactions_until_click", rec_key), ("searches_until_click", search_key)]:
            until_click[name] = _int32(np.searchsorted(key, click_key, side="right"))
    return EventLog(
        items=_int32(items[order]),
        users=torch.from_numpy(users),
        user_start=_starts(users, user_num),
        searches_before=_int32(searches_before),
        interactions_before=_int32(interactions_before),
        queries=_int32(searches.queries[search_order]),
        sources=_int32(searches.sources[search_order]),
        search_start=_starts(search_users, user_num),
        clicks=_int32(clicks.values),
        click_start=_int32(clicks.starts),
        item_sessions=None if item_sessions is None else _int32(item_sessions[order]),
        search_sessions=None if search_sessions is None else _int32(search_sessions[search_order]),
        **until_click,
    )


@dataclass(frozen=True)
class HistoryReader:
    """Gathers the histories of any targets.

    Args:
        log: the events that the histories consist of.
        max_rec: L, how many of the latest interactions are read.
        max_search: S, how many of the latest searches are read.
        max_clicks: C, how many of the first clicks of each search are read.
        item_list, item_length: the names of the fields of the interactions and of their number.
    """

    log: EventLog
    max_rec: int
    max_search: int
    max_clicks: int
    item_list: str = "item_id_list"
    item_length: str = "item_length"

    @classmethod
    def of(cls, config: Any, log: EventLog) -> HistoryReader:
        """A reader with the lengths and the names that ``config`` gives."""
        lengths = (config["MAX_ITEM_LIST_LENGTH"], config["max_search_length"], config["max_clicks_per_search"])
        return cls(log, *lengths, config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"], config["ITEM_LIST_LENGTH_FIELD"])

    def read(self, positions: Tensor) -> dict[str, Tensor]:
        """The histories of the interactions at ``positions [B]``, oldest event first, right-padded with 0, int64.

        Returns:
            ``item_id_list [B, L]``, ``item_length [B]``, ``search_query_list [B, S]``,
            ``search_source_list [B, S]``, ``search_click_list [B, S, C]``, ``search_length [B]``,
            ``search_place_list [B, S]`` (how many items of ``item_id_list`` come before the search; an interaction
            at the search's own time comes after it) and, if the log has sessions, ``item_session_list [B, L]`` and
            ``search_session_list [B, S]`` (how many sessions an event is before the target's session).
        """
        log = self.log
        sessions = None if log.item_sessions is None else log.item_sessions[positions]
        known_from = log.interactions_until_click
        return self._read(
            log.users[positions].long(), positions, log.searches_before[positions], sessions, known_from, positions
        )

    def read_through(self, positions: Tensor) -> dict[str, Tensor]:
        """Like `read`, but with the interactions at ``positions [B]`` themselves as the last ones: L + 1 of them."""
        log, reader = self.log, replace(self, max_rec=self.max_rec + 1)
        users, known_from = log.users[positions].long(), log.interactions_until_click
        sessions = None if log.item_sessions is None else log.item_sessions[positions]
        return reader._read(users, positions + 1, log.searches_before[positions], sessions, known_from, positions)

    def read_searches(self, searches: Tensor) -> dict[str, Tensor]:
        """Like `read`, for the searches at positions ``searches [B]`` in the log.

        Their histories are the searches before them by position, and the interactions that are strictly earlier.
        """
        log = self.log
        sessions = None if log.search_sessions is None else log.search_sessions[searches]
        known_from = log.searches_until_click
        return self._read(
            log.search_users(searches), log.interactions_before[searches], searches, sessions, known_from, searches
        )

    def without(self, histories: Mapping[str, Tensor], interactions: Tensor, searches: Tensor) -> dict[str, Tensor]:
        """The histories of one row, ``[1, ...]`` as `read` gives them, once for each event that is left out of them.

        Row b lacks the interaction at place ``interactions [b]`` and the search at place ``searches [b]``; a place
        behind the last event leaves none out.  Later events move up by one place, and no older event comes in.  What
        is known of the other events stays, their sessions too; only ``search_place_list`` counts one less.
        """
        of_interactions = (self.item_list, "item_session_list")
        lists = [name for name, values in histories.items() if values.dim() > 1]  # the others are lengths
        rows = {
            name: _closed_up(histories[name][0], interactions if name in of_interactions else searches)
            for name in lists
        }
        for name, places in ((self.item_length, interactions), ("search_length", searches)):
            rows[name] = histories[name] - (places < histories[name]).long()
        before = rows["search_place_list"] > interactions.unsqueeze(1)  # [b, S]: the interaction is before the search
        rows["search_place_list"] = rows["search_place_list"] - before.long()
        return rows

    def _read(
        self,
        users: Tensor,
        rec_end: Tensor,
        search_end: Tensor,
        sessions: Tensor | None,
        known_from: Tensor | None,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """Histories of ``users [B]`` that end at ``rec_end [B]`` (interactions) and ``search_end [B]`` (searches).

        A click is read only if it is earlier than the target: if its entry in ``known_from [clicks]``, the first
        position that has it in its history, is at most the target's position in ``targets [B]``.
        """
        log = self.log
        rec, rec_inside, rec_length = _window(log.user_start[users], rec_end, self.max_rec)
        search, search_inside, search_length = _window(log.search_start[users], search_end, self.max_search)
        clicks, clicks_inside = self._clicks(search, search_inside)
        if known_from is not None:
            clicks_inside &= _gather(known_from, clicks, clicks_inside) <= targets.view(-1, 1, 1)
        interactions_before = _gather(log.interactions_before, search, search_inside)  # [B, S]
        place = (interactions_before - rec[:, :1]).clamp(min=0)  # in the window of interactions
        histories = {
            self.item_list: _gather(log.items, rec, rec_inside),  # [B, L]
            self.item_length: rec_length,
            "search_query_list": _gather(log.queries, search, search_inside),  # [B, S]
            "search_source_list": _gather(log.sources, search, search_inside),  # [B, S]
            "search_click_list": _gather(log.clicks, clicks, clicks_inside),  # [B, S, C]
            "search_length": search_length,
            "search_place_list": place * search_inside,  # [B, S]
        }
        if sessions is None or log.item_sessions is None or log.search_sessions is None:
            return histories
        ago = [
            (sessions.long().unsqueeze(1) - _gather(numbers, places, inside)) * inside
            for numbers, places, inside in [
                (log.item_sessions, rec, rec_inside),
                (log.search_sessions, search, search_inside),
            ]
        ]
        return {**histories, "item_session_list": ago[0], "search_session_list": ago[1]}

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
        The places ``[B, width]``, a mask ``[B, width]`` of those inside the stretch, and their number ``[B]``.
    """
    start, end = start.long(), end.long()
    first = torch.maximum(start, end - width)
    places = first.unsqueeze(1) + torch.arange(width, device=start.device)  # [B, width]
    return places, places < end.unsqueeze(1), end - first


def _gather(values: Tensor, places: Tensor, inside: Tensor) -> Tensor:
    if not len(values):
        return torch.zeros_like(places)
    return values[places.clamp(max=len(values) - 1)].long() * inside


def _closed_up(values: Tensor, places: Tensor) -> Tensor:
    """``[b, T, ...]``: ``values [T, ...]`` without the entry at each of ``places [b]``, and a 0 at the end instead."""
    steps = torch.arange(len(values), device=values.device)
    source = steps + (steps >= places.unsqueeze(1)).long()  # [b, T]
    return torch.cat([values, torch.zeros_like(values[:1])])[source]


def _sessions(users: np.ndarray, times: np.ndarray, searches: Searches, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """The session of each interaction and of each search, in the order given; numbers rise with (user, time)."""
    both_users, both_times = np.concatenate([users, searches.users]), np.concatenate([times, searches.times])
    order = np.lexsort((both_times, both_users))
    passed = np.diff(both_times[order])
    passed = passed.view(np.uint64) if passed.dtype == np.int64 else passed  # a user's times rise: no sign, no overflow
    begins = (np.diff(both_users[order]) != 0) | (passed > gap)
    numbers = np.empty(len(order), dtype=np.int32)
    numbers[order] = np.concatenate([[0], np.cumsum(begins)])
    return numbers[: len(users)], numbers[len(users) :]


def _stable_order(users: np.ndarray, times: np.ndarray, user_num: int) -> np.ndarray:
    key = _user_time_key(users, times)
    return np.arange(len(key)) if bool(np.all(key[1:] >= key[:-1])) else np.argsort(key, kind="stable")


def _comparable(*columns: np.ndarray) -> list[np.ndarray]:
    """The columns of times as int64 from 0, with the same order and ties, and small enough for `_user_time_key`.

    Whole numbers are shifted to start at 0.  Fractions, and times that span more than ``_TIME_SPAN``, are replaced by
    their ranks among all distinct times: the keys only compare times.
    """
    if all(column.dtype.kind == "i" for column in columns):
        lowest = min((int(column.min()) for column in columns if len(column)), default=0)
        highest = max((int(column.max()) for column in columns if len(column)), default=0)
        if highest - lowest < _TIME_SPAN:
            return [column - lowest for column in columns]
    ranks = np.unique(np.concatenate(columns), return_inverse=True)[1].astype(np.int64)
    return np.split(ranks, np.cumsum([len(column) for column in columns])[:-1])


_TIME_SPAN = 1 << 37  # leaves 26 bits of a positive int64 for the user id


def _user_time_key(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    return users.astype(np.int64) * _TIME_SPAN + times


def _starts(users: np.ndarray, user_num: int) -> Tensor:
    return _int32(np.concatenate([[0], np.cumsum(np.bincount(users, minlength=user_num))]))


def _int32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32))
