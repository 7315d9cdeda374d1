"""DIN, which weights a history anew for every candidate, and a variant of it that reads the search history too.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
https://doi.org/10.1145/3219819.3219823.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.catalogue import PER_EVENT
from recbole_ser.model.embeddings import item_embedding, query_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.scoring import ActivationUnit, PairMLP
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, MLPSizes, QueryWidths
from recbole_ser.settings.types import Probability, Widths


class History(NamedTuple):
    """The events of one kind; T is the padded length."""

    states: Tensor  # [B, T, d]
    mask: Tensor  # [B, T]


class DIN(SearchRecommender):
    """DIN, which scores each candidate on its own.

    The equations are numbered here, with candidate t and the events h_j of a history:

    (1) w_j = MLP_a([t, h_j, t - h_j, t * h_j]), with Dice between its layers
    (2) u = sum_j w_j h_j
    (3) y = MLP([t, u]), with Dice between its layers

    ``search_pools: true`` adds two more histories to the interactions, the queries and the clicked items of the
    searches, each with weights (1) and a sum (2) of its own: (3) becomes MLP([t, u_items, u_queries, u_clicks]).
    This is how the papers on search-aware recommendation let DIN see search data.

    Faithful to the paper: (1) is not normalised over the history, so that u grows with how much of it concerns t;
    Dice is the data-adaptive one, with batch statistics and a learnt slope; candidates are scored alone.

    Adapted to this package:

    - Items are their id and attributes, projected to d; queries are their id and the mean of their words, projected.
    - (3) is trained on one positive beside several negatives, and gives a logit.
    - There are no features of the user or of the context besides the history, and so no user id.

    Where public implementations differ:

    - (1): the authors' code has layers of 80 and 40 with a sigmoid; the code of IV4REC has 64 and 16, and nothing
      between 16 and 1. Here every hidden layer is followed by Dice.
    - (3): the authors' code adds t * u to the input; the paper's figure does not, nor does this.

    Decided here: an empty history has a sum of zero.

    Confidence: high without ``search_pools``; medium with it, as that variant was published as code only.
    """

    catalogue_block = PER_EVENT

    class Settings(SearchRecommender.Settings, ItemWidths, QueryWidths, MLPSizes):
        search_pools: bool = setting("whether the queries and the clicks of the search history are pooled too")
        attention_hidden_size: Widths = setting("widths of the hidden layers of the activation units")
        dropout_prob: Probability = setting("probability of dropout between the layers of the MLP")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, sizes = settings.hidden_size, settings.attention_hidden_size
        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset) if settings.search_pools else None
        pools = 3 if settings.search_pools else 1
        self.units = nn.ModuleList(ActivationUnit(width, sizes) for _ in range(pools))
        self.mlp = PairMLP(0, (1 + pools) * width, settings.mlp_hidden_size, settings.dropout_prob, dice=True)
        self.apply(initialise)

    def encode(self, interaction: Any) -> list[History]:
        """One history per pool: interactions and, with ``search_pools``, queries and clicks."""
        items = interaction[self.ITEM_SEQ]
        histories = [History(self.items(items), items != 0)]
        if self.queries is not None:
            queries = interaction["search_query_list"]
            clicks = interaction["search_click_list"].flatten(1)  # [B, S C]
            histories += [History(self.queries(queries), queries != 0), History(self.items(clicks), clicks != 0)]
        return histories

    def score(self, state: list[History], items: Tensor) -> Tensor:
        targets = self.items(items)  # [B, C, d]
        pools = [unit(*history, targets) for unit, history in zip(self.units, state)]  # (1), (2): each [B, C, d]
        pair = torch.cat([targets, *pools], dim=2)  # [B, C, (1 + pools) d]
        return self.mlp(targets.new_empty(len(items), 0), pair)  # (3): [B, C]
