"""Reading atomic files: fast if they are right, and with the exact line in the error if they are not."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from recbole_ser.atomic.header import header_columns
from recbole_ser.atomic.inspection import BLOCK, inspect_number_lists, inspect_table
from recbole_ser.atomic.numbers import misread, parsed_numbers
from recbole_ser.atomic.rules import Findings
from recbole_ser.atomic.schema import SEPARATOR, Column
from recbole_ser.atomic.sequences import split_lists, split_numbers
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
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
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
    vectors: Iterable[str] = (),
) -> pd.DataFrame:
    """Read ``columns`` of an atomic file.

    Tokens and sequences come as categoricals of their text, in which an empty entry is missing; ``split_sequences``
    and ``split_numbers`` split them.  A column of floats is int64 if all its values are integers and float64 if not,
    so that 64-bit times stay exact.

    Args:
        required: names of columns in which an empty entry, NaN, or a number that is not exact in 64 bits is an error.
        vectors: names of ``float_seq`` columns whose lists all have one length.  Their entries come as float64 arrays,
            with ``None`` or NaN for an empty one.

    Raises:
        DataError: a line is wrong; the error names the first such line.
    """
    columns, required, vectors = list(columns), set(required), set(vectors)
    first_fault = partial(_first_fault, path, columns, required, vectors, separator, seq_separator)
    try:
        frame = _read(path, columns, required, vectors, separator, seq_separator)
        _check_number_lists(frame, [column for column in columns if column.name not in vectors], seq_separator)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise first_fault(str(error)) from error
    if _has_stray_bytes(path) or any(_is_wrong(frame[c.name], c.name in required) for c in columns):
        raise first_fault("an entry is missing or not finite")
    return frame


def _read(
    path: str | Path, columns: list[Column], required: set[str], vectors: set[str], separator: str, seq_separator: str
) -> pd.DataFrame:
    """Read the file with Arrow, which takes a lone carriage return for a line end."""
    # Numbers are read as texts: Arrow's CSV reader would accept spaces around them, and hexadecimal digits.
    kinds = {
        c.label: pa.string() if c.type == "float" or c.name in vectors else pa.dictionary(pa.int32(), pa.string())
        for c in columns
    }
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
    return pd.DataFrame(
        {
            c.name: _vectors(table.column(c.label), seq_separator)
            if c.name in vectors
            else _to_pandas(table.column(c.label), c.name in required)
            for c in columns
        }
    )


def _vectors(column: pa.ChunkedArray, separator: str) -> pd.Series:
    """The vectors of a column, as rows of one matrix; the texts are split in pieces, as their numbers take much room.

    Raises:
        pa.ArrowInvalid: a vector holds anything but finite numbers, or their lengths differ.
    """
    numbers, lengths = [np.zeros(0)], [np.zeros(0, dtype=np.int64)]
    for chunk in column.chunks:
        texts, starts = split_lists(chunk, separator)
        numbers.append(pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False))
        lengths.append(np.diff(starts))
    values, length = np.concatenate(numbers), np.concatenate(lengths)
    filled = np.flatnonzero(length)
    if not np.isfinite(values).all() or len(np.unique(length[filled])) > 1:
        raise pa.ArrowInvalid("vectors of different lengths, or a number is not finite")
    rows = list(values.reshape(len(filled), -1)) if len(filled) else []
    return pd.Series(rows, index=filled, dtype=object).reindex(range(len(length)))


def _check_number_lists(frame: pd.DataFrame, columns: list[Column], separator: str) -> None:
    for column in columns:
        if column.type == "float_seq":
            _, lists = split_numbers(frame[column.name], separator)
            if not np.isfinite(lists.values).all():
                raise pa.ArrowInvalid("a number is not finite")


def _to_pandas(column: pa.ChunkedArray, exact: bool) -> pd.Series:
    if not pa.types.is_dictionary(column.type):
        numbers = parsed_numbers(column)
        if exact and misread(column, numbers).any():
            raise pa.ArrowInvalid("a number is not exact")
        return pd.Series(numbers)
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
    path: str | Path,
    columns: list[Column],
    required: set[str],
    vectors: set[str],
    separator: str,
    seq_separator: str,
    otherwise: str,
) -> DataError:
    """The first error of a file that the fast reader refused, found by the reader that says what is wrong and where."""
    findings = Findings(keep=1)
    kept = [column for column in columns if column.name not in vectors]
    table = inspect_table(Path(path), kept, required, findings, separator, vector_separator=seq_separator)
    for column in kept:
        if table is not None and column.type == "float_seq":
            inspect_number_lists(table, column.name, findings, seq_separator)
    wanted = {None, *(column.name for column in columns)}
    faults = [fault for fault in findings.first("error") if fault.column in wanted]
    faults.sort(key=lambda fault: fault.rule == "cut-off")  # last: a final line without an end is still read
    return faults[0].as_error(path) if faults else DataError(path, otherwise)
