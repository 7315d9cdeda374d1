"""Queries that a trained model has never seen, made of words that it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.embeddings import AttributeEmbedding, FeatureEmbedding


def reads_words(model: Any) -> bool:
    """Whether queries are embedded by their words beside their id, in the way and place of this package's models."""
    queries = getattr(model, "queries", None)
    return isinstance(queries, FeatureEmbedding) and len(queries.attributes) == 1


@contextmanager
def with_queries(model: Any, words: Tensor) -> Iterator[None]:
    """Inside this block the model has more queries, whose words are ``words [m, W]``; their ids are the next m.

    A new query has words like any other; the part of its vector that stands for its id is zero.
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
    model.eval()  # which drops what was computed from the smaller tables
    try:
        yield
    finally:
        queries.count, queries.ids.weight, terms.values = before
        model.eval()
