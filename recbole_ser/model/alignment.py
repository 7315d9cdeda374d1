"""The alignment of queries with the items clicked under them (SESRec, Eq. 6-8; UniSAR)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ser.model.embeddings import FeatureEmbedding, Mentions, distinct, lookup
from recbole_ser.model.losses import Temperature, info_nce, log_sum_exp_tanh
from recbole_ser.workers.rows import drawn_alike, gather_rows


class QueryItemAlignment(nn.Module):
    """InfoNCE in both directions over all (query, clicked item) pairs of the search histories of a batch.

    The similarity of query q and item i is tanh(q' W_A i), in the direction from items to queries tanh(i' W_A q) if
    ``turned``.  Negatives are drawn with ``draw``, which every training step does once.

    Args:
        width: d, width of the vectors of items and queries.
        negatives: K, number of negative items, and of negative queries, for each pair.
        temperature: initial value of the learnt temperature.
        searched: queries, at least one, that negative queries are drawn from; a query may be in there several times.
        turned: whether W_A is transposed for the direction from items to queries.
    """

    searched: Tensor

    def __init__(
        self, width: int, negatives: int, temperature: float, searched: Tensor, *, turned: bool = False
    ) -> None:
        super().__init__()
        self.negatives, self.turned = negatives, turned
        self.drawn: Mentions | None = None
        self.register_buffer("searched", searched, persistent=False)
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width)))  # W_A
        self.temperature = Temperature(temperature)

    def draw(self, item_count: int) -> Mentions:
        """Draw new negatives with replacement, items from the whole catalogue and queries from ``searched``."""
        with drawn_alike():
            items = torch.randint(1, item_count, (self.negatives,), device=self.weight.device)
            queries = torch.randint(len(self.searched), (self.negatives,), device=self.weight.device)
        self.drawn = Mentions(items, self.searched[queries].long())
        return self.drawn

    def forward(self, interaction: Any, items: FeatureEmbedding, queries: FeatureEmbedding) -> Tensor:
        """The mean loss, a scalar, over all P pairs and both directions, against the negatives that were drawn last.

        Many pairs share their query or their item, so the sum over negatives is computed once per distinct query and
        item.  Likewise many negative queries are the same, so each distinct one enters with its count.
        """
        negatives = self.drawn or self.draw(items.count)
        clicks = interaction["search_click_list"]  # [B, S, C]
        searched = interaction["search_query_list"].unsqueeze(2).expand_as(clicks)  # [B, S, C]
        is_pair = (clicks != 0) & (searched != 0)
        clicks, searched = clicks[is_pair], searched[is_pair]  # [P]
        distinct_items, item_place = distinct(clicks, items.count)
        distinct_queries, query_place = distinct(searched, queries.count)
        item_row, query_row = item_place[clicks], query_place[searched]  # [P]
        negative_queries, _ = distinct(negatives.queries, queries.count)
        negative_counts = negatives.queries.bincount()[negative_queries]  # [distinct negative queries]

        temperature = self.temperature()
        item = items(distinct_items)  # [distinct items, d]
        query = queries(distinct_queries)  # [distinct queries, d]
        back = self.weight.t() if self.turned else self.weight  # W_A for the direction from items to queries
        projected = query @ self.weight  # q' W_A [distinct queries, d]
        negative_query = queries(negative_queries) @ back  # [distinct negative queries, d]

        def of_pairs(projected: Tensor) -> Tensor:
            """The positives' logits ``[P]``."""
            return torch.tanh((lookup(projected, query_row) * lookup(item, item_row)).sum(dim=1)) / temperature

        positive = of_pairs(projected)
        to_items = log_sum_exp_tanh(projected, items(negatives.items), temperature)  # [distinct queries]
        to_queries = log_sum_exp_tanh(item, negative_query, temperature, negative_counts)  # [distinct items]
        q2i = info_nce(positive, to_items.index_select(0, query_row))  # SESRec, Eq. 6: [P]
        if self.turned:
            positive = of_pairs(query @ back)
        i2q = info_nce(positive, to_queries.index_select(0, item_row))  # SESRec, Eq. 7: [P]
        losses = gather_rows(0.5 * (q2i + i2q))  # [P of all workers]
        return losses.sum() / max(len(losses), 1)  # SESRec, Eq. 8
