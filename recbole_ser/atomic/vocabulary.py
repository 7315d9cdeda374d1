"""The distinct tokens of a column, and the column as ids once the tokens have ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recbole_ser.atomic.ragged import Ragged
from recbole_ser.atomic.sequences import split_sequences


class TokenIds(Mapping[str, Mapping[str, int]]):
    """The id of each token, by field; a field's tokens are looked through when they are first asked for.

    Args:
        tokens: the tokens of each field in the order of their ids; fields that share ids have the same array.
    """

    def __init__(self, tokens: Mapping[str, np.ndarray]) -> None:
        self._tokens = tokens
        self._ids: dict[int, dict[str, int]] = {}

    def __getitem__(self, field: str) -> dict[str, int]:
        tokens = self._tokens[field]
        if id(tokens) not in self._ids:
            self._ids[id(tokens)] = dict(zip(tokens.tolist(), range(len(tokens))))
        return self._ids[id(tokens)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getstate__(self) -> dict[str, Any]:
        return {"_tokens": self._tokens, "_ids": {}}  # in another process the arrays are other objects


@dataclass(frozen=True)
class TokenColumn:
    """A column as indices of its distinct tokens.

    Args:
        tokens: the distinct tokens, in order of appearance.
        rows: for each row the index of its token, or of its list in ``lists``; -1 where it is missing.
        lists: the distinct lists of a column of sequences, as indices of tokens; ``None`` for a column of tokens.
    """

    tokens: np.ndarray
    rows: np.ndarray
    lists: Ragged | None = None

    def with_ids(self, ids: np.ndarray) -> np.ndarray | Ragged:
        """The column with ``ids[n]`` in place of token n; a missing entry becomes 0, or an empty list."""
        if self.lists is None:
            return np.append(ids, np.zeros(1, ids.dtype))[self.rows]
        starts = np.append(self.lists.starts, self.lists.starts[-1])  # one more list, which -1 picks, is empty
        return Ragged(ids[self.lists.values], starts).take(self.rows % (len(starts) - 1))


def token_column(texts: pd.Series, separator: str | None = None) -> TokenColumn:
    """The tokens of a categorical; with a ``separator`` each of its texts is a sequence of tokens."""
    texts = _without_unused(texts)
    if separator is None:
        return TokenColumn(texts.cat.categories.to_numpy(object), texts.cat.codes.to_numpy())
    tokens, rows, lists = split_sequences(texts, separator)
    return TokenColumn(tokens.astype(object), rows, lists)


def _without_unused(texts: pd.Series) -> pd.Series:
    """As ``texts.cat.remove_unused_categories()``, which sorts all rows to find the categories that are used."""
    codes, categories = texts.cat.codes.to_numpy(), texts.cat.categories
    used = np.zeros(len(categories) + 1, dtype=bool)  # the last one is for -1, a missing entry
    used[codes] = True
    if used[:-1].all():
        return texts
    codes = np.append(np.cumsum(used[:-1]) - 1, -1)[codes]
    kept = categories[used[:-1]]
    return pd.Series(pd.Categorical.from_codes(codes, categories=kept), index=texts.index, name=texts.name)
