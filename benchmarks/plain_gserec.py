"""GSERec that propagates over the whole graph for every batch: the yardstick of ``gserec.py``.

Parameters and everything but the propagation are those of ``recbole_ser.model.search_aware.gserec``.  The propagation
is the published recipe: one sparse matrix over users and codes, a product per layer, in training and in evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_ser.model.embeddings import lookup
from recbole_ser.model.propagation import edge_weights
from recbole_ser.model.search_aware.gserec import GSERec


class Nodes(NamedTuple):
    """Eq. 8 for all nodes of one side."""

    users: Tensor  # [U, d]
    codes: Tensor  # [C, d]


class FullGraph(nn.Module):
    """Stands in for ``UserCodeGraph``."""

    user_codes: Tensor  # [U, L]
    adjacency: Tensor  # sparse [U + C, U + C]

    def __init__(self, codes: Tensor, count: int, width: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.table = nn.Embedding(count, width, padding_idx=0)
        self.register_buffer("user_codes", codes, persistent=False)
        self.register_buffer("adjacency", full_adjacency(codes, count), persistent=False)

    def forward(self, users: Tensor) -> Nodes:
        vectors = [torch.cat([users, self.table.weight])]  # [U + C, d]
        for _ in range(self.layers):
            vectors.append(torch.sparse.mm(self.adjacency, vectors[-1]))
        return Nodes(*torch.stack(vectors).mean(dim=0).split([len(users), len(self.table.weight)]))

    def users(self, ids: Tensor, own: Tensor, nodes: Nodes) -> Tensor:
        return lookup(nodes.users, ids)

    def codes(self, ids: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor]:
        codes = self.user_codes[ids]
        return lookup(nodes.codes, codes), codes != 0


def full_adjacency(codes: Tensor, count: int) -> Tensor:
    """The symmetric matrix of Eq. 7 over users and, behind them, codes."""
    exists = codes != 0
    users = torch.arange(len(codes)).unsqueeze(1).expand_as(codes)[exists]
    of_users = torch.stack([users, codes[exists] + len(codes)])  # [2, E]
    values = edge_weights(codes, count)[exists]
    size = len(codes) + count
    both = torch.cat([of_users, of_users.flip(0)], dim=1)
    return torch.sparse_coo_tensor(both, values.repeat(2), (size, size)).coalesce()


class PlainGSERec(GSERec):
    """GSERec with full graphs, which it keeps for no evaluation pass."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        codes, width, layers = dataset.user_codes, config["hidden_size"], config["graph_layers"]
        for name in ("search", "rec"):
            graph = FullGraph(getattr(codes, name), getattr(codes, f"{name}_num"), width, layers)
            graph.table = getattr(self, f"{name}_graph").table
            setattr(self, f"{name}_graph", graph)

    def cached(self, name: str, compute: Callable[[], Any]) -> Any:
        return compute()
