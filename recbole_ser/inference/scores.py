"""The highest of many scores, by a rule that leaves nothing to chance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SCORES_AT_ONCE = 1 << 24  # held in memory together: 64 MiB in single precision, and a few times that to sort them


def rows_at_once(scorer: Any, items: int, batch_size: int) -> int:
    """How many rows may be scored together, each against ``items`` items; at most ``batch_size``."""
    return max(1, min(batch_size, SCORES_AT_ONCE // max(items, getattr(scorer, "scores_per_row", 1))))


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of ``scores [B, n]``, highest first; of equal scores the one in the earlier column goes first.

    ``torch.topk`` does not say which of several equal scores it takes, so only its k-th highest score is used: all
    scores above it are chosen, and the places left go to the scores equal to it, from left to right.

    Returns:
        Scores and columns ``[B, k]``, or ``[B, n]`` if n is less than k.
    """
    k = min(k, scores.shape[1])
    lowest = scores.topk(k, dim=1).values[:, -1:]  # [B, 1]
    above, tied = scores > lowest, scores == lowest  # [B, n]
    room = k - above.sum(dim=1, keepdim=True)  # [B, 1]
    chosen = above | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room))  # k in every row
    columns = chosen.nonzero()[:, 1].view(-1, k)  # ascending
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
