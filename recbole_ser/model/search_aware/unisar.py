"""UniSAR, which models transitions within and between recommendation and search, for both tasks.

Shi et al., "UniSAR: Modeling User Transition Behaviors between Search and Recommendation", SIGIR 2024.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_ser.model.alignment import QueryItemAlignment
from recbole_ser.model.base import JointRecommender
from recbole_ser.model.embeddings import (
    FeatureEmbedding,
    Mentions,
    attributes_of,
    clicked_queries,
    item_embedding,
    lookup,
    query_embedding,
)
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import TransformerEncoder, masked_mean, merged_places, perceptron
from recbole_ser.model.losses import Temperature, nt_xent, positive_first_loss
from recbole_ser.model.scoring import ExpertGates, TargetAttention
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, MLPSizes, QueryWidths, TransformerSizes, UserWidths
from recbole_ser.settings.types import Count, Layers, StartTemperature, Weight

REC, SEARCH = 0, 1  # the tasks


class History(NamedTuple):
    """One side of a user's behaviour; T is L for recommendation, S for search."""

    mask: Tensor  # [B, T]
    own: Tensor  # after attention to the same side [B, T, d]
    other: Tensor  # after attention to the other side [B, T, d]
    fused: Tensor  # [B, T, d]


class UserState(NamedTuple):
    user: Tensor  # [B, d]
    rec: History
    search: History


