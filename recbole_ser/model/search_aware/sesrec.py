"""SESRec (Si et al., SIGIR 2023, https://doi.org/10.1145/3539618.3591786)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.layers import (
    Attribute,
    CoAttention,
    FeatureEmbedding,
    PairMLP,
    TargetAttention,
    TransformerEncoder,
    masked_mean, distinct, lookup
)
from recbole_ser.model.losses import Temperature, info_nce, log_sum_exp_tanh, triplet


SORT = True
class History(NamedTuple):
    """One side of the user: T is R on the recommendation side and S on the search side."""

    states: Tensor  # [B, T, d]
    views: Tensor  # [B, V, T]: all valid positions and, with co-attention, the similar and the dissimilar ones
    similarity: Tensor | None  # [B, T]


class UserState(NamedTuple):
    user: Tensor  # [B, user width]
    rec: History
    search: History


class SESRec(SearchRecommender):
    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.alpha, self.beta, self.margin = config["alpha"], config["beta"], config["margin"]
        self.multi_interest, self.split_threshold = config["multi_interest"], config["split_threshold"]
        self.negatives = config["alignment_negatives"]
        width, heads, dropout = config["hidden_size"], config["n_heads"], config["dropout_prob"]

        def attributes(tables: dict[str, Tensor], size: int) -> dict[str, Attribute]:
            return {name: Attribute(values, dataset.num(name), size) for name, values in tables.items()}

        self.items = FeatureEmbedding(
            dataset.item_num,
            config["item_id_size"],
            attributes(dataset.item_attributes, config["item_attribute_size"]),
            width,
        )
        terms = {"terms": Attribute(dataset.query_terms, dataset.term_num, config["term_size"])}
        self.queries = FeatureEmbedding(dataset.query_num, config["query_id_size"], terms, width)
        self.users = FeatureEmbedding(
            dataset.user_num,
            config["user_id_size"],
            attributes(dataset.user_attributes, config["user_attribute_size"]),
        )
        self.sources = nn.Embedding(dataset.source_num, width, padding_idx=0) if dataset.source_num > 1 else None
        self.rec_positions = nn.Embedding(config["MAX_ITEM_LIST_LENGTH"], width)
        self.search_positions = nn.Embedding(config["max_search_length"], width)
        self.rec_encoder = TransformerEncoder(width, config["n_layers"], heads, dropout)
        self.search_encoder = TransformerEncoder(width, config["n_layers"], heads, dropout)
        self.co_attention = CoAttention(width) if self.beta or self.multi_interest else None
        self.rec_interest, self.search_interest = TargetAttention(width), TargetAttention(width)
        views = 3 if self.multi_interest else 1
        self.mlp = PairMLP(self.users.width, (2 * views + 1) * width, config["mlp_hidden_size"], dropout)
        if self.alpha:
            self.register_buffer("training_searches", dataset.training_search_queries, persistent=False)
            self.alignment = nn.Parameter(torch.empty(width, width))
            self.temperature = Temperature(config["temperature"])
        self.apply(initialise)

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        if SORT:
            order = (interaction["item_length"] + interaction["search_length"]).argsort()
            interaction = {k: v[order] for k, v in interaction.items()}
        items = [interaction[name] for name in (self.ITEM_SEQ, "search_click_list", self.POS_ITEM_ID, self.NEG_ITEM_ID)]
        negatives = self.draw() if self.alpha else ()
        with (
            self.items.shared(*items, *negatives[:1]),
            self.queries.shared(interaction["search_query_list"], *negatives[1:]),
        ):
            candidates = torch.cat([interaction[self.POS_ITEM_ID].unsqueeze(1), interaction[self.NEG_ITEM_ID]], 1)
            state = self.encode(interaction)
            logits = self.score(state, candidates)
            labels = torch.zeros_like(logits)
            labels[:, 0] = 1
            return {
                "rec": torch.nn.functional.binary_cross_entropy_with_logits(logits, labels),
                **self.auxiliary_losses(interaction, state, negatives),
            }

    def draw(self):
        ni = torch.randint(1, self.n_items, (self.negatives,), device=self.alignment.device)
        nq = self.training_searches[torch.randint(len(self.training_searches), (self.negatives,), device=ni.device)]
        return ni, nq.long()

    def encode(self, interaction: Any) -> UserState:
        items, queries = interaction[self.ITEM_SEQ], interaction["search_query_list"]
        clicks = interaction["search_click_list"]
        rec = self.items(items) + self.rec_positions.weight[: items.shape[1]]
        search = self.queries(queries) + self.search_positions.weight[: queries.shape[1]]
        search = search + masked_mean(self.items(clicks), clicks != 0)
        if self.sources is not None:
            search = search + self.sources(interaction["search_source_list"])
        rec_mask, search_mask = items != 0, queries != 0
        rec = self.rec_encoder(rec, rec_mask)
        search = self.search_encoder(search, search_mask)
        user = self.users(interaction[self.USER_ID])
        if self.co_attention is None:
            return UserState(
                user, History(rec, rec_mask.unsqueeze(1), None), History(search, search_mask.unsqueeze(1), None)
            )
        s, r = self.co_attention(search, search_mask, rec, rec_mask)
        return UserState(user, self.split(rec, rec_mask, r), self.split(search, search_mask, s))

    def split(self, states: Tensor, mask: Tensor, similarity: Tensor) -> History:
        th = 1 / mask.sum(1, keepdim=True)
        similar = (similarity > th) & mask
        dissimilar = mask & ~similar
        similar = torch.where(similar.any(1, keepdim=True), similar, mask)
        dissimilar = torch.where(dissimilar.any(1, keepdim=True), dissimilar, mask)
        return History(states, torch.stack([mask, similar, dissimilar], 1), similarity)

    def score(self, state: UserState, items: Tensor) -> Tensor:
        targets = self.items(items)
        pair = [
            *self.rec_interest(state.rec.states, state.rec.views, targets),
            *self.search_interest(state.search.states, state.search.views, targets),
            targets,
        ]
        return self.mlp(state.user, torch.cat(pair, 2))

    def auxiliary_losses(self, interaction: Any, state: UserState, negatives=None) -> dict[str, Tensor]:
        losses = {}
        if self.alpha:
            losses["alignment"] = self.alpha * self.align(interaction, *(negatives or self.draw()))
        if self.beta:
            both = state.rec.views[:, 0].any(1) & state.search.views[:, 0].any(1)
            losses["contrast"] = self.beta * (self.contrast(state.rec, both) + self.contrast(state.search, both))
        return losses

    def contrast(self, h: History, both: Tensor) -> Tensor:
        a = (h.similarity.unsqueeze(1) @ h.states).squeeze(1)
        w = h.views[:, 1:].to(h.states.dtype); m = (w / w.sum(2, keepdim=True).clamp(min=1)) @ h.states
        return (triplet(a, m[:, 0], m[:, 1], self.margin) * both).mean()

    def align(self, interaction: Any, ni, nq) -> Tensor:
        clicks = interaction["search_click_list"]
        valid = clicks != 0
        pq = interaction["search_query_list"].unsqueeze(2).expand_as(clicks)[valid]
        pi = clicks[valid]
        q, qp = distinct(pq, self.queries.count); qrow = qp[pq]
        i, ip = distinct(pi, self.n_items); irow = ip[pi]
        ni, nq = self.items(ni), self.queries(nq)
        q, i = self.queries(q) @ self.alignment, self.items(i)
        tau = self.temperature()
        pos = torch.tanh((lookup(q, qrow) * lookup(i, irow)).sum(1)) / tau
        q2i = log_sum_exp_tanh(q, ni, tau).index_select(0, qrow)
        i2q = log_sum_exp_tanh(i, nq @ self.alignment, tau).index_select(0, irow)
        return 0.5 * (info_nce(pos, q2i) + info_nce(pos, i2q)).sum() / max(len(pi), 1)


def initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding, nn.EmbeddingBag)):
        nn.init.xavier_normal_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
        if getattr(module, "padding_idx", None) is not None:
            with torch.no_grad():
                module.weight[0] = 0
    for n, p in module.named_parameters(recurse=False):
        if (
            p.dim() == 2
            and n in ("alignment", "affinity", "weight")
            and not isinstance(module, (nn.Linear, nn.Embedding, nn.EmbeddingBag))
        ):
            nn.init.xavier_normal_(p)
