"""Checks of the contents of atomic files that can be read, and counts of what the loader makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from recbole_ser.atomic.inspection import Table, inspect_number_lists
from recbole_ser.atomic.numbers import are_exact_together
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.rules import Findings
from recbole_ser.atomic.schema import (
    CLICK_TIMES,
    CLICKED_ITEMS,
    FILES,
    ITEM_ID,
    KEYS,
    PADDING,
    QUERY_ID,
    TIMESTAMP,
    USER_ID,
)
from recbole_ser.atomic.sequences import split_sequences
from recbole_ser.data.histories import Searches, build_event_log
from recbole_ser.data.instances import targets_by_split
from recbole_ser.validation.times import check_times

_USER, _ITEM, _QUERY, _TIME = USER_ID.name, ITEM_ID.name, QUERY_ID.name, TIMESTAMP.name
_FEW = 20  # with fewer clicks there is no warning
_CLICKS, _CLICK_TIMES = CLICKED_ITEMS.name, CLICK_TIMES.name


class Contents:
    """The tables of a data set by suffix, ``inter`` at least, and how their ids relate."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self.tables = tables
        self.inter = tables["inter"]
        self.search = tables.get("search")

    @cached_property
    def known_user(self) -> np.ndarray:
        """bool ``[searches]``: whether the user of each search has an interaction."""
        return np.zeros(0, bool) if self.search is None else _listed(self.search, _USER, self.inter)

    @cached_property
    def clicks(self) -> tuple[np.ndarray, np.ndarray, Ragged]:
        """The distinct clicked items, for each search the index of its list (-1: none), and the distinct lists."""
        if self.search is None or _CLICKS not in self.search.tokens:
            return np.zeros(0, object), np.full(len(self.known_user), -1), Ragged(np.zeros(0, int), np.zeros(1, int))
        return split_sequences(self.search.tokens[_CLICKS].categorical())

    def counts(self) -> dict[str, int]:
        """The numbers of users, items, queries and events that ``SERDataset.summary`` gives for files without errors.

        Only the searches of users without interactions are left out, and ``X.item`` and ``X.user`` are not loaded.
        """
        inter = self.inter.tokens
        tokens, rows, lists = self.clicks
        asked = rows[self.known_user]
        clicked = tokens[np.unique(lists.take(np.unique(asked[asked >= 0])).values)]
        queries = [self.tables["query"].tokens[_QUERY].texts] if "query" in self.tables else []
        if self.search is not None:
            searched = self.search.tokens[_QUERY]
            queries.append(searched.texts[np.unique(searched.codes[self.known_user])])
        return {
            "users": len(inter[_USER].texts),
            "items": len(_index(inter[_ITEM].texts).union(_index(clicked), sort=False)),
            "queries": len(pd.unique(np.concatenate(queries))) if queries else 0,
            "interactions": self.inter.rows,
            "searches": int(self.known_user.sum()),
        }

    def targets(self, split: Mapping[str, Any] | None = None) -> dict[str, dict[str, dict[str, int]] | None]:
        """What each split of files without errors holds, see ``targets_by_split``."""
        users, times = self.inter.tokens[_USER], self.inter.numbers[_TIME]
        searches = Searches.none()
        if self.search is not None:
            searcher = self.search.tokens[_USER]
            known = _index(users.texts).get_indexer(_index(searcher.texts))[searcher.codes[self.known_user]]
            nothing = np.zeros(len(known), dtype=np.int64)
            clicks = Ragged(nothing[:0], np.zeros(len(known) + 1, dtype=np.int64))
            searches = Searches(
                known + 1, self.search.numbers[_TIME][self.known_user], nothing, nothing, clicks
            )  # fmt: skip
        items = np.zeros(self.inter.rows, dtype=np.int64)
        log = build_event_log(users.codes + 1, times, items, searches, len(users.texts) + 1)
        return targets_by_split(log, users.codes + 1, times, split)


def check_contents(contents: Contents, findings: Findings) -> None:
    """Add a finding for everything that is wrong with ids, lists, events and times."""
    for suffix, table in contents.tables.items():
        for name in (key.name for key in KEYS):
            if name in table.tokens:
                _check_ids(table, name, findings)
                if FILES[suffix].listing:
                    _check_once(table, name, findings)
    if not contents.inter.rows:
        findings.add("no-rows", contents.inter.file, 1)
    if contents.search is not None:
        _check_searches(contents, contents.search, findings)
    for suffix, name in (("item", _ITEM), ("user", _USER)):
        if suffix in contents.tables:
            _check_listed("unlisted", contents.inter, name, contents.tables[suffix], findings)
    _check_duplicates(contents, findings)
    _check_one_kind_of_times(contents, findings)
    check_times([table for table in (contents.inter, contents.search) if table is not None], findings)


def _check_one_kind_of_times(contents: Contents, findings: Findings) -> None:
    search = contents.search
    if search is not None and not are_exact_together(contents.inter.numbers[_TIME], search.numbers[_TIME]):
        findings.add(
            "inexact-time", search.file, 2, _TIME, "fractions in one log, whole numbers above 2**53 in the other"
        )


def _check_ids(table: Table, name: str, findings: Findings) -> None:
    column = table.tokens[name]
    for rule, wrong in (
        ("reserved-id", column.texts == PADDING),
        ("space-in-id", [" " in text for text in column.texts]),
    ):
        _report_texts(rule, table, name, wrong, findings)


