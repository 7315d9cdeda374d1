"""GSERec: users with few searches learn from users with many, over graphs of codes that stand for preferences.

Shi et al., "Benefit from Rich: Tackling Search Interaction Sparsity in Search Enhanced Recommendation", CIKM 2025,
https://doi.org/10.1145/3746252.3761314.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.embeddings import clicked_queries, item_embedding, lookup, query_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import TransformerEncoder, masked_mean
from recbole_ser.model.losses import ViewContrast
from recbole_ser.model.propagation import Propagated, UserCodeGraph
from recbole_ser.model.scoring import PairMLP, TargetAttention
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, MLPSizes, QueryWidths, TransformerSizes
from recbole_ser.settings.types import StartTemperature, Weight

LENGTH_GROUPS = 4  # on the CPU a batch is split into this many groups by the length of histories, to save padding


class EncodedSide(NamedTuple):
    """One encoded side, search or recommendation; T is its S searches or R interactions, L the codes of a user."""

    user: Tensor  # e_u of this side [B, d]
    codes: Tensor  # the user's propagated codes [B, L, d]
    codes_mask: Tensor  # [B, L]
    history: Tensor  # H [B, T, d]
    mask: Tensor  # [B, T]
    enriched: Tensor  # W [B, T, d]


class UserState(NamedTuple):
    users: Tensor  # [B]
    search: EncodedSide
    rec: EncodedSide


class GSERec(SearchRecommender):
    """GSERec's second stage, with the equation numbers of the paper in the comments.

    The first stage (Eq. 1-6) made the codes that the data set brings as ``X.codes``.  The ablations of Table 3 are,
    without graph, ``graph_layers: 0``; without U-CL, ``user_contrast_weight: 0``; without His-CL,
    ``history_contrast_weight: 0``; without MCA, ``cross_attention: false``; without RQ-CL, other codes.

    Where this differs from the paper:

    - Items are their id and attributes, and queries their id and the mean of their words, projected to d, as in every
      model of this package; the paper looks up items and words.
    - Eq. 9 and 12: means over the batch and over both directions, with the positive in the denominator (published
      code); over the negatives alone, as printed, the loss has no lower bound once the temperature is learnt.
    - Eq. 9 and 12: the temperatures cannot fall below 0.01 and are not decayed.
    - Eq. 11: the parts have residual connections, LayerNorm behind them and dropout, inside FFN too (published code).
    - Eq. 14: bilinear attention, softmax over the history, a matrix for either side (published code).
    - Eq. 15: the MLP has layers of 200, 80 and 1 with ReLU and dropout (published code) and gives a logit.
    - Eq. 17: lambda_Reg is the optimiser's ``weight_decay``; biases are not decayed (published code).

    Where the published code differs from the paper and this does not:

    - Eq. 13: it computes the contrast of the search side and does not add it.
    - Eq. 9 and 12: it also tells a view from the same view of other users.

    Decided here: instances of one user are not told from each other in Eq. 9 and 12; a side without history takes no
    part in Eq. 12 and is pooled to zero; a user without codes is a node without edges; propagation is exact, but only
    the first layer of the codes is worked out over all users (``model/propagation.py``).
    """

    reads_codes = True
    decays_biases = False

    class Settings(SearchRecommender.Settings, ItemWidths, QueryWidths, TransformerSizes, MLPSizes):
        graph_layers: Annotated[int, Field(ge=0, le=64)] = setting("K, layers of propagation; 0: no message passing")
        user_contrast_weight: Weight = setting("lambda_U-CL, weight of the contrast of users; 0: none")
        history_contrast_weight: Weight = setting("lambda_His-CL, weight of the contrast of histories; 0: none")
        cross_attention: bool = setting("whether codes enrich the histories (MCA)")
        contrast_similarity: Literal["bilinear", "cosine"] = setting("bilinear: tanh of a learnt form")
        user_temperature: StartTemperature = setting("tau_2, where it starts")
        history_temperature: StartTemperature = setting("tau_3, where it starts")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, heads, dropout = settings.hidden_size, settings.n_heads, settings.dropout_prob
        self.user_contrast_weight = settings.user_contrast_weight
        self.history_contrast_weight = settings.history_contrast_weight
        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        self.users = nn.Embedding(dataset.user_num, width, padding_idx=0)
        self.rec_positions = nn.Embedding(config["MAX_ITEM_LIST_LENGTH"], width)
        self.search_positions = nn.Embedding(config["max_search_length"], width)

        codes, layers = dataset.user_codes, settings.graph_layers
        self.search_graph = UserCodeGraph(codes.search, codes.search_num, width, layers)
        self.rec_graph = UserCodeGraph(codes.rec, codes.rec_num, width, layers)
        options = {"activation": nn.ReLU, "attention_dropout": dropout, "inner_dropout": dropout, "epsilon": 1e-5}
        self.search_encoder, self.rec_encoder = (
            TransformerEncoder(width, settings.n_layers, heads, dropout, **options) for _ in range(2)
        )
        cross = settings.cross_attention
        self.search_fusion, self.rec_fusion = (
            TransformerEncoder(width, 1, heads, dropout, cross=cross, **options) for _ in range(2)
        )
        self.search_interest, self.rec_interest = TargetAttention(width), TargetAttention(width)
        self.mlp = PairMLP(2 * width, 3 * width, settings.mlp_hidden_size, dropout)
        contrast = width, settings.contrast_similarity
        if self.user_contrast_weight:
            self.user_contrast = ViewContrast(*contrast, settings.user_temperature)
        if self.history_contrast_weight:
            self.search_contrast, self.rec_contrast = (
                ViewContrast(*contrast, settings.history_temperature) for _ in range(2)
            )
        self.apply(initialise)
        spread = math.sqrt(2 / (codes.search_num + codes.rec_num - 1 + width))  # the published code has one table
        for graph in (self.search_graph, self.rec_graph):
            nn.init.normal_(graph.table.weight[1:], std=spread)

    def encode(self, interaction: Any) -> UserState:
        items, queries = interaction[self.ITEM_SEQ], interaction["search_query_list"]
        users = interaction[self.USER_ID]
        search = clicked_queries(self.items, self.queries, interaction)  # E_s [B, S, d]
        search = search + self.search_positions.weight[: queries.shape[1]]
        rec = self.items(items) + self.rec_positions.weight[: items.shape[1]]  # E_r [B, R, d]
        of_search, of_rec = self.cached("graphs", self.propagate)
        own = lookup(self.users.weight, users)  # [B, d]
        return UserState(
            users,
            self.side("search", users, own, search, queries != 0, of_search),
            self.side("rec", users, own, rec, items != 0, of_rec),
        )

    def propagate(self) -> tuple[Propagated, Propagated]:
        """Eq. 7 over both graphs, from one table of users."""
        return self.search_graph(self.users.weight), self.rec_graph(self.users.weight)

    def user_vectors(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 8: the vectors of ``users [n]`` on the side of search and on that of recommendation, ``[n, d]`` each."""
        of_search, of_rec = self.cached("graphs", self.propagate)
        own = lookup(self.users.weight, users)  # [n, d]
        return self.search_graph.users(users, own, of_search), self.rec_graph.users(users, own, of_rec)

    def side(
        self, name: str, users: Tensor, own: Tensor, history: Tensor, mask: Tensor, propagated: Propagated
    ) -> EncodedSide:
        """Encode one side, ``search`` or ``rec``, from its history ``[B, T, d]`` and the users' rows of the table."""
        graph: UserCodeGraph = getattr(self, f"{name}_graph")
        user = graph.users(users, own, propagated)  # Eq. 8: [B, d]
        codes, codes_mask = graph.codes(users, propagated)  # Eq. 10: [B, L, d], [B, L]
        states, enriched = self.encoded(name, history, mask, codes, codes_mask)
        return EncodedSide(user, codes, codes_mask, states, mask, enriched)

    def encoded(
        self, name: str, history: Tensor, mask: Tensor, codes: Tensor, codes_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Eq. 11: H and W ``[B, T, d]``, zero beyond the longest history of a row's group."""
        encoder, fusion = getattr(self, f"{name}_encoder"), getattr(self, f"{name}_fusion")
        order = mask.sum(dim=1).argsort(stable=True)
        count = LENGTH_GROUPS if history.device.type == "cpu" else 1  # a GPU would launch as many more kernels
        groups = (part.index_select(0, order).chunk(count) for part in (history, mask, codes, codes_mask))
        results = []
        for states, valid, group_codes, group_codes_mask in zip(*groups):
            longest = max(int(valid.any(dim=0).sum()), 1)
            valid = valid[:, :longest]
            states = encoder(states[:, :longest], valid)  # H
            enriched = fusion(states, valid, group_codes, group_codes_mask)  # W
            results.append([F.pad(part, (0, 0, 0, mask.shape[1] - longest)) for part in (states, enriched)])
        back = order.argsort()
        states, enriched = (torch.cat(parts).index_select(0, back) for parts in zip(*results))
        return states, enriched

    def score(self, state: UserState, items: Tensor) -> Tensor:
        targets = self.items(items)  # [B, C, d]
        (search,) = self.search_interest(state.search.enriched, state.search.mask.unsqueeze(1), targets)  # Eq. 14
        (rec,) = self.rec_interest(state.rec.enriched, state.rec.mask.unsqueeze(1), targets)  # Eq. 14: [B, C, d]
        row = torch.cat([state.search.user, state.rec.user], dim=1)  # [B, 2d]
        return self.mlp(row, torch.cat([search, rec, targets], dim=2))  # Eq. 15: [B, C]

    def score_catalogue(self, state: UserState, items: Tensor) -> Tensor:
        targets = self.items(items)  # [n, d]
        search = self.search_interest.pooling(state.search.enriched, state.search.mask.unsqueeze(1), targets)
        rec = self.rec_interest.pooling(state.rec.enriched, state.rec.mask.unsqueeze(1), targets)
        row = torch.cat([state.search.user, state.rec.user], dim=1)  # [B, 2d]
        return self.mlp.over_catalogue(row, [search, rec], targets)  # Eq. 14-15: [B, n]

    def auxiliary_losses(self, interaction: Any, state: UserState) -> dict[str, Tensor]:
        losses = {}
        if self.user_contrast_weight:
            contrast = self.user_contrast(state.search.user, state.rec.user, state.users)  # Eq. 9
            losses["user_contrast"] = contrast
        if self.history_contrast_weight:
            sides = ((self.search_contrast, state.search), (self.rec_contrast, state.rec))
            contrast = sum(self.contrast(module, side, state.users) for module, side in sides)  # Eq. 13
            losses["history_contrast"] = contrast
        return losses

    def loss_weights(self) -> dict[str, float]:
        return {"user_contrast": self.user_contrast_weight, "history_contrast": self.history_contrast_weight}

    @staticmethod
    def contrast(module: ViewContrast, side: EncodedSide, users: Tensor) -> Tensor:
        """Eq. 12, over the rows that have a history and codes."""
        rows = side.mask.any(dim=1) & side.codes_mask.any(dim=1)  # [B]
        history = masked_mean(side.history[rows], side.mask[rows])  # [rows, d]
        codes = masked_mean(side.codes[rows], side.codes_mask[rows])  # [rows, d]
        return module(history, codes, users[rows])
