"""The texts of items and of queries."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from recbole_ser.atomic.reading import read_atomic, read_header
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import DataError

TITLE = "title"  # the column of X.item that the converters write titles to


def query_texts(dataset: SERDataset) -> list[str]:
    """The text of each query, by query id: its words in ``X.query``, or its raw id if it has none.

    Raises:
        DataError: ``X.query`` is wrong.
    """
    words = _texts_of_file(dataset, "query", dataset.query_field, only=dataset.terms_field)
    return [words.get(raw) or raw for raw in _raw_ids(dataset, dataset.query_field)]


def item_titles(dataset: SERDataset) -> dict[str, str]:
    """The title of each item in ``X.item``, by raw id: its column ``title``, or all token columns where that is empty.

    Raises:
        DataError: ``X.item`` is wrong.
    """
    titles = _texts_of_file(dataset, "item", dataset.iid_field, only=TITLE)
    if all(titles.values()):
        return titles
    return {raw: titles[raw] or text for raw, text in _texts_of_file(dataset, "item", dataset.iid_field).items()}


def item_texts(dataset: SERDataset, queries: list[str]) -> list[str]:
    """The text of each item, by item id: all token columns of its row in ``X.item``.

    Without such a text it is the words of the queries that led to the item in training, the most frequent first, or
    else the raw id.

    Args:
        queries: the text of each query, by query id.

    Raises:
        DataError: ``X.item`` is wrong.
    """
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
