"""What all back-ends of vectors share: encoding distinct texts once, and scaling rows to length 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from recbole_ser.errors import UserError


def encode_distinct(texts: Sequence[str], encode: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """The vectors of ``texts``, by calling ``encode`` once on all distinct texts that are not blank.

    Equal texts get equal vectors even if the result of ``encode`` depends on the other texts in a batch.

    Returns:
        float32 ``[n, d]``, rows of length 1; zeros for a blank text and where ``encode`` gives zeros.

    Raises:
        UserError: every text is blank.
    """
    place = {text: row for row, text in enumerate(dict.fromkeys(text for text in texts if text.strip()))}
    if not place:
        raise UserError("every text is empty: there is nothing to make vectors of")
    distinct = unit_rows(encode(list(place)))  # [distinct, d]
    vectors = np.zeros((len(texts), distinct.shape[1]), dtype=np.float32)
    for row, text in enumerate(texts):
        if text in place:
            vectors[row] = distinct[place[text]]
    return vectors


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """``vectors [n, d]`` scaled to rows of length 1, float32; rows of zeros stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)
