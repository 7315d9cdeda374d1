"""LightGCN's propagation over the graph of users and items, and the base class of the models that rest on it.

Shapes: U users and I items (both with the padding id 0), E edges, d width of a vector, K layers, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.base import DotProductRecommender
from recbole_ser.model.embeddings import Mentions, lookup
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.types import Layers, Weight, Width
from recbole_ser.workers.rows import gather_rows


class Nodes(NamedTuple):
    """Vectors of users and of items, all of them or some."""

    users: Tensor  # [U, d]
    items: Tensor  # [I, d]

    def of(self, users: Tensor, items: Tensor) -> Nodes:
        """The vectors of the ids ``users [u]`` and ``items [i]``."""
        return Nodes(lookup(self.users, users), lookup(self.items, items))


class InteractionGraph(nn.Module):
    """The bipartite graph in which every user is joined to the items of his or her interactions.

    Let R [U, I] be its adjacency, each entry divided by the square roots of both degrees.  One layer of propagation is

        u(k) = R i(k - 1),    i(k) = R' u(k - 1),

    so that a node without edges has the vector zero from layer 1 on.

    Args:
        users, items: int32 ``[E]``, the ends of each edge; no edge occurs twice.
        user_num, item_num: U and I.
    """

    users: Tensor  # [E]
    items: Tensor  # [E]

    def __init__(self, users: Tensor, items: Tensor, user_num: int, item_num: int) -> None:
        super().__init__()
        degrees = torch.bincount(users, minlength=user_num)[users] * torch.bincount(items, minlength=item_num)[items]
        weights = degrees.to(torch.get_default_dtype()).rsqrt()  # [E]
        self.to_users = NeighbourSum(users, items, weights, user_num)
        self.to_items = NeighbourSum(items, users, weights, item_num)
        self.register_buffer("users", users, persistent=False)
        self.register_buffer("items", items, persistent=False)
        self.sizes = user_num, item_num

    @classmethod
    def of_training(cls, dataset: Any) -> InteractionGraph:
        """The graph of the interactions of the training period of ``dataset``, each pair once."""
        positions = dataset.split.training_interactions
        pairs = torch.unique(dataset.log.users[positions].long() * dataset.item_num + dataset.log.items[positions])
        users, items = (pairs // dataset.item_num).int(), (pairs % dataset.item_num).int()
        return cls(users, items, dataset.user_num, dataset.item_num)

    def without_some_edges(self, probability: float) -> InteractionGraph:
        """The graph without the edges that are left out with ``probability`` each, normalised by what is left."""
        kept = torch.rand(len(self.users), device=self.users.device) >= probability
        return InteractionGraph(self.users[kept], self.items[kept], *self.sizes)

    def forward(self, nodes: Nodes, layers: int, first: int = 0) -> Nodes:
        """The mean of the layers ``first`` to ``layers`` from ``nodes``, which are layer 0."""
        return Nodes(*_SelfAdjoint.apply(*nodes, lambda nodes: self.mean(nodes, layers, first)))

    def mean(self, nodes: Nodes, layers: int, first: int, change: Callable[[Tensor], Tensor] = lambda x: x) -> Nodes:
        """As ``forward`` without a gradient; ``change`` is applied to each side of a layer before the next one."""
        all_layers = [nodes]
        for _ in range(layers):
            nodes = Nodes(change(self.to_users(nodes.items)), change(self.to_items(nodes.users)))
            all_layers.append(nodes)
        return Nodes(*(reduce(torch.add, side) / len(side) for side in zip(*all_layers[first:])))


class NeighbourSum(nn.Module):
    """The weighted sum of each node's neighbours, which are on the other side of the graph.

    It is a sparse matrix times a table, for which ``embedding_bag`` is several times as fast on the CPU as PyTorch's
    sparse products.  It has no gradient of its own: ``_SelfAdjoint`` gives that of the whole propagation.

    Args:
        nodes, neighbours: int32 ``[E]``, the ends of each edge.
        weights: ``[E]``.
        count: n, number of nodes.
    """

    starts: Tensor  # [n]: where the edges of each node start
    neighbours: Tensor  # [E], ordered by node
    weights: Tensor  # [E], likewise

    def __init__(self, nodes: Tensor, neighbours: Tensor, weights: Tensor, count: int) -> None:
        super().__init__()
        order = torch.argsort(nodes, stable=True)
        degrees = torch.bincount(nodes, minlength=count)
        self.register_buffer("starts", (degrees.cumsum(0) - degrees).int(), persistent=False)
        self.register_buffer("neighbours", neighbours[order], persistent=False)
        self.register_buffer("weights", weights[order], persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        """``[n, d]`` from the ``table [m, d]`` of the other side."""
        return F.embedding_bag(self.neighbours, table, self.starts, mode="sum", per_sample_weights=self.weights)


class _SelfAdjoint(torch.autograd.Function):
    """A linear map of both sides whose matrix is symmetric, so that the gradient is the map of the incoming one."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, linear: Callable[[Nodes], Nodes]) -> tuple[Tensor, Tensor]:
        ctx.linear = linear
        found = linear(Nodes(users, items))
        return found.users, found.items

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor, None]:
        return *ctx.linear(Nodes(users, items)), None


