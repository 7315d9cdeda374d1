"""What is wrong with the contents of atomic files that can be read, and what the loader makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_ser.data.atomic import Ragged, split_sequences
from recbole_ser.data.instances import MINIMUM_TARGETS
from recbole_ser.validation.reading import Table, Tokens, is_no_number, is_number
from recbole_ser.validation.rules import Findings
from recbole_ser.validation.times import check_times

_PADDING = "[PAD]"
_KEYS = ("user_id", "item_id", "query_id")
_FEW = 20  # fewer clicks say nothing
_CLICKS, _CLICK_TIMES = "clicked_items", "click_times"


class Contents:
    """The tables of a data set, by suffix, and how their ids relate.  ``inter`` is among them."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self.tables = tables
        self.inter = tables["inter"]
        self.search = tables.get("search")

    @cached_property
    def known_user(self) -> np.ndarray:
        """bool ``[searches]``: whether the search's user has an interaction."""
        return np.zeros(0, bool) if self.search is None else _listed(self.search, "user_id", self.inter)

    @cached_property
    def clicks(self) -> tuple[np.ndarray, np.ndarray, Ragged]:
        """Clicked items, for each search the number of its list (-1: none), and the distinct lists."""
        if self.search is None or _CLICKS not in self.search.tokens:
            return np.zeros(0, object), np.full(len(self.known_user), -1), Ragged(np.zeros(0, int), np.zeros(1, int))
        return _split(self.search.tokens[_CLICKS])

    def counts(self) -> dict[str, int]:
        """What ``SERDataset.summary`` says of files without error, with ``require_both_histories`` false.

        Nothing is filtered but the searches of users without interactions; ``X.item`` and ``X.user`` are not loaded.
        """
        inter = self.inter.tokens
        per_user = np.bincount(inter["user_id"].codes)
        tested = int((per_user >= MINIMUM_TARGETS).sum())
        tokens, rows, lists = self.clicks
        asked = rows[self.known_user]
        clicked = tokens[np.unique(lists.take(np.unique(asked[asked >= 0])).values)]
        queries = [self.tables["query"].tokens["query_id"].texts] if "query" in self.tables else []
        if self.search is not None:
            searched = self.search.tokens["query_id"]
            queries.append(searched.texts[np.unique(searched.codes[self.known_user])])
        return {
            "users": len(per_user),
            "items": len(_index(inter["item_id"].texts).union(_index(clicked), sort=False)),
            "queries": len(pd.unique(np.concatenate(queries))) if queries else 0,
            "interactions": self.inter.rows,
            "searches": int(self.known_user.sum()),
            "train": self.inter.rows - 2 * tested,
            "valid": tested,
            "test": tested,
        }


def check_contents(contents: Contents, findings: Findings) -> None:
    """Find what is wrong with ids, lists, events and times."""
    for suffix, table in contents.tables.items():
        for name in _KEYS:
            if name in table.tokens:
                _check_ids(table, name, findings)
                if suffix in ("query", "item", "user"):
                    _check_once(table, name, findings)
    if not contents.inter.rows:
        findings.add("no-rows", contents.inter.file, 1)
    if contents.search is not None:
        _check_searches(contents, contents.search, findings)
    for suffix, name in (("item", "item_id"), ("user", "user_id")):
        if suffix in contents.tables:
            _check_listed("unlisted", contents.inter, name, contents.tables[suffix], findings)
    _check_duplicates(contents, findings)
    check_times([table for table in (contents.inter, contents.search) if table is not None], findings)


def _check_ids(table: Table, name: str, findings: Findings) -> None:
    column = table.tokens[name]
    for rule, wrong in (
        ("reserved-id", column.texts == _PADDING),
        ("space-in-id", [" " in text for text in column.texts]),
    ):
        _report_texts(rule, table, name, wrong, findings)


def _check_once(table: Table, name: str, findings: Findings) -> None:
    codes = table.tokens[name].codes
    again = pd.Series(codes).duplicated().to_numpy() & (codes >= 0)
    _report("listed-twice", table, name, again, findings)


def _check_searches(contents: Contents, search: Table, findings: Findings) -> None:
    if not search.rows:
        findings.add("no-searches", search.file, 1)
    if "query" in contents.tables:
        _check_listed("unknown-query", search, "query_id", contents.tables["query"], findings)
    _check_listed("unknown-user", search, "user_id", contents.inter, findings)
    if _CLICKS not in search.tokens:
        return
    texts = search.tokens[_CLICKS].texts
    wrong = [text[0] == " " or text[-1] == " " or "  " in text for text in texts]
    _report_texts("click-without-id", search, _CLICKS, wrong, findings)
    if _CLICK_TIMES in search.tokens:
        _check_click_times(contents, search, findings)
    elif contents.inter.complete:
        _check_clicked_ahead(contents, search, findings)
    if not contents.inter.complete:
        return
    tokens, rows, lists = contents.clicks
    known = _index(contents.inter.tokens["item_id"].texts)
    never = known.get_indexer(_index(tokens))[lists.values] < 0
    without = np.append(np.bincount(_owner(lists)[never], minlength=len(lists.starts) - 1) > 0, False)
    _report("clicked-only", search, _CLICKS, without[rows] & contents.known_user, findings)