class UniSAR(JointRecommender):
    """UniSAR with both tasks; candidates are ranked by the recommendation task.  The equations are numbered here:

    (1) Vectors of items i, queries q and users u: tanh(W [id; attributes or words] + b).  A search record is q plus
        the mean of its clicked items.
    (2) Extraction: R = Enc(items + P_r) and S = Enc(searches + P_s), within each side; [S->R; R->S] =
        Enc([items; searches] + P), with the positions P of both in one order of time, where an item attends to
        searches alone and a search to items alone.
    (3) Query-item alignment: the mean of two InfoNCE losses over all clicks of the search histories, of tanh(q' W i) /
        tau against random items and of tanh(i' W q) / tau against random queries.
    (4) Transition alignment: NT-Xent between the means of S->R and R, and between those of R->S and S.
    (5) Fusion: F_r = Dec(R, memory S->R) and F_s = Dec(S, memory R->S).
    (6) Interests: w_r and w_s, sums of F_r and F_s weighted by softmax(f' W i) for the candidate i.
    (7) Prediction: experts and gates on [w_r; w_s; i; u; q], then the task's tower, of two layers, each with ReLU and
        dropout behind it, then the MLP and its logit.  For recommendation a learnt vector takes the place of q.
    (8) L = L_R + search_weight L_S, each BCE + alignment_weight (3) + transition_weight (4), over its own batch.

    As in the public code: one-layer post-norm encoders and decoders with ReLU, and with dropout inside their
    position-wise networks; the forms of (3), (4) and (6); four shared and four own experts for each task, the layers
    and widths in (7); the initial spread of embeddings and experts; one batch of each task in every step, and the same
    negatives of (3) for both; biases are not decayed.

    Where this differs from the public code:

    - (1): a query is its id beside its words, as in every model here; there it is its words alone.
    - (2): of an interaction and a search at the same time the search comes first; there the interaction does.
    - (2): a position with nothing to attend to gets the bias of the attention; the public code gives NaN there.
    - (3): negatives are drawn anew for every step, with replacement, and queries from those of the training period;
      there both are read in turn from shuffled lists of all items and all queries.
    - (3) and (4): temperatures cannot fall below 0.01 and are not decayed.
    - (4): only users with both histories take part.
    - The learning rate falls on a plateau only if ``lr_plateau`` says so; the published figures owe much to that.

    Decided here: the MLP is each task's own.  Without searches in the training period there is no (3).  What a weight
    of 0 switches off has no parameters or, with ``search_weight: 0``, frozen ones.

    Confidence: high.
    """

    decays_biases = False

    class Settings(JointRecommender.Settings, ItemWidths, QueryWidths, UserWidths, TransformerSizes, MLPSizes):
        shared_experts: Layers = setting("experts of both tasks")
        own_experts: Layers = setting("experts of each task")
        alignment_weight: Weight = setting("weight of the query-item alignment; 0: none")
        alignment_temperature: StartTemperature = setting("of this alignment, where it starts")
        alignment_negatives: Count = setting("items, and as many queries, that it draws for each batch")
        transition_weight: Weight = setting("weight of the two transition alignments; 0: none")
        transition_temperature: StartTemperature = setting("of these, where both start")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.alignment_weight = settings.alignment_weight if len(dataset.training_search_queries) else 0
        self.transition_weight = settings.transition_weight
        width, heads, dropout = settings.hidden_size, settings.n_heads, settings.dropout_prob
        lengths = config["MAX_ITEM_LIST_LENGTH"], config["max_search_length"]

        attributes = attributes_of(dataset, "user", settings.user_attribute_size)
        self.users = FeatureEmbedding(dataset.user_num, settings.user_embedding_size, attributes, width, nn.Tanh())
        self.items = item_embedding(settings, dataset, nn.Tanh())
        self.queries = query_embedding(settings, dataset, nn.Tanh())
        self.no_query = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, width))[0])  # q in recommendation
        self.rec_positions, self.search_positions = (nn.Embedding(length, width) for length in lengths)
        self.positions = nn.Embedding(sum(lengths), width)  # of both sides in one order

        def transformer(layers: int, cross: bool = False) -> TransformerEncoder:
            return TransformerEncoder(
                width, layers, heads, dropout,
                cross=cross, inner_dropout=dropout, activation=nn.ReLU, attention_dropout=dropout, epsilon=1e-5,
            )  # fmt: skip

        self.rec_encoder, self.search_encoder, self.encoder = (transformer(settings.n_layers) for _ in range(3))
        self.rec_decoder, self.search_decoder = transformer(1, cross=True), transformer(1, cross=True)
        self.rec_interest, self.search_interest = TargetAttention(width), TargetAttention(width)
        self.experts = ExpertGates(2, 5 * width, width, settings.shared_experts, settings.own_experts, dropout)
        self.towers = nn.ModuleList(_tower(width, settings.mlp_hidden_size, dropout) for _ in (REC, SEARCH))
        if self.alignment_weight:
            searched = dataset.training_search_queries.unique()
            negatives, temperature = settings.alignment_negatives, settings.alignment_temperature
            self.alignment = QueryItemAlignment(width, negatives, temperature, searched, turned=True)
        if self.transition_weight:
            temperature = settings.transition_temperature
            self.to_rec, self.to_search = (TransitionAlignment(width, temperature) for _ in range(2))
        self.apply(initialise)
        if not self.search_weight:
            for module in (self.experts.own[SEARCH], self.experts.gates[SEARCH], self.towers[SEARCH]):
                module.requires_grad_(False)

    def draw_mentions(self, interaction: Any) -> list[Mentions]:
        """The negatives of (3), newly drawn for both tasks."""
        return [self.alignment.draw(self.items.count)] if self.alignment_weight else []

    def search_losses(self, interaction: Any) -> dict[str, Tensor]:
        state = self.encode_search(interaction)
        logits = self.score_search(state, interaction["query_id"], self.training_items(interaction))
        auxiliary = self.auxiliary_losses(interaction, state)
        return {
            "search": positive_first_loss(logits),
            **{f"search_{name}": loss for name, loss in auxiliary.items()},
        }

    def auxiliary_losses(self, interaction: Any, state: UserState) -> dict[str, Tensor]:
        """The alignments (3) and (4)."""
        losses = {}
        if self.alignment_weight:
            losses["alignment"] = self.alignment(interaction, self.items, self.queries)
        if self.transition_weight:
            both = state.rec.mask.any(dim=1) & state.search.mask.any(dim=1)  # [B]
            losses["transition"] = self.to_rec(state.rec, both) + self.to_search(state.search, both)
        return losses

    def loss_weights(self) -> dict[str, float]:
        weights = {"alignment": self.alignment_weight, "transition": self.transition_weight}
        return {**weights, **{f"search_{name}": weight for name, weight in weights.items()}}

    def encode(self, interaction: Any) -> UserState:
        items, queries = interaction[self.ITEM_SEQ], interaction["search_query_list"]
        rec_mask, search_mask = items != 0, queries != 0
        rec = self.items(items)  # [B, L, d]
        search = clicked_queries(self.items, self.queries, interaction)  # (1): [B, S, d]

        rec2rec = self.rec_encoder(rec + self.rec_positions.weight[: rec.shape[1]], rec_mask)  # (2)
        src2src = self.search_encoder(search + self.search_positions.weight[: search.shape[1]], search_mask)
        places = torch.cat(merged_places(interaction["search_place_list"], search_mask, rec.shape[1]), dim=1)
        both = torch.cat([rec, search], dim=1) + lookup(self.positions.weight, places)  # [B, L + S, d]
        both = self.encoder(both, other_side(rec_mask, search_mask))
        src2rec, rec2src = both.split([rec.shape[1], search.shape[1]], dim=1)

        rec = self.rec_decoder(rec2rec, rec_mask, src2rec, rec_mask)  # (5): [B, L, d]
        search = self.search_decoder(src2src, search_mask, rec2src, search_mask)  # (5): [B, S, d]
        return UserState(
            self.users(interaction[self.USER_ID]),
            History(rec_mask, rec2rec, src2rec, rec),
            History(search_mask, src2src, rec2src, search),
        )

    def score(self, state: UserState, items: Tensor) -> Tensor:
        return self.logits(state, self.no_query.expand_as(state.user), items, REC)

    def score_catalogue(self, state: UserState, items: Tensor) -> Tensor:
        targets = self.items(items)  # [n, d]
        rec = self.rec_interest.pooling(state.rec.fused, state.rec.mask.unsqueeze(1), targets)
        search = self.search_interest.pooling(state.search.fused, state.search.mask.unsqueeze(1), targets)
        row = torch.cat([state.user, self.no_query.expand_as(state.user)], dim=1)
        return self.towers[REC](self.experts.over_catalogue(row, [rec, search], targets, REC)).squeeze(2)

    def score_search(self, state: UserState, queries: Tensor, items: Tensor) -> Tensor:
        return self.logits(state, self.queries(queries), items, SEARCH)

    def logits(self, state: UserState, query: Tensor, items: Tensor, task: int) -> Tensor:
        """The logits of (6) and (7), ``[B, C]``, of ``items [B, C]`` with the query vectors ``query [B, d]``."""
        targets = self.items(items)  # [B, C, d]
        (rec,) = self.rec_interest(state.rec.fused, state.rec.mask.unsqueeze(1), targets)  # w_r [B, C, d]
        (search,) = self.search_interest(state.search.fused, state.search.mask.unsqueeze(1), targets)  # w_s [B, C, d]
        row, pair = torch.cat([state.user, query], dim=1), torch.cat([rec, search, targets], dim=2)
        return self.towers[task](self.experts(row, pair, task)).squeeze(2)


