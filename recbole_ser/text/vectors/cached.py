"""Vectors that are kept in a file as they arrive, so that none of them is made twice."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from recbole_ser.errors import DataError
from recbole_ser.text.cache import Cache, key_of

# Yields (places in the given texts, their vectors), in any order.
Encode = Callable[[list[str]], Iterator[tuple[Sequence[int], np.ndarray]]]


def cached_vectors(
    path: Path, source: Mapping[str, Any], texts: Sequence[str], encode: Encode, progress: bool = False
) -> np.ndarray:
    """The vector of each of the distinct ``texts``, float32 ``[n, d]``: from the file ``path``, or else new.

    Args:
        path: the file, see ``text.cache``; a vector takes 16 bytes for every 3 of its numbers.
        source: all that vectors depend on besides the texts, with the name of the ``model``, as JSON.
        encode: makes the vectors that are missing.

    Raises:
        DataError: the cache is damaged, or has vectors of several models under the name of this one.
        UserError: ``encode`` failed; the vectors that have arrived are in the cache.
    """
    keys = [key_of(**source, text=text) for text in texts]
    with Cache(path) as cache:
        held = {key: vector for key in keys if (vector := _cached_vector(cache, key)) is not None}
        widths = set(map(len, held.values()))
        _refuse_several(widths, path, source)
        missing = [row for row, key in enumerate(keys) if key not in held]
        with tqdm(
            total=len(texts), initial=len(held), desc="Vectors", unit=" texts", disable=None if progress else True
        ) as bar:
            for places, vectors in encode([texts[row] for row in missing]) if missing else ():
                vectors = np.asarray(vectors, dtype="<f4")
                _refuse_several(widths := widths | {vectors.shape[1]}, path, source)
                for place, vector in zip(places, vectors):
                    key = keys[missing[place]]
                    held[key] = vector
                    if np.isfinite(vector).all():  # what is not is refused by who asked, and must not stay
                        cache.put(key, _as_text(vector))
                bar.update(len(places))
    return np.stack([held[key] for key in keys])


def _refuse_several(widths: set[int], path: Path, source: Mapping[str, Any]) -> None:
    if len(widths) > 1:
        raise DataError(
            path, f"vectors of '{source['model']}' have {' and '.join(map(str, sorted(widths)))} dimensions",
            hint="the model has changed: remove the file to ask for all of them anew",
        )  # fmt: skip


def _as_text(vector: np.ndarray) -> str:
    """The vector in single precision as base 64, which takes a quarter of the space of decimal numbers."""
    return base64.b64encode(vector.tobytes()).decode("ascii")


def _cached_vector(cache: Cache, key: str) -> np.ndarray | None:
    text = cache.get(key)
    if text is None:
        return None
    try:
        vector = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    except (TypeError, ValueError) as error:
        raise cache.fault(key, f"the cached vector cannot be read: {error}") from error
    if not len(vector) or not np.isfinite(vector).all():
        raise cache.fault(key, "the cached vector is empty, or holds NaN or an infinity")
    return vector
