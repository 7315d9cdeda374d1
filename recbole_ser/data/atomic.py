"""Reading atomic files: fast while they are right, and precise about the line when they are not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyarrow import csv
from torch import Tensor

from recbole_ser.errors import DataError

TYPES = ("token", "token_seq", "float", "float_seq")


@dataclass(frozen=True)
class Column:
    """One ``name:type`` of an atomic file's header."""

    name: str
    type: str

    @property
    def label(self) -> str:
        return f"{self.name}:{self.type}"


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, end to end: list i is ``values[starts[i]:starts[i + 1]]``."""

    values: np.ndarray
    starts: np.ndarray

    def padded(self, width: int) -> np.ndarray:
        """The first ``width`` values of each list, right-padded with 0: ``[len, width]``."""
        columns = np.arange(width)
        lengths = np.diff(self.starts)
        inside = columns < lengths[:, None]  # [len, width]
        table = np.zeros(inside.shape, dtype=self.values.dtype)
        table[inside] = self.values[(self.starts[:-1, None] + columns)[inside]]
        return table

    def table(self, rows: np.ndarray, size: int, max_width: int) -> Tensor:
        """int32 ``[size, W]`` with list i in row ``rows[i]``, zeros elsewhere; W <= ``max_width`` fits the longest."""
        width = min(int(np.diff(self.starts).max(initial=1)), max_width)
        table = np.zeros((size, width), dtype=np.int32)
        table[rows] = self.padded(width)
        return torch.from_numpy(table)

    def take(self, rows: np.ndarray) -> Ragged:
        """The lists ``rows``, in that order."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        shift = np.repeat(self.starts[:-1][rows] - starts[:-1], lengths)
        return Ragged(self.values[np.arange(starts[-1]) + shift], starts)

    def truncated(self, width: int) -> Ragged:
        """The first ``width`` values of each list."""
        lengths = np.diff(self.starts)
        position = np.arange(len(self.values)) - np.repeat(self.starts[:-1], lengths)
        starts = np.concatenate([[0], np.cumsum(np.minimum(lengths, width))])
        return Ragged(self.values[position < width], starts)


def read_header(path: str | Path, separator: str = "\t") -> list[Column]:
    """The columns that the first line of ``path`` declares.

    Raises:
        DataError: no such file, an empty file, or a first line that is no header.
    """
    try:
        with open(path, "rb") as handle:
            line = handle.readline().decode("utf-8-sig").rstrip("\r\n")
    except FileNotFoundError:
        raise DataError(path, "file not found") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"not UTF-8: {error.reason}", line=1, hint="save the file as UTF-8") from error
    if not line:
        raise DataError(path, "the header is missing", line=1, hint="the first line names the columns as name:type")
    columns: list[Column] = []
    for label in line.split(separator):
        name, colon, kind = label.partition(":")
        if not colon or not name or kind not in TYPES:
            raise DataError(
                path, f"header entry '{label}' is not name:type", line=1,
                hint=f"types are {', '.join(TYPES)}; columns are separated by {separator!r}",
            )  # fmt: skip
        if name in {column.name for column in columns}:
            raise DataError(path, "the column is declared twice", line=1, column=name)
        columns.append(Column(name, kind))
    return columns


