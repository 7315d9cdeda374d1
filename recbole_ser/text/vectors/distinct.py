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
        UserError: every text is blank, or a number of a vector is not finite.
    """
    place = {text: row for row, text in enumerate(dict.fromkeys(text for text in texts if text.strip()))}
    if not place:
        raise UserError("every text is empty: there is nothing to make vectors of")
    encoded = encode(list(place))  # [distinct, d]
    wrong = ~np.isfinite(encoded).all(axis=1)
    if wrong.any():
        text = list(place)[int(wrong.argmax())]
        raise UserError(f"the vector of the text {text[:80]!r} holds NaN or an infinity: use another model")
    distinct = unit_rows(encoded)
    vectors = np.zeros((len(texts), distinct.shape[1]), dtype=np.float32)
    for row, text in enumerate(texts):
        if text in place:
            vectors[row] = distinct[place[text]]
    return vectors


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Finite ``vectors [n, d]`` scaled to rows of length 1, float32; rows of zeros stay zero."""
    exponents = np.frexp(np.abs(vectors).max(axis=1, keepdims=True))[1]
    vectors = np.ldexp(vectors, -exponents)  # exact, so that no square of a number becomes infinite or 0
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)
