"""Reading atomic files: fast while they are right, and precise about the line when they are not."""

from __future__ import annotations

import math
import re
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
BLOCK = 1 << 24  # bytes; longer lines are refused

# What stands for a number, and what for none: no spaces, no digits but ASCII's, nothing hexadecimal.
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
NO_NUMBER = r"[+-]?(?i:nan|inf|infinity)"
_FLOAT = re.compile(f"{NUMBER}|{NO_NUMBER}")


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
            raw = handle.readline(BLOCK)
    except FileNotFoundError:
        raise DataError(path, "file not found") from None
    if fault := _byte_fault(raw):
        raise DataError(path, fault[0], line=1, hint=fault[1])
    line = _without_end(raw).decode("utf-8-sig")
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
    path: str | Path,
    columns: Iterable[Column],
    separator: str = "\t",
    *,
    seq_separator: str = " ",
    required: Iterable[str] = (),
) -> pd.DataFrame:
    """Read ``columns`` of an atomic file.

    Tokens and sequences come as categoricals of their text (an empty entry is missing; `split_sequences` and
    `split_numbers` take it apart), floats as int64 where every
    value is an integer and float64 elsewhere: 64-bit times stay exact.

    Args:
        required: names of columns in which an empty entry, or NaN, is an error.

    Raises:
        DataError: the first line that is wrong, with its number.
    """
    columns, required = list(columns), set(required)
    try:
        frame = _read(path, columns, separator)
        _check_number_lists(frame, columns, seq_separator)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _first_fault(path, columns, required, separator, seq_separator, str(error)) from error
    if _has_stray_bytes(path) or any(_is_wrong(frame[c.name], c.name in required) for c in columns):
        raise _first_fault(path, columns, required, separator, seq_separator, "an entry is missing or not finite")
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


def split_numbers(texts: pd.Series, separator: str = " ") -> tuple[np.ndarray, Ragged]:
    """Split a categorical of lists of numbers.

    Returns:
        For each row the number of its list, -1 where it is missing; and the lists, int64 if all numbers are whole.
    """
    tokens, codes, lists = split_sequences(texts, separator)
    return codes, Ragged(_numbers(pa.chunked_array([pa.array(tokens, pa.string())]))[lists.values], lists.starts)


def _read(path: str | Path, columns: list[Column], separator: str) -> pd.DataFrame:
    """Read what can be read; a carriage return alone counts as a line end here."""
    # Numbers are read as texts: Arrow's reader of files would take spaces around them, and hexadecimal digits.
    kinds = {c.label: pa.string() if c.type == "float" else pa.dictionary(pa.int32(), pa.string()) for c in columns}
    table = csv.read_csv(
        str(path),
        read_options=csv.ReadOptions(block_size=BLOCK),
        parse_options=csv.ParseOptions(
            delimiter=separator, quote_char=False, newlines_in_values=False, ignore_empty_lines=False
        ),
        convert_options=csv.ConvertOptions(
            column_types=kinds, include_columns=list(kinds), null_values=[""], strings_can_be_null=True
        ),
    )
    return pd.DataFrame({c.name: _to_pandas(table.column(c.label)) for c in columns})


def _check_number_lists(frame: pd.DataFrame, columns: list[Column], separator: str) -> None:
    for column in columns:
        if column.type == "float_seq":
            _, lists = split_numbers(frame[column.name], separator)
            if not np.isfinite(lists.values).all():
                raise pa.ArrowInvalid("a number is not finite")


def _numbers(texts: pa.ChunkedArray) -> np.ndarray:
    """Texts as int64 if all are integers, else as float64; missing ones are NaN."""
    if not pc.all(pc.ascii_is_decimal(texts)).as_py():
        numbers = pc.cast(texts, pa.float64())  # refuses hexadecimal digits, which int64 takes
        if pc.any(pc.match_substring(texts.filter(pc.is_nan(numbers)), "(")).as_py():
            raise pa.ArrowInvalid("NaN with a payload")
        if not pc.all(pc.equal(numbers, pc.floor(numbers)), min_count=0).as_py():
            return numbers.to_numpy()  # int64 would take long to refuse every fraction
    try:
        return pc.cast(texts, pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return pc.cast(texts, pa.float64()).to_numpy()


def _to_pandas(column: pa.ChunkedArray) -> pd.Series:
    if not pa.types.is_dictionary(column.type):
        return pd.Series(_numbers(column))
    array = column.unify_dictionaries().combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) and array.num_chunks else array
    if isinstance(array, pa.ChunkedArray):  # no rows at all
        return pd.Series(pd.Categorical([]))
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return pd.Series(pd.Categorical.from_codes(codes, categories=array.dictionary.to_numpy(zero_copy_only=False)))


def _has_stray_bytes(path: str | Path) -> bool:
    """Whether there is a NUL, or a carriage return that does not belong to a line end."""
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            if block.endswith(b"\r"):
                block += handle.read(1)
            if b"\0" in block or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
                return True
    return False


def _is_wrong(values: pd.Series, required: bool) -> bool:
    """Whether there is an infinite value, or a missing one where it is required."""
    infinite = values.dtype == np.float64 and np.isinf(values.to_numpy()).any()
    return bool(infinite or (required and values.isna().any()))


def _first_fault(
    path: str | Path, columns: list[Column], required: set[str], separator: str, seq_separator: str, otherwise: str
) -> DataError:
    """Read line by line what the fast reader refused, and name the first line that is wrong."""
    header = read_header(path, separator)
    wanted = [(place, column) for place, column in enumerate(header) if column in columns]
    with open(path, "rb") as handle:
        if not next(handle).endswith(b"\n"):
            return DataError(path, "the file ends in its header", line=1, hint="end every line with a line feed")
        for number, raw in enumerate(handle, start=2):
            if fault := _byte_fault(raw):
                return DataError(path, fault[0], line=number, hint=fault[1])
            line = _without_end(raw).decode()
            if not line:
                return DataError(path, "a blank line", line=number, hint="delete it")
            entries = line.split(separator)
            if len(entries) != len(header):
                found = f"{len(entries)} columns where the header has {len(header)} columns"
                return DataError(path, found, line=number)
            for place, column in wanted:
                if problem := _entry_fault(entries[place], column.type, column.name in required, seq_separator):
                    return DataError(path, problem, line=number, column=column.name)
    return DataError(path, otherwise)


def _without_end(raw: bytes) -> bytes:
    return raw.removesuffix(b"\r\n") if raw.endswith(b"\r\n") else raw.removesuffix(b"\n")


def _byte_fault(raw: bytes) -> tuple[str, str] | None:
    """What is wrong with a line before it is text, and what to do about it."""
    line = _without_end(raw)
    if len(line) >= BLOCK:
        return "the line is longer than 16 MiB", "a line feed may be missing"
    if b"\0" in line:
        return "the line holds a NUL character", "the file is damaged or is UTF-16: save it as UTF-8"
    if b"\r" in line:
        return "a carriage return inside the line", "end lines with a line feed alone"
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason}", "save the file as UTF-8"
    return None


def _entry_fault(entry: str, kind: str, required: bool, seq_separator: str) -> str | None:
    if not entry:
        return "the value is missing" if required else None
    if kind == "float_seq":
        parts = filter(None, entry.split(seq_separator))
        return next(filter(None, (_entry_fault(part, "float", True, seq_separator) for part in parts)), None)
    if kind != "float":
        return None
    if not _FLOAT.fullmatch(entry):
        return f"'{entry}' is not a number"
    value = float(entry)
    return f"'{entry}' is not finite" if math.isinf(value) or (required and math.isnan(value)) else None
