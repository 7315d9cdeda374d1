"""NRHUB, in which a user is an attentive mixture of the queries searched, the items clicked there, and those browsed.

Wu et al., "Neural News Recommendation with Heterogeneous User Behavior", EMNLP-IJCNLP 2019,
https://doi.org/10.18653/v1/D19-1493.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.catalogue import PRODUCT
from recbole_ser.model.embeddings import item_embedding, query_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import AdditiveAttention
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, QueryWidths
from recbole_ser.settings.types import Width


class NRHUB(SearchRecommender):
    """NRHUB without its text encoders.  The equations are numbered here.  A is additive attention over a set of vectors
    x: A(x) = sum_t a_t x_t with a = softmax_t(v' tanh(U x_t + b)).

    (1) the views: queries A_q(e_q), clicked items of searches A_c(e_i), browsed items A_b(e_i);
    (2) each view: h_k = tanh(W_h view_k + b_h);
    (3) the user: u = A_u(h_q, h_c, h_b), over the views that are not empty;
    (4) an item: t = tanh(W_t e_i + b_t);
    (5) the logit: u' t.

    Faithful to the paper: one attention per kind of behaviour, a further one over the kinds, the inner product with
    the item.  Equations 2 and 4, that one W_h serves all views, and the sizes 200, 200 and 100 are those of the
    public implementation by authors of a later comparison (IV4Rec).

    Adapted to this package:

    - The paper's word-level encoders (convolution and attention over the words of titles and queries) are the
      embeddings every model here has: of ids, attributes and the mean of a query's words, projected to one width.
    - The paper's second kind of behaviour, visited web pages, is the clicked items of searches, as in the comparison.
    - The loss is binary cross entropy over the positive and its negatives, as in the comparison and as for every
      model here; the paper takes a softmax over them.
    - Padding and empty views get no attention.  The public implementation averages padding vectors there.

    Decided here: a user without any history is the zero vector, so that all items score 0; no dropout; initial
    weights as in the other models here (the public implementation: PyTorch's own, and v standard normal).

    NRHUB reads neither the order of the events nor the user's id, nor where a search came from.

    Confidence: high for the structure, which the paper and the public implementation share; the text encoders, which
    matter much for news, cannot be compared.
    """

    catalogue_block = PRODUCT

    class Settings(SearchRecommender.Settings, ItemWidths, QueryWidths):
        attention_size: Width = setting("inner width of the attention within each view")
        view_size: Width = setting("width of the views, the user and the item")
        view_attention_size: Width = setting("inner width of the attention over the views")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        width, inner, view = settings.hidden_size, settings.attention_size, settings.view_size
        self.searched, self.clicked, self.browsed = (AdditiveAttention(width, inner) for _ in range(3))
        self.view = nn.Linear(width, view)
        self.mixture = AdditiveAttention(view, settings.view_attention_size)
        self.target = nn.Linear(width, view)
        self.apply(initialise)

    def encode(self, interaction: Any) -> Tensor:
        """The users' vectors u of (3): ``[B, view_size]``."""
        queries, browsed = interaction["search_query_list"], interaction[self.ITEM_SEQ]
        clicks = interaction["search_click_list"].flatten(1)  # [B, S C]
        masks = queries != 0, clicks != 0, browsed != 0
        views = [
            self.searched(self.queries(queries), masks[0]),
            self.clicked(self.items(clicks), masks[1]),
            self.browsed(self.items(browsed), masks[2]),
        ]  # (1): each [B, d]
        states = torch.tanh(self.view(torch.stack(views, dim=1)))  # (2): [B, 3, view_size]
        present = torch.stack([mask.any(dim=1) for mask in masks], dim=1)  # [B, 3]
        return self.mixture(states, present)  # (3): [B, view_size]

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        targets = torch.tanh(self.target(self.items(items)))  # (4): [B, C, view_size]
        return (targets @ state.unsqueeze(2)).squeeze(2)  # (5): [B, C]

    def score_catalogue(self, state: Tensor, items: Tensor) -> Tensor:
        return state @ torch.tanh(self.target(self.items(items))).t()  # (4), (5): [B, n]
