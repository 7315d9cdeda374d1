"""How numbers are written in an atomic file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Spaces, digits outside ASCII and hexadecimal digits are not allowed.
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_NO_NUMBER = r"^[+-]?(?i:nan|inf|infinity)$"


def is_number(texts: pa.Array) -> pa.Array:
    """A boolean array: which texts are written like a number."""
    return pc.match_substring_regex(texts, _NUMBER)


def is_no_number(texts: pa.Array) -> pa.Array:
    """A boolean array: which texts stand for infinity or for "not a number"."""
    return pc.match_substring_regex(texts, _NO_NUMBER)


def parsed_numbers(texts: pa.ChunkedArray) -> np.ndarray:
    """The numbers in ``texts``, as int64 if all are integers, else as float64; missing ones are NaN.

    Raises:
        pa.ArrowInvalid: a text is no number.
    """
    if not pc.all(pc.ascii_is_decimal(texts)).as_py():
        numbers = pc.cast(texts, pa.float64())  # refuses hexadecimal digits, which a cast to int64 would read
        if pc.any(pc.match_substring(texts.filter(pc.is_nan(numbers)), "(")).as_py():
            raise pa.ArrowInvalid("NaN with a payload")
        if not pc.all(pc.equal(numbers, pc.floor(numbers)), min_count=0).as_py():
            return numbers.to_numpy()  # int64 would take long to refuse every fraction
    try:
        return pc.cast(texts, pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return pc.cast(texts, pa.float64()).to_numpy()
