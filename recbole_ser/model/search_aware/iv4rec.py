"""IV4REC and IV4REC+ over DIN: queries as instrumental variables that tell apart why an item was interacted with.

Si et al., "A Model-Agnostic Causal Learning Framework for Recommendation using Search Data", WWW 2022, and
Si et al., "Enhancing Recommendation with Search Data in a Causal Learning Manner", TOIS 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_ser.data.relations import Relation
from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.catalogue import PER_EVENT
from recbole_ser.model.embeddings import Mentions, distinct, item_embedding, lookup, query_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import Attention, masked_mean, masked_softmax, perceptron
from recbole_ser.model.losses import sampled_loss
from recbole_ser.model.scoring import ActivationUnit, PairMLP
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, MLPSizes, QueryWidths
from recbole_ser.settings.types import Layers, Probability, Weight, Widths

RIDGE = 1e-5  # keeps the projection defined if queries are linearly dependent
TINY = 1e-12  # keeps the direction of a zero vector defined
ITEMS_AT_ONCE = 1 << 14  # number of items per step when the whole catalogue is decomposed


class Decomposed(NamedTuple):
    """Treatments, reconstructed from their parts."""

    vectors: Tensor  # [..., d] the reconstructed treatments
    error: Tensor | None  # [...] squared error of the regression, if there is one


class UserState(NamedTuple):
    states: Tensor  # [B, L, d] the interactions
    mask: Tensor  # [B, L]
    searches: Tensor | None  # [B, S, d] the queries after self-attention, for the user's regression
    search_mask: Tensor  # [B, S]


class Pairs(NamedTuple):
    """The inputs of the last layers for each (row, candidate) pair, and the error of the user's regression, if any."""

    targets: Tensor  # [B, C, d]
    interests: Tensor  # [B, C, d]
    error: Tensor | None  # [B, C]


