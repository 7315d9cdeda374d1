"""JSR: search and recommendation learnt jointly over the same items.

Zamani and Croft, "Joint Modeling and Optimization of Search and Recommendation", DESIRES 2018.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ser.model.base import JointRecommender
from recbole_ser.model.embeddings import Mentions, item_embedding, query_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import Dropout, TransformerEncoder, causal, last_state, perceptron
from recbole_ser.settings.model import ItemWidths, MLPSizes, QueryWidths, TransformerSizes


class JSR(JointRecommender):
    """JSR as a framework around a sequential recommender.  The equations are numbered here:

    (1) Vectors of items i and queries q: [id; attributes or words], projected.
    (2) The user: u = h_t, the last state of h = Backbone(i_1 + p_1, ..., i_t + p_t), causal self-attention.
    (3) Recommendation: r(u, i) = FC_r(u * i), with * element by element and fully connected layers FC.
    (4) Search: s(q, i) = FC_s(q * i).
    (5) L = L_R + search_weight L_S, binary cross entropy of r over targets and of s over the clicks of the training
        searches, each beside the same number of negatives.

    The model reads the recommendation history alone: searches have an effect through (5) only, on the items' vectors.

    Faithful to the paper: one representation of items for both tasks, (3), (4), both trained end to end.

    Adapted:

    - (1): items are ids and attributes, as there may be no text; a query is its id beside the mean of its words, as in
      every model here, instead of a learnt weighting of words.
    - (2): the paper looks u up.  The papers that compare with JSR name no backbone, but report figures near those
      of SASRec and far beyond those of models that look the user up; so u is encoded by blocks like those of SASRec
      (Kang and McAuley, ICDM 2018), without its scaling of the items, and with keys and values normalised too.
    - (5): the search task has a weight.

    Decided here: the sizes of FC, with ReLU and dropout between the layers; a user without history is u = 0, for whom
    all items score the same.  With ``search_weight: 0`` what (4) alone would train is frozen.

    The later version (WSDM 2020) learns from users and items alone and reconstructs the items' texts; it is not this.

    Confidence: medium for (3) to (5), low for the backbone: how others adapted JSR is not public.
    """

    class Settings(JointRecommender.Settings, ItemWidths, QueryWidths, TransformerSizes, MLPSizes):
        pass

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, dropout = settings.hidden_size, settings.dropout_prob
        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        self.positions = nn.Embedding(config["MAX_ITEM_LIST_LENGTH"], width)
        self.dropout = Dropout(dropout)
        self.backbone = TransformerEncoder(
            width, settings.n_layers, settings.n_heads, dropout,
            activation=nn.ReLU, attention_dropout=dropout, pre_norm=True,
        )  # fmt: skip
        sizes = [width, *settings.mlp_hidden_size, 1]
        self.rec_scorer, self.search_scorer = (perceptron(sizes, nn.ReLU, dropout) for _ in range(2))
        self.apply(initialise)
        if not self.search_weight:
            self.queries.requires_grad_(False)
            self.search_scorer.requires_grad_(False)

    def encode(self, interaction: Any) -> Tensor:
        """The users' vectors u of (2): ``[B, d]``."""
        items = interaction[self.ITEM_SEQ]
        mask = items != 0
        states = self.dropout(self.items(items) + self.positions.weight[: items.shape[1]])  # [B, L, d]
        states = self.backbone(states, causal(mask))
        return last_state(states, mask)

    def encode_search(self, interaction: Any) -> None:
        """Nothing to encode: (4) reads the query alone."""

    def score(self, state: Tensor, items: Tensor) -> Tensor:
        return self.rec_scorer(state.unsqueeze(1) * self.items(items)).squeeze(2)  # (3): [B, C]

    def score_search(self, state: None, queries: Tensor, items: Tensor) -> Tensor:
        return self.search_scorer(self.queries(queries).unsqueeze(1) * self.items(items)).squeeze(2)  # (4): [B, C]

    def mentions(self, interaction: Any) -> Mentions:
        """Only the ids that are read: no searches of the histories, and no histories of search instances."""
        items = self.training_items(interaction).flatten()  # [B (1 + N)]
        if "query_id" in interaction:
            return Mentions(items, interaction["query_id"])
        return Mentions(torch.cat([items, interaction[self.ITEM_SEQ].flatten()]), items[:0])
