"""Reading atomic files: fast if they are right, and with the exact line in the error if they are not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from recbole_ser.atomic.header import header_columns
from recbole_ser.atomic.inspection import BLOCK, inspect_number_lists, inspect_table
from recbole_ser.atomic.numbers import parsed_numbers
from recbole_ser.atomic.rules import Findings
from recbole_ser.atomic.schema import SEPARATOR, Column
from recbole_ser.atomic.sequences import split_numbers
from recbole_ser.errors import DataError


def read_header(path: str | Path, separator: str = SEPARATOR) -> list[Column]:
    """The columns that the first line of ``path`` declares.

    Raises:
        DataError: the file is missing or empty, or its first line is no header.
    """
    findings = Findings(keep=1)
    try:
        with open(path, "rb") as handle:
            columns = header_columns(handle.readline(BLOCK), Path(path).name, findings, separator)
    except FileNotFoundError:
        raise DataError(path, "file not found") from None
    if columns is None:
        raise findings.first("error")[0].as_error(path)
    return columns


def read_atomic(
    path: str | Path,
    columns: Iterable[Column],
    separator: str = SEPARATOR,
    *,
    seq_separator: str = " ",
    required: Iterable[str] = (),
) -> pd.DataFrame:
    """Read ``columns`` of an atomic file.

    Tokens and sequences come as categoricals of their text, in which an empty entry is missing; ``split_sequences``
    and ``split_numbers`` split them.  A column of floats is int64 if all its values are integers and float64 if not,
    so that 64-bit times stay exact.

    Args:
        required: names of columns in which an empty entry, or NaN, is an error.

    Raises:
        DataError: a line is wrong; the error names the first such line.
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


def _read(path: str | Path, columns: list[Column], separator: str) -> pd.DataFrame:
    """Read the file with Arrow, which takes a lone carriage return for a line end."""
    # Numbers are read as texts: Arrow's CSV reader would accept spaces around them, and hexadecimal digits.
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


def _to_pandas(column: pa.ChunkedArray) -> pd.Series:
    if not pa.types.is_dictionary(column.type):
        return pd.Series(parsed_numbers(column))
    array = column.unify_dictionaries().combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) and array.num_chunks else array
    if isinstance(array, pa.ChunkedArray):  # no rows at all
        return pd.Series(pd.Categorical([]))
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return pd.Series(pd.Categorical.from_codes(codes, categories=array.dictionary.to_numpy(zero_copy_only=False)))


def _has_stray_bytes(path: str | Path) -> bool:
    """Whether the file holds a NUL, or a carriage return that is not part of a line end."""
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            if block.endswith(b"\r"):
                block += handle.read(1)
            if b"\0" in block or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
                return True
    return False


def _is_wrong(values: pd.Series, required: bool) -> bool:
    """Whether a value is infinite, or missing although it is required."""
    infinite = values.dtype == np.float64 and np.isinf(values.to_numpy()).any()
    return bool(infinite or (required and values.isna().any()))


def _first_fault(
    path: str | Path, columns: list[Column], required: set[str], separator: str, seq_separator: str, otherwise: str
) -> DataError:
    """The first error of a file that the fast reader refused, found by the reader that says what is wrong and where."""
    findings = Findings(keep=1)
    table = inspect_table(Path(path), columns, required, findings, separator)
    for column in columns:
        if table is not None and column.type == "float_seq":
            inspect_number_lists(table, column.name, findings, seq_separator)
    wanted = {None, *(column.name for column in columns)}
    faults = [fault for fault in findings.first("error") if fault.column in wanted]
    faults.sort(key=lambda fault: fault.rule == "cut-off")  # last: a final line without an end is still read
    return faults[0].as_error(path) if faults else DataError(path, otherwise)