def read_atomic(
    path: str | Path, columns: Iterable[Column], separator: str = "\t", *, required: Iterable[str] = ()
) -> pd.DataFrame:
    """Read ``columns`` of an atomic file.

    Tokens and sequences come as categoricals of their text (an empty entry is missing), floats as int64 where every
    value is an integer and float64 elsewhere: 64-bit times stay exact.

    Args:
        required: names of columns in which an empty entry is an error.

    Raises:
        DataError: the first line that is wrong, with its number.
    """
    columns, required = list(columns), set(required)
    kinds = {c.label: pa.int64() if c.type == "float" else pa.dictionary(pa.int32(), pa.string()) for c in columns}
    try:
        try:
            table = _read(path, separator, kinds)
        except pa.ArrowInvalid:
            numbers = [label for label, kind in kinds.items() if kind == pa.int64()]
            kinds.update({label: _number_type(path, separator, label) for label in numbers})
            table = _read(path, separator, kinds)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _first_fault(path, separator) or DataError(path, str(error)) from error
    frame = pd.DataFrame({c.name: _to_pandas(table.column(c.label)) for c in columns})
    for column in columns:
        values = frame[column.name]
        wrong = values.isna().to_numpy()
        if column.type == "float" and values.dtype == np.float64:
            wrong = ~np.isfinite(values.to_numpy()) if column.name in required else np.isinf(values.to_numpy())
        elif column.name not in required:
            continue
        if wrong.any():
            line = int(np.argmax(wrong)) + 2
            raise DataError(path, "the value is missing or not finite", line=line, column=column.name)
    return frame


def split_sequences(texts: pd.Series, separator: str = " ") -> tuple[np.ndarray, np.ndarray, Ragged]:
    """Split a categorical of sequences into tokens.

    Returns:
        The distinct tokens in order of appearance; for each row the number of its list, -1 where it is missing; and
        the lists, whose values number the tokens from 0.
    """
    codes = texts.cat.codes.to_numpy()
    lists = pc.split_pattern(pa.array(texts.cat.categories.to_numpy(object), type=pa.string()), separator)
    parent = pc.list_parent_indices(lists).to_numpy()
    flat = pc.list_flatten(lists)
    filled = pc.not_equal(flat, "")
    tokens = flat.filter(filled).dictionary_encode()
    parent = parent[filled.to_numpy(zero_copy_only=False)]
    starts = np.concatenate([[0], np.cumsum(np.bincount(parent, minlength=len(lists)))])
    return (
        tokens.dictionary.to_numpy(zero_copy_only=False),
        codes,
        Ragged(tokens.indices.to_numpy().astype(np.int32), starts.astype(np.int64)),
    )


def _read(path: str | Path, separator: str, kinds: dict[str, pa.DataType]) -> pa.Table:
    return csv.read_csv(
        str(path),
        read_options=csv.ReadOptions(block_size=1 << 24),
        parse_options=csv.ParseOptions(
            delimiter=separator, quote_char=False, newlines_in_values=False, ignore_empty_lines=False
        ),
        convert_options=csv.ConvertOptions(
            column_types=kinds, include_columns=list(kinds), null_values=[""], strings_can_be_null=True
        ),
    )


def _number_type(path: str | Path, separator: str, label: str) -> pa.DataType:
    try:
        _read(path, separator, {label: pa.int64()})
    except pa.ArrowInvalid:
        return pa.float64()
    return pa.int64()


def _to_pandas(column: pa.ChunkedArray) -> pd.Series:
    if not pa.types.is_dictionary(column.type):
        return pd.Series(column.to_numpy())
    array = column.unify_dictionaries().combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) and array.num_chunks else array
    if isinstance(array, pa.ChunkedArray):  # no rows at all
        return pd.Series(pd.Categorical([]))
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return pd.Series(pd.Categorical.from_codes(codes, categories=array.dictionary.to_numpy(zero_copy_only=False)))


def _first_fault(path: str | Path, separator: str) -> DataError | None:
    """Read line by line what the fast reader refused, and name the first line that is wrong."""
    columns = read_header(path, separator)
    with open(path, "rb") as handle:
        next(handle)
        for number, raw in enumerate(handle, start=2):
            try:
                line = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                return DataError(path, f"not UTF-8: {error.reason}", line=number, hint="save the file as UTF-8")
            entries = line.split(separator)
            if len(entries) != len(columns):
                found = "a blank line" if not line else f"{len(entries)} columns"
                return DataError(path, f"{found} where the header has {len(columns)} columns", line=number)
            for column, entry in zip(columns, entries):
                if column.type == "float" and not _is_number(entry):
                    return DataError(path, f"'{entry}' is not a number", line=number, column=column.name)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text and "_" not in text