class IV4REC(SearchRecommender):
    """IV4REC over DIN (``variant: projection``) and IV4REC+ over DIN (``regression_item``, ``regression_user_item``).

    The equations are numbered here.  Z are the vectors of the queries that lead to item i, z is their mean, e the
    item's vector, and sg stops the gradient.  The projection, for candidates and every item of the history:

    (1) T = phi(e), two layers of tanh with dropout after each
    (2) T_hat = Z Z^+ T, the part of T that the queries explain
    (3) a_k = sigmoid(MLP_k([T, z])), k = 1, 2, with tanh after every layer, the last one too: from 0.27 to 0.73
    (4) t = a_1 (T - T_hat) + a_2 T_hat
    (5) y = MLP([t, u]), u = DIN's sum of the history's t_j, weighted by its activation unit

    The regression on items replaces (1) to (4), again for candidates and history:

    (6) T_hat = MLP(z), with loss L_i = mean of (T_hat - sg(e))^2
    (7) t = g T_hat + (1 - g) e, g = sigmoid(MLP([T_hat, e]))

    The regression on users and items does (6) and (7) for candidates only, and for the user:

    (8) s = sum_k w_k q_k, w = softmax(v' tanh(W_1 sg(e) + W_2 q_k)), q_k the queries searched after self-attention
    (9) u = g T_hat + (1 - g) r, r = DIN's sum of the history's e_j, T_hat = MLP(s), g = sigmoid(MLP([T_hat, r])),
        with loss L_u = mean of (T_hat - sg(r))^2
    (10) L = L_rec + lambda_u L_u + lambda_i L_i

    Where the published code differs from the paper and this does not:

    - (4): the code weighs T and T_hat; the paper splits T into the part the queries explain and the rest.

    Adapted to this package:

    - Queries are trained (id and mean of words, projected) where the published ones are frozen text vectors.  So (2)
      is solved in every step, once per distinct item of the batch, with dropout drawn once per item, too.
    - Z: the queries under which the item was clicked most often in the training period, at most
      ``queries_per_item``.
    - DIN as in this package, with Dice after every hidden layer (published: not after the last one of the activation
      unit); layers are as wide as the items here, where published ones are 768 (IV4REC+: 64).
    - ``weight_decay`` of all parameters stands for the L2 terms on single networks; one positive beside several
      negatives.

    Decided here, because the public description does not say:

    - (2): Z's columns have unit length, and a relative ridge of 1e-5 applies between them: exact for one query.
    - (3), (6): several queries enter a network as their mean.
    - (6), (9): the regressions have one hidden layer with tanh and dropout, the gates tanh inside and one number each.
    - What has no queries (an item never searched for, a user without searches) has T_hat = 0 and no loss; L_u also
      needs a history.  L_i and L_u are means over the batch's valid items and pairs, negatives among them.

    Confidence: high for the projection's equations, medium for IV4REC+ and for which queries Z are where an item has
    more than ``queries_per_item``.
    """

    item_queries: Tensor  # [items, N], 0 behind an item's last query

    catalogue_block = PER_EVENT

    class Settings(SearchRecommender.Settings, ItemWidths, QueryWidths, MLPSizes):
        variant: Literal["projection", "regression_item", "regression_user_item"] = setting(
            "IV4REC, or IV4REC+ with a regression of items, or of users and items"
        )
        queries_per_item: Annotated[int, Field(ge=1, le=1_000)] = setting("the most frequent ones that led to an item")
        gate_hidden_size: Widths = setting("widths of the hidden layers of the gates")
        dropout_prob: Probability = setting("probability of dropout in phi and in the regressions")
        attention_hidden_size: Widths = setting("widths of the hidden layers of DIN's activation unit")
        n_heads: Layers = setting(
            "heads of the self-attention over a user's queries (IV4REC+); they divide hidden_size"
        )
        lambda_i: Weight = setting("weight of the regression of items (IV4REC+)")
        lambda_u: Weight = setting("weight of the regression of users (IV4REC+)")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, dropout, gates = settings.hidden_size, settings.dropout_prob, settings.gate_hidden_size
        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        self.register_buffer("item_queries", queries_of_items(dataset, settings.queries_per_item), persistent=False)
        self._batch: tuple[Tensor, Tensor] | None = None  # the items decomposed for a training step, their places

        variant = settings.variant
        self.projection = Projection(width, gates, dropout) if variant == "projection" else None
        self.item_regression = Regression(width, gates, dropout) if variant != "projection" else None
        self.user_regression = Regression(width, gates, dropout) if variant == "regression_user_item" else None
        self.searches = SearchAttention(width, settings.n_heads) if variant == "regression_user_item" else None
        self.lambda_i, self.lambda_u = settings.lambda_i, settings.lambda_u
        self.unit = ActivationUnit(width, settings.attention_hidden_size)
        self.mlp = PairMLP(0, 2 * width, settings.mlp_hidden_size, dropout=0.0, dice=True)
        self.apply(initialise)

    # --- items --------------------------------------------------------------------------------------------------------

    def decompose(self, ids: Tensor) -> Decomposed:
        """Reconstruct the items ``ids [U]`` by (1) to (4), or by (6) and (7)."""
        numbers = self.item_queries[ids]  # [U, N]
        mask = numbers != 0
        queries = self.queries(numbers) * mask.unsqueeze(2)  # Z [U, N, d]
        items = self.items(ids)  # e [U, d]
        if self.projection is not None:
            return Decomposed(self.projection(items, queries, mask), None)
        assert self.item_regression is not None
        return self.item_regression(items, masked_mean(queries, mask), mask.any(dim=1))

    def reconstructed(self, ids: Tensor) -> Tensor:
        """Vectors t ``[..., d]`` of items ``[...]``; each is made once per training step or evaluation pass."""
        if self._batch is not None:
            vectors, places = self._batch
            return lookup(vectors, places[ids])
        if self.training or torch.is_grad_enabled():
            values, places = distinct(ids.reshape(-1), self.items.count)
            return lookup(self.decompose(values).vectors, places[ids])
        return lookup(self.cached("items", self._table), ids)

    def _table(self) -> Tensor:
        everything = torch.arange(self.items.count, device=self.item_queries.device)
        return torch.cat([self.decompose(ids).vectors for ids in everything.split(ITEMS_AT_ONCE)])

    def decomposed_items(self, interaction: Any) -> Tensor:
        """The ids of all items that a training step decomposes; they may repeat and include padding."""
        targets = self.training_items(interaction).flatten()  # [B (1 + N)]
        return targets if self.searches is not None else torch.cat([targets, interaction[self.ITEM_SEQ].flatten()])

    def _others(self, like: Tensor) -> list[Tensor]:
        """The items beside those of the batch that a training step scores: all, for the softmax over all items."""
        return [self.possible_targets(like)] if self.loss_type == "CE" else []

    @contextmanager
    def _decomposed(self, batch: tuple[Tensor, Tensor] | None) -> Iterator[None]:
        before, self._batch = self._batch, batch
        try:
            yield
        finally:
            self._batch = before

    def contexts_of_step(self) -> list[Callable[[], AbstractContextManager[None]]]:
        batch = self._batch
        return [*super().contexts_of_step(), lambda: self._decomposed(batch)]

    def mentions(self, interaction: Any) -> Mentions:
        mentioned = self.decomposed_items(interaction)
        decomposed = torch.cat([mentioned, *self._others(mentioned)])
        queries = [self.item_queries[decomposed.unique()].flatten()]
        if self.searches is not None:
            queries.append(interaction["search_query_list"].flatten())
        items = torch.cat([self.training_items(interaction).flatten(), interaction[self.ITEM_SEQ].flatten()])
        return Mentions(items, torch.cat(queries))

    # --- users and pairs ----------------------------------------------------------------------------------------------

    def encode(self, interaction: Any) -> UserState:
        items, queries = interaction[self.ITEM_SEQ], interaction["search_query_list"]
        mask, search_mask = items != 0, queries != 0
        if self.searches is None:
            return UserState(self.reconstructed(items), mask, None, search_mask)
        searches = self.searches.attention(self.queries(queries), search_mask)  # q_k [B, S, d]
        return UserState(self.items(items), mask, searches, search_mask)

    def pairs(self, state: UserState, items: Tensor) -> Pairs:
        """The candidates ``items [B, C]`` and what the user's history says about each."""
        targets = self.reconstructed(items)  # (4) or (7): [B, C, d]
        if state.searches is None:
            return Pairs(targets, self.unit(state.states, state.mask, targets), None)  # (5)
        assert self.searches is not None and self.user_regression is not None
        plain = self.items(items)  # e [B, C, d]
        interests = self.unit(state.states, state.mask, plain)  # r [B, C, d]
        instruments = self.searches(state.searches, state.search_mask, plain.detach())  # (8): [B, C, d]
        has_searches = state.search_mask.any(dim=1, keepdim=True).expand_as(items)  # [B, C]
        return Pairs(targets, *self.user_regression(interests, instruments, has_searches))  # (9)

    def logits(self, pairs: Pairs) -> Tensor:
        pair = torch.cat([pairs.targets, pairs.interests], dim=2)  # [B, C, 2d]
        return self.mlp(pair.new_empty(len(pair), 0), pair)  # (5): [B, C]

    def score(self, state: UserState, items: Tensor) -> Tensor:
        return self.logits(self.pairs(state, items))

    # --- losses -------------------------------------------------------------------------------------------------------

    def rec_losses(self, interaction: Any) -> dict[str, Tensor]:
        """The terms of (10), not yet weighted; every distinct item is decomposed once."""
        mentioned = self.decomposed_items(interaction)
        values, places = distinct(torch.cat([mentioned, *self._others(mentioned)]), self.items.count)
        vectors, item_error = self.decompose(values)  # [U, d], [U]
        with self._decomposed((vectors, places)):
            state = self.encode(interaction)
            pairs = self.pairs(state, self.training_items(interaction))
            if self.loss_type == "CE":
                losses = {"rec": self.main_loss(interaction, state)}
            else:
                losses = {"rec": sampled_loss(self.loss_type, self.logits(pairs))}
        if item_error is not None:
            valid = (self.item_queries[values] != 0).any(dim=1)  # [U]; false of padding
            counts = torch.bincount(places[mentioned], minlength=len(values)) * valid  # [U]
            losses["item_regression"] = _weighted_mean(item_error, counts)
        if pairs.error is not None:
            valid = state.mask.any(dim=1) & state.search_mask.any(dim=1)  # [B]
            losses["user_regression"] = _weighted_mean(pairs.error.mean(dim=1), valid)
        return losses

    def loss_weights(self) -> dict[str, float]:
        weights = {} if self.item_regression is None else {"item_regression": self.lambda_i}
        return weights if self.user_regression is None else {**weights, "user_regression": self.lambda_u}


