"""A quick model that reads texts, for the tests of what runs make of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ser.model.base import SearchRecommender


class TextReader(SearchRecommender):
    """The vector of the user's text, weighted by a learnt vector, dotted with the candidate's."""

    reads_texts = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.register_buffer("item_vectors", dataset.item_texts.vectors, persistent=False)
        self.register_buffer("user_vectors", dataset.user_texts.vectors, persistent=False)
        self.weight = nn.Parameter(torch.ones(dataset.item_texts.vectors.shape[1]))

    def encode(self, interaction: Any) -> Tensor:
        return self.user_vectors[interaction["user_id"]] * self.weight

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return torch.einsum("bm,bcm->bc", state, self.item_vectors[items])
