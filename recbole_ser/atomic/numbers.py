"""How numbers are written in an atomic file."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Spaces, digits outside ASCII and hexadecimal digits are not allowed.
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_WHOLE = r"^[+-]?[0-9]+$"
_NO_NUMBER = r"^[+-]?(?i:nan|inf|infinity)$"

_EXACT, _BEYOND = 2.0**53, 2.0**63  # float64 has all whole numbers below the first, int64 those below the second
_SHORT = 16  # characters: no more than 15 digits, which float64 always keeps
_DECIMALS = pa.decimal256(76, 50)


def is_number(texts: pa.Array) -> pa.Array:
    """A boolean array: which texts are written like a number."""
    return pc.match_substring_regex(texts, _NUMBER)


def is_no_number(texts: pa.Array) -> pa.Array:
    """A boolean array: which texts stand for infinity or for "not a number"."""
    return pc.match_substring_regex(texts, _NO_NUMBER)


def parsed_numbers(texts: pa.ChunkedArray) -> np.ndarray:
    """The numbers in ``texts``, as int64 if all are whole and fit, else as float64; missing ones are NaN.

    Raises:
        pa.ArrowInvalid: a text is no number.
    """
    if not pc.all(pc.ascii_is_decimal(texts)).as_py():
        numbers = pc.cast(texts, pa.float64())  # refuses hexadecimal digits, which a cast to int64 would read
        if pc.any(pc.match_substring(texts.filter(pc.is_nan(numbers)), "(")).as_py():
            raise pa.ArrowInvalid("NaN with a payload")
        if not pc.all(pc.equal(numbers, pc.floor(numbers)), min_count=0).as_py():
            return numbers.to_numpy()  # int64 would take long to refuse every fraction
        greatest = pc.max(pc.abs(numbers)).as_py()
        if greatest is None:
            return numbers.to_numpy()
        if pc.max(pc.utf8_length(texts)).as_py() <= _SHORT and greatest < _EXACT:
            return pc.cast(numbers, pa.int64()).to_numpy()
        if greatest < _BEYOND:  # 1.64e18 among whole numbers is one of them, 5.000000000000000001 is not
            with contextlib.suppress(pa.ArrowInvalid):
                return pc.cast(pc.cast(texts, pa.decimal128(38, 0)), pa.int64()).to_numpy()
    try:
        return pc.cast(texts, pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return pc.cast(texts, pa.float64()).to_numpy()


def misread(texts: pa.ChunkedArray, numbers: np.ndarray) -> np.ndarray:
    """bool ``[n]``: which of ``texts [n]`` keep their ``numbers [n]``, of `parsed_numbers`, from being exact.

    A float64 is exact if it is written like the text, in as many digits as tell it from all others: then different
    numbers stay different, in their order.  If whole numbers are not exact, the fractions among them are to blame.
    """
    wrong = np.zeros(len(numbers), dtype=bool)
    if numbers.dtype != np.float64:
        return wrong
    rows = np.flatnonzero(
        pc.fill_null(pc.greater(pc.utf8_length(texts), _SHORT), False).to_numpy() & ~np.isnan(numbers)
    )
    if not len(rows):
        return wrong
    written, values = texts.take(pa.array(rows)), numbers[rows]
    point = pc.find_substring(written, ".").to_numpy()
    decimals = np.where(point < 0, 0, pc.utf8_length(written).to_numpy() - point - 1)
    within = np.abs(values) < _BEYOND
    doubtful = within & (10.0**-decimals < np.spacing(np.abs(values)))  # finer than float64: perhaps written by it
    wrong[rows[~within]] = True
    wrong[rows[doubtful]] = _differ(written.filter(pa.array(doubtful)), values[doubtful])
    if wrong.any():
        odd = ~pc.fill_null(pc.match_substring_regex(texts, _WHOLE), True).to_numpy() | (np.abs(numbers) >= _BEYOND)
        wrong = wrong & odd if (wrong & odd).any() else odd
    return wrong


def are_exact_together(*columns: np.ndarray) -> bool:
    """Whether ``columns`` of int64 or float64 stay exact if all of them become float64."""
    if len({column.dtype.kind for column in columns if len(column)}) < 2:
        return True
    return all(column.dtype.kind == "f" or not (np.abs(column) > _EXACT).any() for column in columns)


def _differ(texts: pa.ChunkedArray, values: np.ndarray) -> np.ndarray:
    try:
        both = pc.cast(texts, _DECIMALS), pc.cast(pc.cast(pa.array(values), pa.string()), _DECIMALS)
    except pa.ArrowInvalid:  # more than 50 decimals
        return np.ones(len(values), dtype=bool)
    return pc.not_equal(*both).to_numpy()
