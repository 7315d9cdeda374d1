"""SRJGraph, which has one graph of users and items for search and recommendation, with queries on its edges.

Zhao et al., "Joint Learning of E-commerce Search and Recommendation with a Unified Graph Neural Network", WSDM 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_ser.data.relations import Relation
from recbole_ser.model.base import JointRecommender
from recbole_ser.model.embeddings import (
    FeatureEmbedding,
    Mentions,
    attributes_of,
    distinct,
    item_embedding,
    lookup,
    query_embedding,
)
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import masked_softmax
from recbole_ser.model.scoring import PairMLP
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, MLPSizes, QueryWidths, UserWidths
from recbole_ser.settings.types import Probability

USER, ITEM = 0, 1  # the two kinds of nodes; a neighbour of one kind is of the other
ITEMS_AT_ONCE = 512  # number of items that are aggregated together for the table of an evaluation pass


class Walk(NamedTuple):
    """The neighbours drawn around n roots, hop by hop; K_h is the fan-out of hop h, and 0 stands for no neighbour."""

    nodes: list[Tensor]  # [n, 1] the roots, [n, K_1], [n, K_1 K_2]: neighbours of one node stand side by side
    queries: list[Tensor]  # [n, K_1], [n, K_1 K_2]: queries on the edges to them; 0 is the attribute of recommendation


class Walked(Interaction):
    """Training instances with the walks around their users and around their items, and those of the search task."""

    def __init__(self, interaction: Interaction, walks: tuple[Walk, Walk], search: Walked | None) -> None:
        super().__init__(interaction.interaction)
        self.walks, self.search = walks, search


class Near(NamedTuple):
    """Nodes and their neighbours before the last step of aggregation, the softmax over the neighbours."""

    own: Tensor  # S x [..., d]
    nodes: Tensor  # the neighbours [..., K]
    messages: Tensor  # (2) [..., K, d]
    votes: Tensor  # (3) [..., K]


class UserState(NamedTuple):
    users: Tensor  # [B]
    targets: Tensor  # [B]: in training the positive item, which is hidden from its user; otherwise 0
    near: Near
    item_walk: Walk | None  # around the items [B C] of a training batch, where it was drawn beforehand


class Aggregator(nn.Module):
    """The intention- and upstream-aware aggregator of one kind of nodes at one hop: (2) and (3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Linear(width, 2 * width)  # a neighbour's part of (2), with b, and of (3), with c
        self.edge = nn.Linear(width, 2 * width, bias=False)  # an edge's part of (2) and of (3)
        self.own = nn.Linear(width, 2 * width, bias=False)  # the node's own part of (4), S, and of (3)
        self.context = nn.Linear(2 * width, width, bias=False)  # the part of intention and upstream in (3)
        self.vote = nn.Linear(width, 1, bias=False)  # a

    def look(self, own: Tensor, context: Tensor, nodes: Tensor, near: Tensor) -> Near:
        """Messages and votes of the neighbours ``nodes [n, T, K]`` of nodes with the vectors ``own [n, T, d]``.

        ``context [n, 1, 2 d]`` is the intention and the upstream; ``near [n, T, K, 2 d]`` is the sum of ``self.near``
        of the neighbours and ``self.edge`` of the edges to them.
        """
        messages, seen = near.chunk(2, dim=3)  # (2): [n, T, K, d] each
        own, asking = self.own(own).chunk(2, dim=2)  # [n, T, d] each
        asking = (asking + self.context(context)).unsqueeze(2)  # [n, T, 1, d]
        votes = self.vote(F.leaky_relu(seen + asking)).squeeze(3)  # (3): [n, T, K]
        return Near(own, nodes, messages, votes)


class SRJGraph(JointRecommender):
    """A reading of SRJGraph, for comparison; not a reproduction.

    Confidence: low.  There is no public code, and what this was made from says little more than the paper's abstract.

    What is stated there and holds here: one graph of users and items from both services; queries are attributes of
    its edges, and edges of recommendation have one special attribute; an aggregator that is aware of the intention
    and of the upstream; click-through prediction for both services, trained together.

    The equations are numbered here.  x is a node's embedding, z_q a query's and z_0 a free vector; z, the intention, is
    z_0 in recommendation and z_q in search; node v, with neighbours w, is in a tree that was drawn from a root r:

    1. ``fan_outs[0]`` neighbours of the root are drawn, and ``fan_outs[1]`` of each of these.
    2. The message of w is W [h_w ; z_vw] + b, where z_vw belongs to the query of the edge, or is z_0.
    3. Its vote is a' LeakyReLU(V [x_v ; h_w ; z_vw ; z ; x_r] + c), where x_r is the upstream.
    4. h_v = LeakyReLU(S x_v + the messages weighted with the softmax of the votes); at the last hop h_v = x_v.
    5. The logit is MLP([z ; h_u ; h_i]).
    6. The loss is the binary cross entropy of both tasks, that of search times ``search_weight``.

    Decided here, where nothing is said:

    - (2) to (5) as they stand.  The upstream of a node is the one that asked for it, and a root's is the root itself.
      W, V, a and S belong to a hop and a kind of node.
    - One vector is the attribute of recommendation edges and the intention of recommendation.
    - Neighbours are drawn uniformly with replacement; in evaluation they are evenly spaced, always the same.  A walk
      does not turn back to the root.  A node without neighbours is LeakyReLU(S x_v).
    - Every interaction and every click of the training period is an edge, in both directions.  There is one graph, so
      a training target is surrounded by what its user did later in that period, too.

    Adapted: items, queries and users are embedded as in every model of this package.  Histories are not read.

    The edge that is to be predicted is itself in the graph in training, often twice (a click and an interaction).
    So a user and a candidate never see each other, in training and in evaluation: (4) leaves out the neighbours of
    the user that are the candidate, and those of the candidate that are the user.  This is exact, as (2) and (3) do
    not depend on it and no walk of two hops comes to that edge another way; hence at most two hops.  Votes and
    messages of a user are computed once for all candidates, those of an item, in evaluation, once for all users but
    the few that are among its neighbours.

    Hiding alone would tell positives from negatives, for only around positives is something missing.  So in training

    - the positive is hidden from the user for all candidates of the row: the user's side is the same for all of them;
    - each negative has a random neighbour hidden from it, as each positive has the user.

    What a trained model could still use: the users that are hidden from positives are those of targets, not of just
    any edge; a negative that the user has clicked in search is missing on the user's side too; and a user's embedding
    could remember all items around the user and so miss the hidden one, but it could as well remember that item.
    """

    relations: Any  # a Relation for each kind of nodes
    aggregators: Any  # an Aggregator for each hop and kind of nodes

    class Settings(JointRecommender.Settings, ItemWidths, QueryWidths, UserWidths, MLPSizes):
        loss_type: Literal["BCE", "BPR"] = setting(
            "how the next item is learnt, against the row's negatives; a softmax over all items would have to draw "
            "neighbours for every pair of a row and an item",
            default="BCE",
        )
        fan_outs: Annotated[list[Annotated[int, Field(ge=1, le=1_000)]], Field(min_length=1, max_length=2)] = setting(
            "neighbours drawn around a node, and around each of them; one number: one hop"
        )
        dropout_prob: Probability = setting("probability of dropout between the layers of the MLP")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.fan_outs = settings.fan_outs
        width = settings.hidden_size
        attributes = attributes_of(dataset, "user", settings.user_attribute_size)
        self.users = FeatureEmbedding(dataset.user_num, settings.user_embedding_size, attributes, width)
        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        self.no_query = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, width))[0])  # z_0

        log, clicks, interactions = dataset.log, dataset.training_clicks, dataset.split.training_interactions
        users = torch.cat([log.users[interactions].long(), clicks.users])  # [E]
        items = torch.cat([log.items[interactions].long(), clicks.items])  # [E]
        queries = torch.cat([torch.zeros_like(log.items[interactions]).long(), clicks.queries])  # [E]
        self.relations = nn.ModuleList(
            [Relation(users, items, dataset.user_num, queries), Relation(items, users, dataset.item_num, queries)]
        )
        self.aggregators = nn.ModuleList(nn.ModuleList(Aggregator(width) for _ in (USER, ITEM)) for _ in self.fan_outs)
        self.mlp = PairMLP(width, 2 * width, settings.mlp_hidden_size, settings.dropout_prob)
        self.apply(initialise)

    def undividable(self) -> str:
        return "the walks of a batch are drawn together"

    # --- the graph --------------------------------------------------------------------------------------------------

    def neighbours(self, kind: int, nodes: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """``size`` neighbours of each of ``nodes [...]``, all of one kind, and the queries on the edges to them."""
        values, queries, _ = self.relations[kind].sample(nodes, size, random=self.training)
        return values, queries

    def walk(self, kind: int, roots: Tensor) -> Walk:
        """Draw the neighbours of (1) around ``roots [n]`` of one kind."""
        walk = Walk([roots.unsqueeze(1)], [])
        for hop, size in enumerate(self.fan_outs):
            nodes, queries = self.neighbours((kind + hop) % 2, walk.nodes[-1], size)  # [n, T, K]
            walk.nodes.append(nodes.flatten(1))
            walk.queries.append(queries.flatten(1))
        return walk

    def look(self, kind: int, walk: Walk, intention: Tensor) -> Near:
        """The roots ``[n]`` of ``walk``, of one kind, and their neighbours under ``intention [n, d]``."""
        upstream = self.embedding(kind)(walk.nodes[0])  # [n, 1, d]: of the roots themselves and of hop one
        near = self._look(kind, walk, 0, torch.cat([intention.unsqueeze(1), upstream], dim=2))
        return Near(*(part.squeeze(1) for part in near))

    def _look(self, root_kind: int, walk: Walk, hop: int, context: Tensor) -> Near:
        """The nodes ``[n, T]`` of one hop and their neighbours; these are aggregated first if they have neighbours."""
        kind, other = (root_kind + hop) % 2, (root_kind + hop + 1) % 2
        aggregator, nodes = self.aggregators[hop][kind], walk.nodes[hop + 1]  # [n, T K]
        if hop + 1 < len(self.fan_outs):
            below = self._look(root_kind, walk, hop + 1, context)
            mask = (below.nodes != 0) & (below.nodes != walk.nodes[hop].unsqueeze(2))  # no walk turns back
            states = mix(below, mask.unsqueeze(2)).squeeze(2)  # [n, T K, d]
            near = aggregator.near(states)  # [n, T K, 2 d]
        else:
            embedding = self.embedding(other)
            near = once(nodes, embedding.count, lambda ids: aggregator.near(embedding(ids)))  # [n, T K, 2 d]
        near = near + once(walk.queries[hop], self.queries.count, lambda ids: aggregator.edge(self.edges(ids)))
        shape = (-1, self.fan_outs[hop])
        own = self.embedding(kind)(walk.nodes[hop])  # [n, T, d]
        return aggregator.look(own, context, nodes.unflatten(1, shape), near.unflatten(1, shape))

    def embedding(self, kind: int) -> FeatureEmbedding:
        return self.users if kind == USER else self.items

    def edges(self, queries: Tensor) -> Tensor:
        """The vectors z ``[..., d]`` of ``queries [...]``, where 0 stands for recommendation."""
        return torch.where((queries == 0).unsqueeze(-1), self.no_query, self.queries(queries))

    # --- both sides -------------------------------------------------------------------------------------------------

    def encode(self, interaction: Any) -> UserState:
        return self._encode(interaction, torch.zeros_like(interaction[self.USER_ID]))

    def encode_search(self, interaction: Any) -> UserState:
        return self._encode(interaction, interaction["query_id"])

    def _encode(self, interaction: Any, queries: Tensor) -> UserState:
        users = interaction[self.USER_ID]
        user_walk, item_walk = getattr(interaction, "walks", None) or (self.walk(USER, users), None)
        targets = interaction[self.POS_ITEM_ID] if self.training else torch.zeros_like(users)
        return UserState(users, targets, self.look(USER, user_walk, self.edges(queries)), item_walk)

    def score(self, state: UserState, items: Tensor) -> Tensor:
        intention = self.edges(torch.zeros_like(state.users))  # [B, d]
        if self.training or torch.is_grad_enabled():
            return self._logits(state, intention, items, self._items_of_rows(state, intention, items))
        vectors = lookup(self.cached("items", self._all_items), items)  # [B, C, d]
        users = state.users.unsqueeze(1).expand_as(items)  # [B, C]
        adjacent = (self.neighbours(ITEM, items, self.fan_outs[0])[0] == users.unsqueeze(2)).any(dim=2)  # [B, C]
        row, _ = adjacent.nonzero(as_tuple=True)  # [P]
        vectors[adjacent] = self._items_without(users[adjacent].unsqueeze(1), items[adjacent], intention[row])
        return self._logits(state, intention, items, vectors)

    def score_search(self, state: UserState, queries: Tensor, items: Tensor) -> Tensor:
        intention = self.edges(queries)  # [B, d]
        return self._logits(state, intention, items, self._items_of_rows(state, intention, items))

    def _logits(self, state: UserState, intention: Tensor, items: Tensor, item_vectors: Tensor) -> Tensor:
        """The logits of (5): ``[B, C]``."""
        nodes = state.near.nodes.unsqueeze(1)  # [B, 1, K]
        mask = (nodes != 0) & (nodes != items.unsqueeze(2)) & (nodes != state.targets[:, None, None])  # [B, C, K]
        user_vectors = mix(state.near, mask)  # [B, C, d]
        return self.mlp(intention, torch.cat([user_vectors, item_vectors], dim=2))

    def _items_of_rows(self, state: UserState, intention: Tensor, items: Tensor) -> Tensor:
        """The vectors h ``[B, C, d]`` of ``items [B, C]``, aggregated for each row separately."""
        count = items.shape[1]
        hidden = state.users.unsqueeze(1).expand_as(items).unsqueeze(2)  # [B, C, 1]
        if self.training:
            others, _ = self.neighbours(ITEM, items, 1)  # [B, C, 1]
            is_target = (items == state.targets.unsqueeze(1)).unsqueeze(2)  # [B, C, 1]
            hidden = torch.cat([hidden, torch.where(is_target, hidden, others)], dim=2)  # [B, C, 2]
        intentions = intention.repeat_interleave(count, dim=0)  # [B C, d]
        vectors = self._items_without(hidden.flatten(0, 1), items.flatten(), intentions, state.item_walk)
        return vectors.unflatten(0, items.shape)

    def _items_without(self, hidden: Tensor, items: Tensor, intention: Tensor, walk: Walk | None = None) -> Tensor:
        """The vectors h ``[n, d]`` of ``items [n]`` with the users ``hidden [n, any]`` hidden from them."""
        near = self.look(ITEM, walk or self.walk(ITEM, items), intention)
        mask = (near.nodes != 0) & (near.nodes.unsqueeze(2) != hidden.unsqueeze(1)).all(dim=2)  # [n, K]
        return mix(near, mask.unsqueeze(1)).squeeze(1)

    def _all_items(self) -> Tensor:
        """The vectors h ``[n_items, d]`` of all items, for users who are not among their neighbours."""
        items = torch.arange(self.n_items, device=self.no_query.device)
        parts = [
            self._items_without(torch.zeros_like(some).unsqueeze(1), some, self.no_query.expand(len(some), -1))
            for some in items.split(ITEMS_AT_ONCE)
        ]
        return torch.cat(parts)

    # --- training: neighbours are drawn first, so that everything is embedded once ----------------------------------

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        search = getattr(interaction, "search", None)
        batch = self._walked(interaction, None if search is None else self._walked(search))
        reached = [self._reached(part, USER) for part in (batch, batch.search) if part is not None]
        with self.users.shared(*reached):
            return super().losses(batch)

    def _walked(self, interaction: Any, search: Walked | None = None) -> Walked:
        items = self.training_items(interaction).flatten()  # [B C]
        return Walked(interaction, (self.walk(USER, interaction[self.USER_ID]), self.walk(ITEM, items)), search)

    @staticmethod
    def _reached(batch: Walked, kind: int) -> Tensor:
        """All nodes of one kind in the walks of a batch, the roots among them."""
        walks = enumerate(batch.walks)
        nodes = [(root + hop, nodes) for root, walk in walks for hop, nodes in enumerate(walk.nodes)]
        return torch.cat([some.flatten() for distance, some in nodes if distance % 2 == kind])

    def mentions(self, interaction: Walked) -> Mentions:
        queries = [queries.flatten() for walk in interaction.walks for queries in walk.queries]
        own = interaction["query_id"] if "query_id" in interaction else queries[0].new_zeros(1)
        return Mentions(self._reached(interaction, ITEM), torch.cat([own, *queries]))


def once(ids: Tensor, count: int, vectors: Callable[[Tensor], Tensor]) -> Tensor:
    """``vectors`` of ``ids [...]`` below ``count``, ``[..., w]``; the function ``[U] -> [U, w]`` gets each id once."""
    values, places = distinct(ids.flatten(), count)
    return lookup(vectors(values), places[ids])


def mix(near: Near, mask: Tensor) -> Tensor:
    """h of (4), ``[..., C, d]``, in C cases: ``mask [..., C, K]`` says which neighbours count in each of them."""
    weights = masked_softmax(near.votes.unsqueeze(-2), mask)  # [..., C, K]
    # Faster on the CPU than a product of many small matrices.
    mixed = (weights.unsqueeze(-1) * near.messages.unsqueeze(-3)).sum(dim=-2)  # [..., C, d]
    return F.leaky_relu(near.own.unsqueeze(-2) + mixed)