class Projection(nn.Module):
    """The decomposition by projection, (1) to (4)."""

    def __init__(self, width: int, gate_sizes: list[int], dropout: float) -> None:
        super().__init__()
        self.treatment = perceptron([width, width, width], nn.Tanh, dropout, last=True)
        self.gates = nn.ModuleList(perceptron([2 * width, *gate_sizes, 1], nn.Tanh, 0.0, last=True) for _ in range(2))

    def forward(self, items: Tensor, queries: Tensor, mask: Tensor) -> Tensor:
        """``[U, d]`` from ``items [U, d]`` and their ``queries [U, N, d]``, zero where ``mask [U, N]`` is false."""
        treatment = self.treatment(items)  # (1): [U, d]
        fitted = projected(treatment, queries)  # (2): [U, d]
        gate_input = torch.cat([treatment, masked_mean(queries, mask)], dim=1)  # [U, 2d]
        residual_weight, fitted_weight = (torch.sigmoid(gate(gate_input)) for gate in self.gates)  # (3): each [U, 1]
        return residual_weight * (treatment - fitted) + fitted_weight * fitted  # (4)


class Regression(nn.Module):
    """The decomposition by regression, (6) and (7), and likewise in (9).

    A treatment is regressed on an instrument, and the result is mixed with the treatment itself.
    """

    def __init__(self, width: int, gate_sizes: list[int], dropout: float) -> None:
        super().__init__()
        self.regression = perceptron([width, width, width], nn.Tanh, dropout)
        self.gate = perceptron([2 * width, *gate_sizes, 1], nn.Tanh, 0.0)

    def forward(self, treatments: Tensor, instruments: Tensor, exists: Tensor) -> Decomposed:
        """From ``treatments`` and ``instruments``, ``[..., d]`` both, and whether an instrument ``exists [...]``."""
        fitted = self.regression(instruments) * exists.unsqueeze(-1)  # [..., d]
        error = (fitted - treatments.detach()).square().mean(dim=-1)  # [...]
        gate = torch.sigmoid(self.gate(torch.cat([fitted, treatments], dim=-1)))  # [..., 1]
        return Decomposed(gate * fitted + (1 - gate) * treatments, error)


