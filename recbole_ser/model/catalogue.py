"""Scores of many items for every row, as in full ranking, recommendation and a softmax over all items.

Shapes: B rows, n items.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Rows and items that are scored together.
PAIRWISE = 8, 1024  # a network for every pair: as many pairs as keep its hidden layers in a CPU's cache
PER_EVENT = 8, 128  # a network for every event of the history of every pair
PRODUCT = 1 << 30, 1 << 16  # one matrix product


def score_catalogue(scorer: Any, state: Any, items: Tensor, rows: int) -> Tensor:
    """Scores ``[rows, n]`` of ``items [n]`` for every row of ``state``, by the scorer's own fast way if it has one."""
    if hasattr(scorer, "score_catalogue"):
        return scorer.score_catalogue(state, items)
    return scorer.score(state, items.expand(rows, -1))


def catalogue_scores(scorer: Any, interaction: Any, catalogue: Tensor) -> Tensor:
    """Scores ``[B, n]`` of the items ``catalogue [n]`` for every row of ``interaction``.

    ``scorer`` is an ``evaluation.ranking.Scorer``.
    """
    rows_at_once, items_at_once = getattr(scorer, "catalogue_block", PAIRWISE)
    if catalogue.device.type != "cpu":
        rows_at_once *= 32  # a GPU needs more work at a time
    parts = catalogue.split(items_at_once)
    scores = []
    for start in range(0, len(interaction), rows_at_once):
        rows = interaction[start : start + rows_at_once]
        state = scorer.encode(rows)
        scores.append(torch.cat([score_catalogue(scorer, state, part, len(rows)) for part in parts], dim=1))
    return torch.cat(scores)


def scores_of(scorer: Any, interaction: Any, items: Tensor) -> Tensor:
    """Scores ``[B, C]`` of ``items [B, C]``, some rows at a time, for as much memory as ``catalogue_scores`` takes."""
    rows_at_once, items_at_once = getattr(scorer, "catalogue_block", PAIRWISE)
    step = max(1, min(rows_at_once, len(interaction), rows_at_once * items_at_once // items.shape[1]))
    if items.device.type != "cpu":
        step *= 32  # a GPU needs more work at a time
    parts = (slice(start, start + step) for start in range(0, len(interaction), step))
    return torch.cat([scorer.score(scorer.encode(interaction[rows]), items[rows]) for rows in parts])
