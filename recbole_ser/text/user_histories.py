"""What each user searched for and chose in the training period, as text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.reading import read_atomic, read_header
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import DataError

Side = Literal["search", "rec"]


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """The text of one query and of the items clicked under it."""

    query: str
    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserHistory:
    """One user's latest searches and interactions of the training period, oldest first."""

    searches: tuple[SearchRecord, ...]
    items: tuple[str, ...]

    def length(self, side: Side) -> int:
        return len(self.searches if side == "search" else self.items)


def training_histories(dataset: SERDataset, max_records: int = 20, max_clicks: int = 1) -> list[UserHistory]:
    """The histories of users 1 to ``user_num - 1``; that of user id u is at index u - 1 (GSERec, 4.1.1).

    Only events of ``split.training_searches`` and ``split.training_interactions`` are read.  The text of a query
    consists of its words in ``X.query``, or is its raw id if it has none.  The text of an item consists of all token
    columns of its row in ``X.item``.  Without such a text it is the words of the queries that led to the item in
    training, the most frequent first, or else the raw id.

    Args:
        max_records: how many of the latest records of each side are kept (published code: 20).
        max_clicks: how many of the first clicked items of each search are kept (published code: 1).

    Raises:
        DataError: ``X.query`` or ``X.item`` is wrong.
    """
    log, split = dataset.log, dataset.split
    queries = _query_texts(dataset)
    items = _item_texts(dataset, queries)
    interactions = split.training_interactions.numpy()
    latest, rec_start = _latest(log.users.numpy()[interactions], max_records, dataset.user_num)
    rec_items = log.items.numpy()[interactions[latest]].tolist()
    searches = split.training_searches.numpy()
    users = log.search_users(split.training_searches).numpy()
    latest, search_start = _latest(users, max_records, dataset.user_num)
    searches = searches[latest]
    known = np.bincount(dataset.training_clicks.searches.numpy(), minlength=len(log.queries))  # clicks of each search
    starts = np.concatenate([[0], np.cumsum(known)])
    clicks = Ragged(dataset.training_clicks.items.numpy(), starts).take(searches).truncated(max_clicks)
    clicked, click_start = clicks.values.tolist(), clicks.starts.tolist()
    records = [
        SearchRecord(queries[query], tuple(items[item] for item in clicked[click_start[row] : click_start[row + 1]]))
        for row, query in enumerate(log.queries.numpy()[searches].tolist())
    ]
    return [
        UserHistory(
            tuple(records[search_start[user] : search_start[user + 1]]),
            tuple(items[item] for item in rec_items[rec_start[user] : rec_start[user + 1]]),
        )
        for user in range(1, dataset.user_num)
    ]


def _latest(users: np.ndarray, count: int, user_num: int) -> tuple[np.ndarray, list[int]]:
    """The last ``count`` events of each user, given the ``users`` of events that are ordered by user and time.

    Returns:
        A mask of the events that are kept, and where the kept events of each user begin.
    """
    ends = np.cumsum(np.bincount(users, minlength=user_num))
    kept = ends[users] - np.arange(len(users)) <= count
    starts = np.cumsum(np.bincount(users[kept], minlength=user_num))
    return kept, [0, *starts.tolist()]


def _query_texts(dataset: SERDataset) -> list[str]:
    """The text of each query, by query id."""
    words = _texts_of_file(dataset, "query", dataset.query_field, only=dataset.terms_field)
    return [words.get(raw) or raw for raw in _raw_ids(dataset, dataset.query_field)]


def _item_texts(dataset: SERDataset, queries: list[str]) -> list[str]:
    """The text of each item, by item id."""
    described = _texts_of_file(dataset, "item", dataset.iid_field)
    raw_ids = _raw_ids(dataset, dataset.iid_field)
    texts = [described.get(raw, "") for raw in raw_ids]
    nameless = np.array([not text for text in texts])
    clicks = dataset.training_clicks
    items, clicked_for = clicks.items.numpy(), clicks.queries.numpy()
    unnamed = nameless[items]
    pairs, frequency = np.unique(items[unnamed] * len(queries) + clicked_for[unnamed], return_counts=True)
    words: dict[int, Counter[str]] = {}
    for place in np.argsort(-frequency, kind="stable").tolist():
        item, query = divmod(int(pairs[place]), len(queries))
        found = words.setdefault(item, Counter())
        for word in dict.fromkeys(queries[query].split()):
            found[word] += int(frequency[place])
    for item in np.flatnonzero(nameless).tolist():
        led = " ".join(word for word, _ in words.get(item, Counter()).most_common())
        texts[item] = led or f"item {raw_ids[item]}"
    return texts


def _raw_ids(dataset: SERDataset, field: str) -> list[str]:
    """The raw id of every id of ``field``; only the padding id if the data set has no such field."""
    return [str(raw) for raw in dataset.field2id_token.get(field, ["[PAD]"])]


def _texts_of_file(dataset: SERDataset, suffix: str, key: str, only: str | None = None) -> dict[str, str]:
    """The text of each row of an atomic file, by raw id: its token columns, or column ``only``, joined by ". "."""
    path = Path(dataset.dataset_path) / f"{dataset.dataset_name}.{suffix}"
    if not path.is_file():
        return {}
    separator, words = dataset.config["field_separator"], dataset.config["seq_separator"]
    tokens = [column for column in read_header(path, separator) if column.type in ("token", "token_seq")]
    columns = [column for column in tokens if only is None or column.name in (key, only)]
    if key not in {column.name for column in columns}:
        raise DataError(path, "the column is missing", line=1, column=key)
    frame = read_atomic(path, columns, separator, required=[key])
    ids = frame.pop(key).astype(object)
    repeated = ids.duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        raise DataError(path, f"{suffix} '{ids.iloc[row]}' is listed twice", line=row + 2)
    entries = [frame[column].astype(object).where(frame[column].notna(), "").tolist() for column in frame]
    rows = zip(*entries) if entries else ((),) * len(ids)
    texts = [". ".join(filter(None, (" ".join(entry.replace(words, " ").split()) for entry in row))) for row in rows]
    return dict(zip(map(str, ids), texts))