def _check_click_times(contents: Contents, search: Table, findings: Findings) -> None:
    tokens, rows, lists = _split(search.tokens[_CLICK_TIMES])
    texts = pa.array(tokens, pa.string())
    numbers, named = is_number(texts), is_no_number(texts).to_numpy(False)
    values = pc.cast(pc.if_else(numbers, texts, pa.scalar(None, pa.string())), pa.float64()).to_numpy(False)
    strange = ~numbers.to_numpy(False) & ~named
    for rule, wrong in (("not-a-number", strange), ("not-finite", named | np.isinf(values))):
        faulty = np.append(np.bincount(_owner(lists)[wrong[lists.values]], minlength=len(lists.starts) - 1) > 0, False)
        _report(rule, search, _CLICK_TIMES, faulty[rows], findings)
    _, clicked, clicks = contents.clicks
    times, items = (np.append(np.diff(part.starts), 0) for part in (lists, clicks))
    _report("click-times", search, _CLICK_TIMES, times[rows] != items[clicked], findings)


def _check_clicked_ahead(contents: Contents, search: Table, findings: Findings) -> None:
    """Find clicks that look like the interactions that follow.

    A history that holds a search shows all its clicks, if they have no times, to targets between the two.
    """
    users, items = contents.inter.tokens["user_id"], contents.inter.tokens["item_id"]
    tokens, rows, lists = contents.clicks
    known_users = np.append(_index(users.texts).get_indexer(_index(search.tokens["user_id"].texts)), -1)
    known_items = _index(items.texts).get_indexer(_index(tokens))
    clicks = Ragged(known_items[lists.values], np.append(lists.starts, lists.starts[-1])).take(rows)
    searches = _owner(clicks)  # of each click
    clicker = known_users[search.tokens["user_id"].codes][searches]
    known = (clicker >= 0) & (clicks.values >= 0)
    searches, clicked = searches[known], clicker[known].astype(np.int64) * len(items.texts) + clicks.values[known]

    pairs, times = users.codes.astype(np.int64) * len(items.texts) + items.codes, contents.inter.numbers["timestamp"]
    of_clicks = np.isin(pairs, clicked)
    order = np.lexsort((times[of_clicks], pairs[of_clicks]))
    pairs, times = pairs[of_clicks][order], times[of_clicks][order]
    first = np.searchsorted(pairs, clicked)
    taken = pairs[np.minimum(first, len(pairs) - 1)] == clicked if len(pairs) else np.zeros(len(clicked), bool)
    later = int((times[first[taken]] > search.numbers["timestamp"][searches[taken]]).sum())
    if len(clicks.values) >= _FEW and 2 * later > len(clicks.values):
        findings.add("click-ahead", search.file, 1, _CLICKS, f"{later:,} of {len(clicks.values):,}")


def _check_duplicates(contents: Contents, findings: Findings) -> None:
    for table, names in ((contents.inter, ("user_id", "item_id")), (contents.search, ("user_id", "query_id", _CLICKS))):
        if table is None:
            continue
        columns = {name: table.tokens[name].codes for name in names if name in table.tokens}
        again = pd.DataFrame({**columns, "timestamp": table.numbers["timestamp"]}).duplicated().to_numpy()
        _report("duplicate-event", table, None, again, findings)


def _check_listed(rule: str, table: Table, name: str, other: Table, findings: Findings) -> None:
    """Find ids that ``other`` lacks, unless that may be for lines that could not be read."""
    if other.complete:
        _report(rule, table, name, ~_listed(table, name, other), findings)


def _listed(table: Table, name: str, other: Table) -> np.ndarray:
    """bool ``[rows]``: whether the id is also in column ``name`` of ``other``; an empty entry is."""
    column = table.tokens[name]
    known = _index(other.tokens[name].texts).get_indexer(_index(column.texts)) >= 0
    return np.append(known, True)[column.codes]


def _index(texts: np.ndarray) -> pd.Index:
    return pd.Index(texts, dtype=object)


def _split(column: Tokens) -> tuple[np.ndarray, np.ndarray, Ragged]:
    return split_sequences(pd.Series(pd.Categorical.from_codes(column.codes, _index(column.texts))))


def _owner(lists: Ragged) -> np.ndarray:
    """The list of each value."""
    return np.repeat(np.arange(len(lists.starts) - 1), np.diff(lists.starts))


def _report_texts(rule: str, table: Table, name: str, wrong: Iterable[bool], findings: Findings) -> None:
    """Report the rows whose text is one of the ``wrong [texts]``."""
    marked = np.append(np.fromiter(wrong, bool), False)
    if marked.any():
        _report(rule, table, name, marked[table.tokens[name].codes], findings)


def _report(rule: str, table: Table, name: str | None, wrong: np.ndarray, findings: Findings) -> None:
    rows = np.flatnonzero(wrong)
    column: Tokens | None = None if name is None else table.tokens[name]
    value = None if column is None else lambda place: column.texts[column.codes[rows[place]]]
    findings.add_rows(rule, table.file, table.lines(rows), name, value)
