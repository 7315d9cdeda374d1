"""The best of many scores, by a rule that leaves nothing to chance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SCORES_AT_ONCE = 1 << 24  # that are held together: 64 MiB in single precision, and a few times that to sort them


def rows_at_once(scorer: Any, items: int, batch_size: int) -> int:
    """How many rows may be scored together with ``items`` items."""
    return max(1, min(batch_size, SCORES_AT_ONCE // max(items, getattr(scorer, "scores_per_row", 1))))


def top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of ``scores [B, n]``, highest first; of equal ones the earlier column is the higher.

    Returns:
        Scores and columns ``[B, k]``; all n where there are fewer than k.
    """
    k = min(k, scores.shape[1])
    lowest = scores.topk(k, dim=1).values[:, -1:]  # [B, 1]; which of several equal ones are among them is undefined
    above, tied = scores > lowest, scores == lowest  # [B, n]
    room = k - above.sum(dim=1, keepdim=True)  # [B, 1]
    chosen = above | (tied & (tied.cumsum(dim=1, dtype=torch.int32) <= room))  # k in every row
    columns = chosen.nonzero()[:, 1].view(-1, k)  # ascending
    values, order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)
