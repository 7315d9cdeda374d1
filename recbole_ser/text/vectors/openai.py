"""Vectors by the embedding model of any server that speaks OpenAI's protocol."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from recbole_ser.errors import ConfigError, DataError
from recbole_ser.text.cache import Cache, key_of
from recbole_ser.text.openai_api import Client
from recbole_ser.text.vectors.distinct import encode_distinct


class OpenAIEncoder:
    """Asks a server.  Every vector goes into ``cache`` as it arrives, so it is not asked for again.

    Args:
        cache: file of vectors, see ``text.cache``.
        client: client of the server.
        batch_size: number of texts in one request.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(self, cache: str | Path, client: Client, batch_size: int = 64) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size} is not a positive number")
        self._client, self.model, self.cache, self.batch_size = client, client.model, Path(cache), batch_size

    def describe(self) -> dict[str, Any]:
        """The model that the server runs; the server's address does not matter."""
        return {"backend": "openai", "model": self.model}

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """See ``TextEncoder``.

        Raises:
            UserError: the server refuses or does not answer; the vectors that have arrived are in the cache.
            DataError: the cache is damaged, or has vectors of several models under the name of this one.
        """
        return encode_distinct(texts, lambda distinct: self._encode(distinct, progress))

    def _encode(self, texts: list[str], progress: bool) -> np.ndarray:
        keys = [key_of(**self.describe(), text=text) for text in texts]
        with Cache(self.cache) as cache:
            held = {key: vector for key in keys if (vector := _cached_vector(cache, key)) is not None}
            widths = set(map(len, held.values()))
            self._refuse_several(widths)
            missing = [row for row, key in enumerate(keys) if key not in held]
            batches = [missing[start : start + self.batch_size] for start in range(0, len(missing), self.batch_size)]
            requests = [[texts[row] for row in rows] for rows in batches]
            with tqdm(
                total=len(texts), initial=len(texts) - len(missing), desc="Vectors", disable=None if progress else True
            ) as bar:
                for place, answer in self._client.each(self._client.embed, requests):
                    vectors = [np.array(vector, dtype="<f4") for vector in answer]
                    self._refuse_several(widths := widths | set(map(len, vectors)))
                    for row, vector in zip(batches[place], vectors):
                        cache.put(keys[row], _as_text(vector))
                        held[keys[row]] = vector
                    bar.update(len(answer))
        return np.stack([held[key] for key in keys])

    def _refuse_several(self, widths: set[int]) -> None:
        if len(widths) > 1:
            raise DataError(
                self.cache, f"vectors of '{self.model}' have {' and '.join(map(str, sorted(widths)))} dimensions",
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
