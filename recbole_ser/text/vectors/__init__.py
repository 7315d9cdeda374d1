"""Vectors of texts, by several back-ends that all look the same: ``TextEncoder``."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from recbole_ser.errors import ConfigError

# Name -> ``module:Class``; a module, and the libraries it needs, is imported only when it is asked for.
ENCODERS: dict[str, str] = {
    "tfidf_svd": "recbole_ser.text.vectors.tfidf_svd:TfidfSVD",
    "local": "recbole_ser.text.vectors.local:LocalEncoder",
    "openai": "recbole_ser.text.vectors.openai:OpenAIEncoder",
    "precomputed": "recbole_ser.text.vectors.precomputed:Precomputed",
}


class TextEncoder(Protocol):
    def describe(self) -> dict[str, Any]:
        """Everything that the vectors depend on besides the texts, as JSON: back-end, model, parameters."""
        ...

    def encode(self, texts: Sequence[str], progress: bool = False) -> np.ndarray:
        """float32 ``[n, d]``, rows of length 1, the same for equal texts; a row of zeros for an empty text.

        Vectors of two calls need not be comparable: encode together what belongs together.
        """
        ...


def create_encoder(name: str, cache_folder: str | Path, **options: Any) -> TextEncoder:
    """The back-end ``name`` with the arguments of its class; one that asks a server keeps its answers in a file.

    Raises:
        ConfigError: there is no such back-end or option, an option is missing, or a value is wrong.
        DataError: a file that an option names is wrong.
    """
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"there is no encoder '{name}': {hint}known are {', '.join(ENCODERS)}")
    module, _, class_name = ENCODERS[name].partition(":")
    factory = getattr(importlib.import_module(module), class_name)
    parameters = dict(inspect.signature(factory).parameters)
    if parameters.pop("cache", None) is not None:
        factory = partial(factory, Path(cache_folder) / f"vectors-{name}.jsonl")
    for option in sorted(options.keys() - parameters):
        raise ConfigError(f"encoder '{name}' has no option '{option}': known are {', '.join(parameters)}")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and options.get(option) is None:
            raise ConfigError(f"encoder '{name}' needs the option '{option}'")
    return factory(**options)


def encode_sides(
    encoder: TextEncoder, search: Sequence[str], rec: Sequence[str], progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors ``[n, d]`` of both sides of ``n`` users, encoded together so that both are in the same space."""
    vectors = encoder.encode([*search, *rec], progress)  # [2 n, d]
    return vectors[: len(search)], vectors[len(search) :]
