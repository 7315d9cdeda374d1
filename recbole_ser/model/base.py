"""What every model of this package is: a user side encoded once per row, and scores for candidates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_ser.model.layers import PassCache
from recbole_ser.model.losses import Temperature

PAIRS_AT_ONCE = 1 << 14  # (row, item) pairs per call of ``score`` when the catalogue is scored: what fits in a cache


class SearchRecommender(PassCache, SequentialRecommender):
    """Base class of the search-aware models.

    A model implements ``encode`` and ``score``, and ``auxiliary_losses`` if it has any.  From these come
    RecBole's ``calculate_loss``, ``predict`` and ``full_sort_predict``.  Tables that depend on the parameters alone
    (a propagated graph, projected items) it may keep with ``cached`` while it is evaluated.

    The interaction holds, right-padded with 0 and oldest first (L: ``MAX_ITEM_LIST_LENGTH``, S:
    ``max_search_length``, C: ``max_clicks_per_search``, N: ``train_neg_sample_args.sample_num``):
    ``user_id [B]``, ``item_id [B]``, ``item_id_list [B, L]``, ``item_length [B]``, ``search_query_list [B, S]``,
    ``search_click_list [B, S, C]``, ``search_source_list [B, S]``, ``search_length [B]``, and in training
    ``neg_item_id [B, N]``.
    """

    n_items: int  # padding id included
    input_type = InputType.LISTWISE  # one positive beside a list of negatives

    def encode(self, interaction: Any) -> Any:
        """The user side, once per row of ``interaction``; what it returns goes to ``score`` as it is."""
        raise NotImplementedError

    def score(self, state: Any, items: Tensor) -> Tensor:
        """Logits ``[B, C]`` of the candidates ``items [B, C]`` of each row."""
        raise NotImplementedError

    def auxiliary_losses(self, interaction: Any, state: Any) -> dict[str, Tensor]:
        """Named scalar losses that are added to the main one, already weighted."""
        return {}

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that the optimiser's weight decay must leave alone: temperatures."""
        return {f"{name}.raw" for name, module in self.named_modules() if isinstance(module, Temperature)}

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        """The main loss, ``rec``, and the auxiliary ones, by name; their sum is what is minimised."""
        state = self.encode(interaction)
        return {"rec": self.main_loss(interaction, state), **self.auxiliary_losses(interaction, state)}

    def main_loss(self, interaction: Any, state: Any) -> Tensor:
        """Binary cross entropy of one positive and N negatives, averaged over all B(N+1) pairs."""
        positive, negatives = interaction[self.POS_ITEM_ID], interaction[self.NEG_ITEM_ID]
        logits = self.score(state, torch.cat([positive.unsqueeze(1), negatives], dim=1))  # [B, 1 + N]
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1.0
        return F.binary_cross_entropy_with_logits(logits, labels)

    def calculate_loss(self, interaction: Any) -> Tensor:
        return torch.stack(list(self.losses(interaction).values())).sum()

    def predict(self, interaction: Any) -> Tensor:
        """Logits ``[B]`` of ``item_id``."""
        return self.score(self.encode(interaction), interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Logits ``[B, n_items]`` of the whole catalogue, the padding item included (RecBole masks it)."""
        items = torch.arange(self.n_items, device=interaction[self.ITEM_SEQ].device)
        state, rows = self.encode(interaction), len(interaction[self.ITEM_SEQ])
        chunks = items.split(max(1, PAIRS_AT_ONCE // rows))
        return torch.cat([self.score(state, chunk.expand(rows, -1)) for chunk in chunks], dim=1)