def _check_once(table: Table, name: str, findings: Findings) -> None:
    codes = table.tokens[name].codes
    again = pd.Series(codes).duplicated().to_numpy() & (codes >= 0)
    table.report("listed-twice", name, again, findings)


def _check_searches(contents: Contents, search: Table, findings: Findings) -> None:
    if not search.rows:
        findings.add("no-searches", search.file, 1)
    if "query" in contents.tables:
        _check_listed("unknown-query", search, _QUERY, contents.tables["query"], findings)
    _check_listed("unknown-user", search, _USER, contents.inter, findings)
    if _CLICKS not in search.tokens:
        return
    texts = search.tokens[_CLICKS].texts
    wrong = [text[0] == " " or text[-1] == " " or "  " in text for text in texts]
    _report_texts("click-without-id", search, _CLICKS, wrong, findings)
    tokens, rows, lists = contents.clicks
    search.report("reserved-id", _CLICKS, lists.contain(tokens == PADDING)[rows], findings)
    if _CLICK_TIMES in search.tokens:
        _check_click_times(contents, search, findings)
    elif contents.inter.complete:
        _check_clicked_ahead(contents, search, findings)
    if not contents.inter.complete:
        return
    known = _index(contents.inter.tokens[_ITEM].texts)
    never = known.get_indexer(_index(tokens)) < 0
    search.report("clicked-only", _CLICKS, lists.contain(never)[rows] & contents.known_user, findings)


def _check_click_times(contents: Contents, search: Table, findings: Findings) -> None:
    rows, lists = inspect_number_lists(search, _CLICK_TIMES, findings)
    _, clicked, clicks = contents.clicks
    times, items = (np.append(np.diff(part.starts), 0) for part in (lists, clicks))
    search.report("click-times", _CLICK_TIMES, times[rows] != items[clicked], findings)


def _check_clicked_ahead(contents: Contents, search: Table, findings: Findings) -> None:
    """Warn if most clicks look like interactions that come after their search.

    Clicks without times count as old as their search.  If a click is really the record of a later interaction, the
    histories of all targets between the two would show it too early.
    """
    users, items = contents.inter.tokens[_USER], contents.inter.tokens[_ITEM]
    tokens, rows, lists = contents.clicks
    known_users = np.append(_index(users.texts).get_indexer(_index(search.tokens[_USER].texts)), -1)
    known_items = _index(items.texts).get_indexer(_index(tokens))
    clicks = Ragged(known_items[lists.values], np.append(lists.starts, lists.starts[-1])).take(rows)
    searches = _owner(clicks)  # the search of each click
    clicker = known_users[search.tokens[_USER].codes][searches]
    known = (clicker >= 0) & (clicks.values >= 0)
    searches, clicked = searches[known], clicker[known].astype(np.int64) * len(items.texts) + clicks.values[known]

    pairs, times = users.codes.astype(np.int64) * len(items.texts) + items.codes, contents.inter.numbers[_TIME]
    of_clicks = np.isin(pairs, clicked)
    order = np.lexsort((times[of_clicks], pairs[of_clicks]))
    pairs, times = pairs[of_clicks][order], times[of_clicks][order]
    first = np.searchsorted(pairs, clicked)
    taken = pairs[np.minimum(first, len(pairs) - 1)] == clicked if len(pairs) else np.zeros(len(clicked), bool)
    later = int((times[first[taken]] > search.numbers[_TIME][searches[taken]]).sum())
    if len(clicks.values) >= _FEW and 2 * later > len(clicks.values):
        findings.add("click-ahead", search.file, 1, _CLICKS, f"{later:,} of {len(clicks.values):,}")


def _check_duplicates(contents: Contents, findings: Findings) -> None:
    for table, names in ((contents.inter, (_USER, _ITEM)), (contents.search, (_USER, _QUERY, _CLICKS))):
        if table is None:
            continue
        columns = {name: table.tokens[name].codes for name in names if name in table.tokens}
        again = pd.DataFrame({**columns, _TIME: table.numbers[_TIME]}).duplicated().to_numpy()
        table.report("duplicate-event", None, again, findings)


def _check_listed(rule: str, table: Table, name: str, other: Table, findings: Findings) -> None:
    """Find ids that ``other`` lacks, unless lines of it could not be read, which may have these ids."""
    if other.complete:
        table.report(rule, name, ~_listed(table, name, other), findings)


def _listed(table: Table, name: str, other: Table) -> np.ndarray:
    """bool ``[rows]``: whether each row's id is also in column ``name`` of ``other``; true for an empty entry."""
    column = table.tokens[name]
    known = _index(other.tokens[name].texts).get_indexer(_index(column.texts)) >= 0
    return np.append(known, True)[column.codes]


def _index(texts: np.ndarray) -> pd.Index:
    return pd.Index(texts, dtype=object)


def _owner(lists: Ragged) -> np.ndarray:
    """The index of the list that each value is in."""
    return np.repeat(np.arange(len(lists.starts) - 1), np.diff(lists.starts))


def _report_texts(rule: str, table: Table, name: str, wrong: Iterable[bool], findings: Findings) -> None:
    """Report the rows whose text is one of the ``wrong [texts]``."""
    marked = np.append(np.fromiter(wrong, bool), False)
    if marked.any():
        table.report(rule, name, marked[table.tokens[name].codes], findings)