class SearchAttention(nn.Module):
    """The attention of (8): queries attend to each other, then candidates attend to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.of_target = nn.Linear(width, width, bias=False)  # W_1
        self.of_search = nn.Linear(width, width)  # W_2
        self.vote = nn.Linear(width, 1, bias=False)  # v

    def forward(self, searches: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        """``[B, C, d]`` from ``searches [B, S, d]``, valid where ``mask [B, S]``, and ``targets [B, C, d]``."""
        both = self.of_target(targets).unsqueeze(2) + self.of_search(searches).unsqueeze(1)  # [B, C, S, d]
        weights = masked_softmax(self.vote(torch.tanh(both)).squeeze(3), mask.unsqueeze(1))  # [B, C, S]
        return weights @ searches


def projected(vectors: Tensor, spanning: Tensor) -> Tensor:
    """``[U, d]``: the part of each of ``vectors [U, d]`` that lies in the span of its ``spanning [U, N, d]``.

    Some or all of the spanning vectors may be zero, and they may be linearly dependent.  They are scaled to length 1,
    and the normal equations are solved with their Gram matrix, whose off-diagonal entries the ridge makes a little
    smaller so that it stays regular.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        dtype = torch.promote_types(vectors.dtype, torch.float32)
        vectors, spanning = vectors.to(dtype), spanning.to(dtype)
        directions = spanning * (spanning.square().sum(dim=2, keepdim=True) + TINY).rsqrt()  # [U, N, d]
        gram = (1 - RIDGE) * directions @ directions.transpose(1, 2)  # [U, N, N]
        diagonal = torch.eye(gram.shape[1], dtype=torch.bool, device=gram.device)
        gram = gram.masked_fill(diagonal, 1.0)  # also for zero vectors, which makes their coefficients 0
        coefficients = torch.linalg.solve(gram, directions @ vectors.unsqueeze(2))  # [U, N, 1]
        return (directions.transpose(1, 2) @ coefficients).squeeze(2)


def queries_of_items(dataset: Any, width: int) -> Tensor:
    """``[items, N]`` with N <= ``width``: the queries that led to each item most often in training, then zeros."""
    clicks = dataset.training_clicks
    table = Relation(clicks.items, clicks.queries, dataset.item_num).most_frequent(width)
    return table[:, : max(1, int((table != 0).sum(dim=1).max()))]


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of ``values``; 0 if all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
