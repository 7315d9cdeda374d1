"""Queries that a trained model has never seen, embedded by their words, which it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.embeddings import AttributeEmbedding, FeatureEmbedding


def reads_words(model: Any) -> bool:
    """Whether ``model`` embeds queries by id and words in ``model.queries``, as this package's models do."""
    queries = getattr(model, "queries", None)
    return isinstance(queries, FeatureEmbedding) and len(queries.attributes) == 1


@contextmanager
def with_queries(model: Any, words: Tensor) -> Iterator[None]:
    """Inside this block the model has m more queries, with the words ``words [m, W]`` and the next m ids.

    The words of a new query are embedded like those of any other; the embedding of its id is zero.
    """
    if not len(words):
        yield
        return
    queries: FeatureEmbedding = model.queries
    terms = queries.attributes[0]
    assert isinstance(terms, AttributeEmbedding)
    before = queries.count, queries.ids.weight, terms.values
    width = max(words.shape[1], terms.values.shape[1])
    tables = [F.pad(table, (0, width - table.shape[1])) for table in (terms.values, words.to(terms.values))]
    queries.count += len(words)
    queries.ids.weight = nn.Parameter(F.pad(before[1].detach(), (0, 0, 0, len(words))))
    terms.values = torch.cat(tables)
    model.eval()  # drops what was computed from the smaller tables
    try:
        yield
    finally:
        queries.count, queries.ids.weight, terms.values = before
        model.eval()
