"""Generated search and recommendation logs of any size, as the atomic files of a data set.

:mod:`recbole_ser.data.planted` describes what they contain.  The preset ``ser-sample`` is the data set that comes with
the package; ``kindle`` and ``kuaishou`` have the sizes of the data sets in the SESRec paper (Table 1), for benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.schema import (
    CLICKED_ITEMS,
    ITEM_ID,
    QUERY_ID,
    SEPARATOR,
    SOURCE,
    TERMS,
    TIMESTAMP,
    USER_ID,
    Column,
)
from recbole_ser.data.planted import (
    SEARCH_LEVELS,
    SyntheticLogs,
    SyntheticSpec,
)
from recbole_ser.files import atomic_write

DAY = 24 * 60 * 60  # seconds
SYLLABLES = [consonant + vowel for consonant in "bcdfghjklmnprstvwxyz" for vowel in "aeiou"]
ROWS_AT_A_TIME = 1 << 20  # the text of all rows at once would take gigabytes

PRESETS: Mapping[str, SyntheticSpec] = {
    "ser-sample": SyntheticSpec(
        users=1_000,
        items=384,
        queries=160,
        interactions=13_000,
        searches=7_000,
        terms=120,
        topics=32,
        sources=3,
        max_clicks=3,
        max_terms=4,
        start=1_640_995_200,  # 2022-01-01 in seconds
        span=60 * DAY,
        rich_users=0.5,
        sparse_users=0.4,
        noise=0.1,
        follow=0.95,
        stay=0.2,
        communities=16,
        taste=0.6,
    ),
    "kindle": SyntheticSpec(
        users=68_223,
        items=61_934,
        queries=4_298,
        interactions=982_619,
        searches=934_664,
        terms=1_846,
        topics=100,
        sources=1,
        max_clicks=1,
        max_terms=15,
        start=1_293_840_000,  # 2011-01-01 in seconds, and days only
        span=1_200 * DAY,
        granularity=DAY,
        length_skew=0.03,
        popularity_skew=1.0,
        rich_users=1.0,
        sparse_users=0.0,
        tied=0.35,
        mirrored=True,
    ),
    "kuaishou": SyntheticSpec(
        users=35_721,
        items=822_832,
        queries=398_924,
        interactions=11_381_172,
        searches=922_531,
        terms=116_569,
        topics=500,
        sources=4,
        max_clicks=5,
        max_terms=6,
        start=1_654_041_600_000,  # 2022-06-01 in milliseconds
        span=30 * DAY * 1000,
        length_skew=0.05,
        popularity_skew=1.0,
        sparse_users=0.3,
        tied=0.01,
    ),
}

ColumnText = Callable[[slice], pa.Array]  # gives a column's entries in some rows


class _File(NamedTuple):
    rows: int
    columns: dict[Column, ColumnText]


def write(logs: SyntheticLogs, folder: str | Path) -> list[Path]:
    """Write ``logs`` as the atomic files of a data set that has the name of its ``folder``.

    Returns:
        The paths of the files: interactions, searches, queries, items and users.
    """
    folder = Path(folder)
    paths = []
    for suffix, file in _files(logs).items():
        paths.append(folder / f"{folder.resolve().name}.{suffix}")
        _write_file(paths[-1], file)
    return paths


def _files(logs: SyntheticLogs) -> dict[str, _File]:
    users = _names("u", len(logs.user_level))
    items = _names("i", len(logs.item_category))
    queries = _names("q", len(logs.query_terms.starts) - 1)
    sources = _names("s", int(logs.search_source.max()) + 1)
    categories = _names("c", int(logs.item_category.max()) + 1)
    count = 1 + int(max(terms.values.max() for terms in (logs.query_terms, logs.item_terms)))
    words = pa.array([_word(number) for number in range(count)])
    interactions = {
        USER_ID: _tokens(users, logs.user),
        ITEM_ID: _tokens(items, logs.item),
        TIMESTAMP: _numbers(logs.time),
    }
    searches = {
        USER_ID: _tokens(users, logs.search_user),
        QUERY_ID: _tokens(queries, logs.search_query),
        TIMESTAMP: _numbers(logs.search_time),
        CLICKED_ITEMS: _sequences(items, logs.search_clicks),
        SOURCE: _tokens(sources, logs.search_source),
    }
    levels = _tokens(pa.array(SEARCH_LEVELS), logs.user_level)
    return {
        "inter": _File(len(logs.user), interactions),
        "search": _File(len(logs.search_user), searches),
        "query": _File(
            len(queries),
            {QUERY_ID: queries.__getitem__, TERMS: _sequences(words, logs.query_terms)},
        ),
        "item": _File(
            len(items),
            {
                ITEM_ID: items.__getitem__,
                Column("category", "token"): _tokens(categories, logs.item_category),
                Column("title", "token_seq"): _sequences(words, logs.item_terms),
            },
        ),
        "user": _File(len(users), {USER_ID: users.__getitem__, Column("search_level", "token"): levels}),
    }


def _names(letter: str, count: int) -> pa.Array:
    return pc.binary_join_element_wise(letter, pc.cast(pa.array(np.arange(count)), pa.string()), "")


def _word(number: int) -> str:
    """A word that can be pronounced; each number below a million has another one."""
    code = (number * 7_919 + 271_828) % 1_000_000
    return "".join(SYLLABLES[code // unit % 100] for unit in (10_000, 100, 1))


def _numbers(values: np.ndarray) -> ColumnText:
    return lambda rows: pa.array(values[rows])


def _tokens(names: pa.Array, values: np.ndarray) -> ColumnText:
    return lambda rows: names.take(pa.array(values[rows]))


def _sequences(names: pa.Array, lists: Ragged) -> ColumnText:
    def text(rows: slice) -> pa.Array:
        starts = lists.starts[rows.start : rows.stop + 1]
        tokens = names.take(pa.array(lists.values[starts[0] : starts[-1]]))
        offsets = pa.array(starts - starts[0], type=pa.int32())
        return pc.binary_join(pa.ListArray.from_arrays(offsets, tokens), " ")

    return text


def _write_file(path: Path, file: _File) -> None:
    options = csv.WriteOptions(include_header=False, delimiter=SEPARATOR, quoting_style="none")
    with atomic_write(path, "wb") as handle:
        handle.write((SEPARATOR.join(column.label for column in file.columns) + "\n").encode())
        for begin in range(0, file.rows, ROWS_AT_A_TIME):
            rows = slice(begin, min(begin + ROWS_AT_A_TIME, file.rows))
            table = pa.table({column.label: text(rows) for column, text in file.columns.items()})
            csv.write_csv(table, handle, options)
