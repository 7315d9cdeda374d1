"""Popularity, the baseline that every trained model has to beat."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.general_recommender import Pop as RecBolePop
from recbole.utils import InputType
from torch import Tensor


class Pop(RecBolePop):
    """An item's score is its number of training interactions over that of the most popular item.

    RecBole's ``Pop`` adds one per batch to every item in it (an indexed assignment keeps one of several equal
    indices), so its counts depend on the batch size, and it counts sampled negatives too; here every interaction
    counts once, and nothing else.
    """

    input_type = InputType.PAIRWISE  # a pointwise model would get its negatives among the rows

    def calculate_loss(self, interaction: Any) -> Tensor:
        items = interaction[self.ITEM_ID]
        self.item_cnt.index_add_(0, items, torch.ones_like(items).unsqueeze(1))
        self.max_cnt = self.item_cnt.max(dim=0).values
        return self.fake_loss.sum() * 0.0