class TransitionAlignment(nn.Module):
    """(4) for one side: the mean of a history encoded by itself against its mean encoded from the other side."""

    def __init__(self, width: int, temperature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width)))
        self.temperature = Temperature(temperature)

    def forward(self, history: History, rows: Tensor) -> Tensor:
        """The loss, a scalar, over the users for whom ``rows [B]`` is true."""
        other, own = (masked_mean(states[rows], history.mask[rows]) for states in (history.other, history.own))
        return nt_xent(other, own, self.weight, self.temperature())  # of two [users, d]


def other_side(rec_mask: Tensor, search_mask: Tensor) -> Tensor:
    """``[B, L + S, L + S]``: items see only valid searches, and searches see only valid items."""
    valid = torch.cat([rec_mask, search_mask], dim=1)  # [B, L + S]
    is_rec = torch.arange(valid.shape[1], device=valid.device) < rec_mask.shape[1]  # [L + S]
    return valid.unsqueeze(1) & (is_rec.unsqueeze(1) != is_rec)


def _tower(width: int, hidden: list[int], dropout: float) -> nn.Sequential:
    """The layers that turn a task's mixture of experts into a logit: the tower, then the MLP."""
    tower = perceptron([width, 2 * width, width], nn.ReLU, dropout, last=True)
    return nn.Sequential(*tower, *perceptron([width, *hidden, 1], nn.ReLU, dropout))