class GraphRecommender(DotProductRecommender):
    """A model of users and items by their ids alone, whose vectors are spread over the graph of their interactions.

    It trains on all interactions of the training period.  The state is the user's vector after propagation.  All
    vectors are propagated once per training step, and once per evaluation pass.

    A model may have other layers in its mean (``first_layer``), and other losses beside those here: the regularisation
    is ``reg_weight`` / 2 times the squared lengths of the vectors of layer 0 that a row needs, averaged over the rows.
    These are the user, the positive and its negatives; under CE, which needs all items, the user and the positive.

    Id 0, a user or item that the data do not know, is the vector zero.
    """

    class Settings(DotProductRecommender.Settings):
        embedding_size: Width = setting("d, the width of users and items")
        n_layers: Layers = setting("K, the number of layers of propagation")
        reg_weight: Weight = setting("weight of the squared lengths of the vectors of layer 0")

    trains_on = "interactions"
    first_layer = 0  # of the layers whose mean is taken

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.layers, self.reg_weight = settings.n_layers, settings.reg_weight
        self.user_embedding = _xavier(dataset.user_num, settings.embedding_size)
        self.item_embedding = _xavier(dataset.item_num, settings.embedding_size)
        self.graph = InteractionGraph.of_training(dataset)
        self._of_step: Nodes | None = None

    @property
    def layer_0(self) -> Nodes:
        return Nodes(self.user_embedding.weight, self.item_embedding.weight)

    def propagated(self) -> Nodes:
        """The vectors of all users and items, from which the scores are computed."""
        if self._of_step is not None:
            return self._of_step
        return self.cached("nodes", lambda: self.graph(self.layer_0, self.layers, self.first_layer))

    @contextmanager
    def embedded_once(self, *mentioned: Mentions) -> Iterator[None]:
        """Inside this block, a training step, ``propagated`` gives what was computed at its start."""
        self._of_step = self.propagated()
        try:
            yield
        finally:
            self._of_step = None

    def encode(self, interaction: Any) -> Tensor:
        return lookup(self.propagated().users, interaction[self.USER_ID])  # [B, d]

    def item_vectors(self, items: Tensor) -> Tensor:
        return lookup(self.propagated().items, items)

    def auxiliary_losses(self, interaction: Any, state: Tensor) -> dict[str, Tensor]:
        users, positives = interaction[self.USER_ID], interaction[self.POS_ITEM_ID]
        items = positives if self.loss_type == "CE" else self.training_items(interaction).flatten()
        start = self.layer_0.of(users, items)
        squares = start.users.square().sum() + start.items.square().sum()
        return {"regularisation": squares / 2 / len(users)}

    def loss_weights(self) -> dict[str, float]:
        return {"regularisation": self.reg_weight}

    def in_batch(self, interaction: Any) -> tuple[Tensor, Tensor]:
        """The distinct users ``[u]`` and positive items ``[i]`` of a batch."""
        return gather_rows(interaction[self.USER_ID]).unique(), gather_rows(interaction[self.POS_ITEM_ID]).unique()


def contrast_of_views(left: Nodes, right: Nodes, temperature: float) -> Tensor:
    """InfoNCE between two views of some users, plus that between two views of some items.

    The similarity is the cosine over the temperature.  The positive of a left vector is the right one of the same node,
    its negatives are the right ones of the other nodes, and the loss is averaged over the nodes of a side.
    """
    return _contrast(left.users, right.users, temperature) + _contrast(left.items, right.items, temperature)


def _contrast(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    logits = F.normalize(left, dim=1) @ F.normalize(right, dim=1).t() / temperature  # [n, n]
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def _xavier(count: int, width: int) -> nn.Embedding:
    """A table of ``count`` ids with Xavier-uniform initial weights and zeros for id 0."""
    embedding = nn.Embedding(count, width, padding_idx=0)
    nn.init.xavier_uniform_(embedding.weight)
    with torch.no_grad():
        embedding.weight[0] = 0
    return embedding
