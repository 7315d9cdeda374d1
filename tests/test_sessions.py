"""The order of both histories and their division into sessions, against sorting and Python loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.data.histories import EventLog, HistoryReader, Searches, build_event_log

USERS = 4  # counting the padding id


class Event(NamedTuple):
    user: int
    time: float
    is_item: bool
    id: int  # of its item or query; no two events of a kind share one


def with_ids(raw: list[tuple[int, int, bool]]) -> list[Event]:
    counts = {True: 0, False: 0}
    events = []
    for user, time, is_item in [(1, 0, True), *raw]:  # a log has at least one interaction
        counts[is_item] += 1
        events.append(Event(user, time, is_item, counts[is_item]))
    return events


EVENTS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 14), st.booleans()), max_size=40).map(with_ids)


def log_of(events: list[Event], gap: float | None = None) -> EventLog:
    items, searches = ([event for event in events if event.is_item is kind] for kind in (True, False))

    def column(rows: list[Event], name: str) -> np.ndarray:
        kind = np.float64 if any(isinstance(event.time, float) for event in events) and name == "time" else np.int64
        return np.array([getattr(row, name) for row in rows], dtype=kind)

    nothing = Ragged(np.zeros(0, dtype=np.int32), np.zeros(len(searches) + 1, dtype=np.int64))
    side = Searches(
        column(searches, "user"), column(searches, "time"), column(searches, "id"),
        np.ones(len(searches), dtype=np.int32), nothing,
    )  # fmt: skip
    return build_event_log(column(items, "user"), column(items, "time"), column(items, "id"), side, USERS, gap)


def rows_of(events: list[Event], rec: int, search: int, gap: float | None = None) -> dict[tuple[bool, int], dict]:
    """(kind, id) of each target to its row; both kinds of targets."""
    log = log_of(events, gap)
    reader = HistoryReader(log, rec, search, 2)
    rows = {}
    for is_item, ids, read in ((True, log.items, reader.read), (False, log.queries, reader.read_searches)):
        batch = read(torch.arange(len(ids), dtype=torch.int32))
        for place, number in enumerate(ids.tolist()):
            rows[is_item, number] = {name: values[place].tolist() for name, values in batch.items()}
    return rows


def before(target: Event, events: list[Event]) -> tuple[list[Event], list[Event]]:
    """What came before it: of its own kind by position, of the other kind strictly earlier; in order of time."""
    mine = sorted((event for event in events if event.user == target.user), key=lambda event: event.time)
    own = [event for event in mine if event.is_item == target.is_item]
    own = own[: own.index(target)]
    other = [event for event in mine if event.is_item != target.is_item and event.time < target.time]
    return (own, other) if target.is_item else (other, own)


def padded(values: list[int], width: int) -> list[int]:
    return values + [0] * (width - len(values))


@settings(deadline=None, max_examples=150)
@given(EVENTS, st.integers(1, 5), st.integers(1, 5))
def test_places_equal_merging_both_histories_by_time(events: list[Event], rec: int, search: int) -> None:
    """Also where only the latest events are read; at one time a search comes before an interaction."""
    rows = rows_of(events, rec, search)
    assert len(rows) == len(events)
    for target in events:
        row = rows[target.is_item, target.id]
        items, searches = before(target, events)
        items, searches = items[-rec:], searches[-search:]
        assert row["item_id_list"] == padded([event.id for event in items], rec)
        assert row["search_query_list"] == padded([event.id for event in searches], search)
        merged = sorted([*items, *searches], key=lambda event: (event.time, event.is_item))
        places = [sum(event.is_item for event in merged[: merged.index(search)]) for search in searches]
        assert row["search_place_list"] == padded(places, search)
        for number, event in enumerate(searches):
            assert merged.index(event) == number + row["search_place_list"][number]
        for number, event in enumerate(items):
            assert merged.index(event) == number + sum(place <= number for place in places)


def session_numbers(events: list[Event], gap: float) -> dict[Event, int]:
    """A session after the other, over both kinds of events of each user."""
    numbers = {}
    for user in range(1, USERS):
        number, last = 0, None
        for event in sorted((event for event in events if event.user == user), key=lambda event: event.time):
            if last is not None and event.time - last > gap:
                number += 1
            numbers[event], last = number, event.time
    return numbers


@settings(deadline=None, max_examples=150)
@given(EVENTS, st.sampled_from([0, 1, 2.5, 4, 100]), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 0.25]))
def test_sessions_equal_a_loop_over_the_merged_times(
    events: list[Event], gap: float, rec: int, search: int, unit: float
) -> None:
    events = [event._replace(time=event.time * unit) for event in events]
    rows, numbers = rows_of(events, rec, search, gap), session_numbers(events, gap)
    for target in events:
        row = rows[target.is_item, target.id]
        items, searches = before(target, events)
        for name, history, width in (
            ("item_session_list", items[-rec:], rec),
            ("search_session_list", searches[-search:], search),
        ):
            assert row[name] == padded([numbers[target] - numbers[event] for event in history], width)


@pytest.mark.parametrize("gap", [None, 2])
@settings(deadline=None, max_examples=60)
@given(events=EVENTS, data=st.data())
def test_what_comes_at_or_after_a_target_changes_nothing_in_its_row(
    gap: float | None, events: list[Event], data: st.DataObject
) -> None:
    target = data.draw(st.sampled_from(events))
    items, searches = before(target, events)
    past = {*items, *searches, target}
    others = [event for event in events if event in past or event.user != target.user]
    if not any(event.is_item for event in others):
        return  # a log has at least one interaction
    key = (target.is_item, target.id)
    assert rows_of(others, 4, 3, gap)[key] == rows_of(events, 4, 3, gap)[key]


def test_sessions_by_hand() -> None:
    times = [(1, True), (3, False), (4, True), (9, False), (12, True), (20, True)]
    events = with_ids([(2, time, is_item) for time, is_item in times])  # sessions of gap 3: 1 3 4 | 9 12 | 20
    row = rows_of(events, 4, 4, gap=3)[True, 5]
    assert row["item_id_list"] == [2, 3, 4, 0] and row["item_session_list"] == [2, 2, 1, 0]
    assert row["search_session_list"] == [2, 1, 0, 0] and row["search_place_list"] == [1, 2, 0, 0]
    assert rows_of(events, 4, 4, gap=3)[True, 4]["item_session_list"] == [1, 1, 0, 0]
    assert rows_of(events, 4, 4, gap=5)[True, 4]["item_session_list"] == [0, 0, 0, 0], "a pause of exactly the gap"
    assert "item_session_list" not in rows_of(events, 4, 4)[True, 5]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=12))
def test_owners_of_searches_and_of_clicks(raw: list[tuple[int, int]]) -> None:
    """Users without searches and searches without clicks are in between."""
    users = np.array([user for user, _ in raw], dtype=np.int64)
    counts = np.array([count for _, count in raw], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    clicks = Ragged(np.ones(int(starts[-1]), dtype=np.int32), starts)
    numbers = np.arange(len(raw), dtype=np.int64)
    side = Searches(users, numbers, numbers, np.ones(len(raw), dtype=np.int32), clicks)
    one = np.ones(1, dtype=np.int64)
    log = build_event_log(one, one, one, side, USERS)
    order = sorted(range(len(raw)), key=lambda row: raw[row][0])
    assert log.search_users(torch.arange(len(raw))).tolist() == [raw[row][0] for row in order]
    owners = [place for place, row in enumerate(order) for _ in range(raw[row][1])]
    assert log.searches_of_clicks(torch.arange(len(owners))).tolist() == owners
