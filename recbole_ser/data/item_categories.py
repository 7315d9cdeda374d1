"""The categories of items, from a column of ``X.item``, whether or not models read it as an attribute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from recbole_ser.atomic.location import is_there
from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.reading import read_atomic, read_header
from recbole_ser.atomic.vocabulary import TokenColumn, token_column
from recbole_ser.data.dataset import SERDataset
from recbole_ser.errors import ConfigError

_NAME = "categor"  # what the name of a column of categories contains
_TYPES = ("token", "token_seq")


def category_column(dataset: SERDataset) -> str | None:
    """The first token or token_seq column of ``X.item`` with "categor" in its name; ``None``: there is none."""
    path, separator = _file(dataset), dataset.config["field_separator"]
    columns = read_header(path, separator) if is_there(path) else []
    return next((c.name for c in columns if _NAME in c.name.lower() and c.type in _TYPES), None)


def item_categories(dataset: SERDataset, name: str) -> tuple[Ragged, np.ndarray]:
    """The categories of each item id, numbered from 0, and their names; an item that ``X.item`` does not list has none.

    Args:
        name: the column that holds them.

    Raises:
        ConfigError: there is no such column of tokens.
    """
    path = _file(dataset)
    found = read_header(path, dataset.config["field_separator"]) if is_there(path) else []
    columns = {column.name: column for column in found}
    if name not in columns or columns[name].type not in _TYPES:
        has = f"it has {', '.join(columns)}" if columns else "there is no such file"
        raise ConfigError(f"{path} has no column '{name}' of type token or token_seq: {has}")
    frame = read_atomic(path, [columns[dataset.iid_field], columns[name]], dataset.config["field_separator"])
    is_list = columns[name].type == "token_seq"
    column = token_column(frame[name], dataset.config["seq_separator"] if is_list else None)
    numbers = np.arange(len(column.tokens))
    alone = Ragged(numbers, np.arange(len(numbers) + 1))
    of_rows = TokenColumn(column.tokens, column.rows, column.lists or alone).with_ids(numbers)
    assert isinstance(of_rows, Ragged)
    ids = pd.Index(dataset.field2id_token[dataset.iid_field], dtype=object).get_indexer(
        frame[dataset.iid_field].astype(object)
    )
    row_of_item = np.full(dataset.item_num, -1)
    row_of_item[ids[ids > 0]] = np.flatnonzero(ids > 0)
    with_empty = Ragged(of_rows.values, np.append(of_rows.starts, of_rows.starts[-1]))  # -1 picks the empty list
    return with_empty.take(row_of_item), column.tokens


def _file(dataset: SERDataset) -> Path:
    return Path(dataset.dataset_path) / f"{dataset.dataset_name}.item"
