"""Splitting columns of sequences into tokens or numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_ser.atomic.numbers import misread, parsed_numbers
from recbole_ser.atomic.ragged import Ragged


def split_lists(texts: pa.Array, separator: str = " ") -> tuple[pa.Array, np.ndarray]:
    """Split texts into their tokens, end to end, and say where each text's tokens start: int64 ``[len + 1]``.

    Empty tokens are left out, and a missing text has none.
    """
    lists = pc.split_pattern(texts, separator)
    parent = pc.list_parent_indices(lists).to_numpy()
    flat = pc.list_flatten(lists)
    filled = pc.not_equal(flat, "")
    parent = parent[filled.to_numpy(zero_copy_only=False)]
    starts = np.concatenate([[0], np.cumsum(np.bincount(parent, minlength=len(lists)))])
    return flat.filter(filled), starts.astype(np.int64)


def split_sequences(texts: pd.Series, separator: str = " ") -> tuple[np.ndarray, np.ndarray, Ragged]:
    """Split a categorical of sequences into tokens.

    Returns:
        The distinct tokens in order of appearance; for each row the index of its list, -1 where it is missing; and
        the lists, as indices of tokens.
    """
    codes = texts.cat.codes.to_numpy()
    flat, starts = split_lists(pa.array(texts.cat.categories.to_numpy(object), type=pa.string()), separator)
    tokens = flat.dictionary_encode()
    return (
        tokens.dictionary.to_numpy(zero_copy_only=False),
        codes,
        Ragged(tokens.indices.to_numpy().astype(np.int32), starts),
    )


def split_numbers(texts: pd.Series, separator: str = " ") -> tuple[np.ndarray, Ragged]:
    """Split a categorical of lists of numbers.

    Returns:
        For each row the index of its list, -1 where it is missing; and the lists, int64 if all numbers are whole, else
        float64.

    Raises:
        pa.ArrowInvalid: a text is no number, or 64 bits do not hold it exactly.
    """
    tokens, codes, lists = split_sequences(texts, separator)
    written = pa.chunked_array([pa.array(tokens, pa.string())])
    numbers = parsed_numbers(written)
    if misread(written, numbers).any():
        raise pa.ArrowInvalid("a number is not exact")
    return codes, Ragged(numbers[lists.values], lists.starts)
