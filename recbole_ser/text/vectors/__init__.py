"""Vectors of texts, by several back-ends with the same interface, ``TextEncoder``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recbole_ser.text.backends import create_backend

# The ``module:Class`` of each back-end by its name; a module, and the libraries it needs, is imported only on demand.
ENCODERS: dict[str, str] = {
    "tfidf_svd": "recbole_ser.text.vectors.tfidf_svd:TfidfSVD",
    "minilm": "recbole_ser.text.vectors.minilm:MiniLM",
    "local": "recbole_ser.text.vectors.local:LocalEncoder",
    "openai": "recbole_ser.text.vectors.openai:OpenAIEncoder",
    "precomputed": "recbole_ser.text.vectors.precomputed:Precomputed",
}


class TextEncoder(Protocol):
    def describe(self) -> dict[str, Any]:
        """Everything that the vectors depend on besides the texts, as JSON: back-end, model, parameters."""
        ...

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """The vector of each text, float32 ``[n, d]``.

        Rows have length 1 and are the same for equal texts; the row of an empty text is zero.  Vectors of two calls
        need not be comparable, so texts to be compared must be encoded in one call.
        """
        ...


def create_encoder(name: str, cache_folder: str | Path, **options: Any) -> TextEncoder:
    """Make the back-end ``name``, with ``options`` as the arguments of its class.

    A back-end that asks a server or runs a model keeps the vectors in a file in ``cache_folder``.

    Raises:
        ConfigError: there is no such back-end or option, an option is missing, or a value is wrong.
        DataError: a file that an option names is wrong.
    """
    return create_backend("encoder", ENCODERS, name, Path(cache_folder) / f"vectors-{name}.jsonl", options)


def encode_sides(
    encoder: TextEncoder, search: Sequence[str], rec: Sequence[str], progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors ``[n, d]`` of both sides of ``n`` users, encoded together so that both are in the same space."""
    vectors = encoder.encode([*search, *rec], progress)  # [2 n, d]
    return vectors[: len(search)], vectors[len(search) :]
