"""Vectors by the embedding model of any server that speaks OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recbole_ser.errors import ConfigError
from recbole_ser.text.openai_api import Client
from recbole_ser.text.vectors.cached import cached_vectors
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
        return encode_distinct(
            texts, lambda distinct: cached_vectors(self.cache, self.describe(), distinct, self._arriving, progress)
        )

    def _arriving(self, texts: list[str]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        batches = [
            range(start, min(start + self.batch_size, len(texts))) for start in range(0, len(texts), self.batch_size)
        ]
        requests = [[texts[row] for row in batch] for batch in batches]
        for place, answer in self._client.each(self._client.embed, requests):
            yield batches[place], np.array(answer, dtype=np.float32)
