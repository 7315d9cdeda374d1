"""SESRec: search-enhanced sequential recommendation that separates similar and dissimilar interests.

Si et al., "When Search Meets Recommendation", SIGIR 2023, https://doi.org/10.1145/3539618.3591786.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_ser.model.alignment import QueryItemAlignment
from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.embeddings import (
    Mentions,
    clicked_queries,
    item_embedding,
    lookup,
    query_embedding,
    user_embedding,
)
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import CoAttention, TransformerEncoder, mean_weights
from recbole_ser.model.losses import triplet
from recbole_ser.model.scoring import PairMLP, TargetAttention
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, MLPSizes, QueryWidths, TransformerSizes, UserWidths
from recbole_ser.settings.types import Count, StartTemperature, Weight


class History(NamedTuple):
    """One side of a user's behaviour; T is R for recommendation, S for search."""

    states: Tensor  # H [B, T, d]
    views: Tensor  # [B, V, T]: the valid positions and, with co-attention, P and N among them
    similarity: Tensor  # a [B, T]; uniform without co-attention


class UserState(NamedTuple):
    user: Tensor  # e_u [B, user width]
    rec: History
    search: History


class SESRec(SearchRecommender):
    """SESRec, with the equation numbers of the paper in the comments.

    The ablations of Table 3: base ``alpha: 0, beta: 0, multi_interest: false``; + alignment: ``alpha: 0.1``; +
    contrast: ``beta: 0.001``; + multi-interest extraction: ``multi_interest: true``.  What is switched off has no
    parameters; with ``multi_interest`` but ``beta: 0`` the co-attention is random and frozen, as only the contrast
    could train it.  Without searches in the training period there is no alignment.  ``split_threshold`` is ``mean``,
    ``median`` or a number (Table 4).

    Where this differs from the paper:

    - Eq. 1: the projections have a bias (published code).
    - Eq. 3: a search without clicks has a click mean of zero; the published code puts its first result there.
    - Eq. 4-5: residual connections, dropout and LayerNorm behind either part; no mask of the future, no dropout of the
      attention's weights; FFN is d wide inside, with LeakyReLU (published code).
    - Eq. 6-7: means over the pairs of the batch, with the positive in the denominator (published code); over the
      negatives alone, as printed, the loss has no lower bound once the temperature is learnt.
    - Eq. 6-7: the temperature cannot fall below 0.01 and is not decayed; the published one can cross zero.
    - Eq. 11-12: an empty set becomes all valid positions (published code).
    - Eq. 15: 1e-6 is added to every difference of a distance (published code).
    - Eq. 17-19: the candidate is its projected vector, with a W_d for either side (published code).
    - Eq. 21: the MLP has layers of 200, 80 and 1 with ReLU and dropout (published code) and gives a logit.
    - Eq. 22-23: means over the batch; lambda is the optimiser's ``weight_decay``, of biases too (published code).  Only
      the contrast moves the co-attention, and its weight is small: with the published 1e-5 it stays alive, with 1e-4 on
      Toys and Games it became zero, so that no event was similar.  ``recbole-ser figure interests`` shows this.

    Where the published code differs from the paper and this does not:

    - Eq. 6-7: both directions use s(q, i), and negatives are drawn anew for every batch; there i to q has W_A turned,
      and negatives are read in turn from two lists, in the same order in every epoch.
    - Eq. 10: padding stays out of the co-attention.
    - Eq. 11-12: a similarity equal to the threshold is dissimilar.

    Decided here: negative queries are drawn as often as they are searched, in the training period only (published code:
    in the whole log); an empty history has zero interests, and neither it nor the user's other history takes part in
    the contrast.
    """

    class Settings(SearchRecommender.Settings, ItemWidths, QueryWidths, UserWidths, TransformerSizes, MLPSizes):
        alpha: Weight = setting("weight of the query-item alignment; 0: none")
        beta: Weight = setting("weight of the interest contrast; 0: none")
        multi_interest: bool = setting("whether there are similar and dissimilar interests beside the aggregated one")
        alignment_negatives: Count = setting("items, and as many queries, that the alignment draws for each batch")
        temperature: StartTemperature = setting("of the alignment, where it starts")
        margin: Weight = setting("margin of the interest contrast")
        split_threshold: Literal["mean", "median"] | Annotated[float, Field(gt=0, lt=1)] = setting(
            "similarity above which an event is similar to the other history (Table 4)"
        )

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.alpha = settings.alpha if len(dataset.training_search_queries) else 0
        self.beta, self.margin = settings.beta, settings.margin
        self.split_threshold = settings.split_threshold
        width, heads, dropout = settings.hidden_size, settings.n_heads, settings.dropout_prob

        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        self.users = user_embedding(settings, dataset)
        self.sources = nn.Embedding(dataset.source_num, width, padding_idx=0) if dataset.source_num > 1 else None
        self.rec_positions = nn.Embedding(config["MAX_ITEM_LIST_LENGTH"], width)
        self.search_positions = nn.Embedding(config["max_search_length"], width)

        self.rec_encoder = TransformerEncoder(width, settings.n_layers, heads, dropout)
        self.search_encoder = TransformerEncoder(width, settings.n_layers, heads, dropout)
        self.co_attention = CoAttention(width) if self.beta or settings.multi_interest else None
        self.views = 3 if settings.multi_interest else 1
        self.rec_interest, self.search_interest = TargetAttention(width), TargetAttention(width)
        self.mlp = PairMLP(self.users.width, (2 * self.views + 1) * width, settings.mlp_hidden_size, dropout)
        if self.alpha:
            searches = dataset.training_search_queries
            negatives, temperature = settings.alignment_negatives, settings.temperature
            self.alignment = QueryItemAlignment(width, negatives, temperature, searches)
        self.apply(initialise)
        if self.co_attention is not None and not self.beta:
            self.co_attention.requires_grad_(False)

    def draw_mentions(self, interaction: Any) -> list[Mentions]:
        """The negatives of the alignment, newly drawn."""
        return [self.alignment.draw(self.items.count)] if self.alpha else []

    def encode(self, interaction: Any) -> UserState:
        items, queries = interaction[self.ITEM_SEQ], interaction["search_query_list"]
        rec_mask, search_mask = items != 0, queries != 0

        rec = self.items(items) + self.rec_positions.weight[: items.shape[1]]  # Eq. 1-2: E_r [B, R, d]
        search = clicked_queries(self.items, self.queries, interaction)  # [B, S, d]
        search = search + self.search_positions.weight[: queries.shape[1]]
        if self.sources is not None:
            search = search + lookup(self.sources.weight, interaction["search_source_list"])  # Eq. 3: E_s [B, S, d]

        rec = self.rec_encoder(rec, rec_mask)  # Eq. 4-5: H_r [B, R, d]
        search = self.search_encoder(search, search_mask)  # Eq. 4-5: H_s [B, S, d]
        user = self.users(interaction[self.USER_ID])  # [B, user width]
        if self.co_attention is None:
            rec_history = History(rec, rec_mask.unsqueeze(1), mean_weights(rec_mask, rec.dtype))
            search_history = History(search, search_mask.unsqueeze(1), mean_weights(search_mask, search.dtype))
            return UserState(user, rec_history, search_history)
        search_similarity, rec_similarity = self.co_attention(search, search_mask, rec, rec_mask)  # Eq. 9-10
        return UserState(
            user,
            History(rec, self.split(rec_similarity, rec_mask), rec_similarity),
            History(search, self.split(search_similarity, search_mask), search_similarity),
        )

    def above_threshold(self, similarity: Tensor, mask: Tensor) -> Tensor:
        """bool ``[B, T]``: the valid positions whose similarity is above the threshold."""
        lengths = mask.sum(dim=1, keepdim=True)  # [B, 1]
        threshold: Tensor | float
        if isinstance(self.split_threshold, float):
            threshold = self.split_threshold
        elif self.split_threshold == "mean":
            threshold = 1 / lengths.to(similarity.dtype)  # [B, 1]
        else:
            ascending = similarity.masked_fill(~mask, torch.inf).sort(dim=1).values  # [B, T]
            threshold = ascending.gather(1, (lengths - 1).clamp(min=0) // 2)  # the median [B, 1]
        return mask & (similarity > threshold)

    def split(self, similarity: Tensor, mask: Tensor) -> Tensor:
        """Eq. 11-12: ``[B, 3, T]``, the views of all valid, of similar (P) and of dissimilar (N) positions."""
        similar = self.above_threshold(similarity, mask)  # [B, T]
        sets = torch.stack([mask, similar, mask & ~similar], dim=1)  # [B, 3, T]
        return torch.where(sets.any(dim=2, keepdim=True), sets, mask.unsqueeze(1))

    def similar_positions(self, interaction: Any) -> tuple[Tensor, Tensor] | None:
        """Eq. 11-12: the positions of P on either side; unlike in ``split``, P and N may be empty."""
        if self.co_attention is None:
            return None
        state = self.encode(interaction)
        return (
            self.above_threshold(state.rec.similarity, interaction[self.ITEM_SEQ] != 0),
            self.above_threshold(state.search.similarity, interaction["search_query_list"] != 0),
        )

    def remarks(self) -> list[str]:
        if self.co_attention is None or not self.co_attention.vanished:
            return []
        return [
            "the co-attention has become 0, so no event is similar to the other history: lower weight_decay (which is "
            "stronger than the contrast) or raise beta"
        ]

    def score(self, state: UserState, items: Tensor) -> Tensor:
        targets = self.items(items)  # [B, C, d]
        rec = self.rec_interest(state.rec.states, state.rec.views[:, : self.views], targets)  # Eq. 17-19
        search = self.search_interest(state.search.states, state.search.views[:, : self.views], targets)
        pair = torch.cat([*rec, *search, targets], dim=2)  # Eq. 20: [B, C, (2 V + 1) d]
        return self.mlp(state.user, pair)  # Eq. 21: [B, C]

    def score_catalogue(self, state: UserState, items: Tensor) -> Tensor:
        targets = self.items(items)  # [n, d]
        rec = self.rec_interest.pooling(state.rec.states, state.rec.views[:, : self.views], targets)
        search = self.search_interest.pooling(state.search.states, state.search.views[:, : self.views], targets)
        return self.mlp.over_catalogue(state.user, [rec, search], targets)  # Eq. 17-21: [B, n]

    def auxiliary_losses(self, interaction: Any, state: UserState) -> dict[str, Tensor]:
        losses = {}
        if self.alpha:
            losses["alignment"] = self.alignment(interaction, self.items, self.queries)  # Eq. 6-8
        if self.beta:
            both = (state.rec.views[:, 0].any(dim=1) & state.search.views[:, 0].any(dim=1)).to(state.user.dtype)  # [B]
            contrast = self.contrast(state.rec) + self.contrast(state.search)  # Eq. 16: [B]
            losses["contrast"] = (contrast * both).mean()
        return losses

    def loss_weights(self) -> dict[str, float]:
        return {"alignment": self.alpha, "contrast": self.beta}

    def contrast(self, history: History) -> Tensor:
        """Eq. 13-15: the triplet loss ``[B]`` of one side."""
        anchor = (history.similarity.unsqueeze(1) @ history.states).squeeze(1)  # [B, d]
        means = mean_weights(history.views[:, 1:], history.states.dtype) @ history.states  # [B, 2, d]
        return triplet(anchor, means[:, 0], means[:, 1], self.margin)
