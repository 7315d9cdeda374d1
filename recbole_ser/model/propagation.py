"""LightGCN over the user-code graphs, in an exact form that costs little more than the batch (GSERec, Eq. 7-8).

Shapes: U users, C code ids of one side, L codes of a user, B rows, d width of a vector, K layers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.embeddings import lookup


class Propagated(NamedTuple):
    """One side after propagation: all that is needed to compute the vectors of a batch's users and their codes."""

    below: Tensor  # [C, d]: the sum of c(0) to c(K - 1), from which the users' layers 1 to K are computed
    codes: Tensor  # [C, d]: e_s of Eq. 8, the mean of c(0) to c(K)


class UserCodeGraph(nn.Module):
    """The bipartite graph of users and their codes on one side.

    Let R [U, C] be the user-code adjacency, each entry divided by the square roots of both degrees, R' its transpose,
    and u(k), c(k) the users' and the codes' vectors of layer k.  Eq. 7 is

        u(k) = R c(k - 1),    c(k) = R' u(k - 1).

    Hence c(1) = R' u(0), and c(k) = R'R c(k - 2) with R'R [C, C] constant: only c(1) takes a product over all users,
    one with a sparse matrix; the other layers of the codes take small ones.  And as u(k) = R c(k - 1) can be computed
    row by row, the users' layers are needed for the users of the batch only.

    Args:
        codes: int64 ``[U, L]``, each user's codes, numbered from 1 over all levels; 0: no code.  A user's codes differ
            from each other.
        count: C, number of code ids, the padding id 0 included.
        width: d, width of a vector.
        layers: K, number of layers; 0: no propagation.
    """

    user_codes: Tensor  # [U, L]
    weights: Tensor  # [U, L]: the entries of R, 0 where there is no code
    gram: Tensor  # [C, C]: R'R
    # The E edges once more, ordered by code: where those of each code start, the user and the weight of each.
    code_starts: Tensor  # [C]
    code_users: Tensor  # [E]
    code_weights: Tensor  # [E]

    def __init__(self, codes: Tensor, count: int, width: int, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.table = nn.Embedding(count, width, padding_idx=0)  # c(0)
        weights = edge_weights(codes, count)
        order, starts = _by_code(codes, count)
        users = torch.arange(len(codes), dtype=torch.int32).unsqueeze(1).expand_as(codes)
        constants = {
            "user_codes": codes,
            "weights": weights,
            "gram": _gram(codes, weights, count),
            "code_starts": starts,
            "code_users": users.flatten()[order],
            "code_weights": weights.flatten()[order],
        }
        for name, values in constants.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, users: Tensor) -> Propagated:
        """Propagate from ``users [U, d]``, the table of all users, which is u(0)."""
        layers = [self.table.weight]  # c(0)
        if self.layers:
            layers.append(_ToCodes.apply(users, self))  # c(1)
        while len(layers) <= self.layers:
            layers.append(self.gram @ layers[-2])
        below = torch.stack(layers[: self.layers]).sum(dim=0) if self.layers else torch.zeros_like(layers[0])
        return Propagated(below, torch.stack(layers).mean(dim=0))

    def users(self, ids: Tensor, own: Tensor, propagated: Propagated) -> Tensor:
        """Eq. 8: e_u ``[B, d]`` of the users ``ids [B]``, whose rows of the table, u(0), are ``own [B, d]``."""
        neighbours = lookup(propagated.below, self.user_codes[ids])  # [B, L, d]
        return (own + (self.weights[ids].unsqueeze(1) @ neighbours).squeeze(1)) / (self.layers + 1)

    def codes(self, ids: Tensor, propagated: Propagated) -> tuple[Tensor, Tensor]:
        """Eq. 10: the users' code sequences ``[B, L, d]``, and a mask ``[B, L]`` of the codes that exist."""
        codes = self.user_codes[ids]  # [B, L]
        return lookup(propagated.codes, codes), codes != 0


class _ToCodes(torch.autograd.Function):
    """R' u ``[C, d]`` of all users ``[U, d]``; the gradient is R times the incoming one.

    Both are weighted sums of a table's rows, for which PyTorch has a kernel that is several times faster than its
    sparse products.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, graph: UserCodeGraph) -> Tensor:
        ctx.graph = graph
        weights = graph.code_weights.to(users.dtype)
        return F.embedding_bag(graph.code_users, users, graph.code_starts, mode="sum", per_sample_weights=weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weights = ctx.graph.weights.to(gradient.dtype)
        return F.embedding_bag(ctx.graph.user_codes, gradient, mode="sum", per_sample_weights=weights), None


def _by_code(codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places ``[E]`` of all edges in the flattened ``codes [U, L]``, ordered by code, and each code's start ``[C]``."""
    order = torch.argsort(codes.flatten(), stable=True)
    degrees = torch.bincount(codes.flatten(), minlength=count)
    edges = order[degrees[0] :]  # padding comes first
    degrees[0] = 0
    return edges, (degrees.cumsum(0) - degrees).int()


def edge_weights(codes: Tensor, count: int) -> Tensor:
    """``[U, L]``: 1 / sqrt(|N_u| |N_s|) of each edge (Eq. 7), 0 where ``codes [U, L]`` is 0."""
    exists = codes != 0
    of_users = exists.sum(dim=1, keepdim=True)  # [U, 1]
    of_codes = torch.bincount(codes.flatten(), minlength=count)[codes]  # [U, L]
    return exists * (of_users * of_codes).clamp(min=1).float().rsqrt()


def _gram(codes: Tensor, weights: Tensor, count: int) -> Tensor:
    """R'R ``[C, C]``, summed over all pairs of levels; the row and the column of padding are zero."""
    gram = torch.zeros(count * count, dtype=torch.float64)
    for first in range(codes.shape[1]):
        for second in range(codes.shape[1]):
            pairs = codes[:, first] * count + codes[:, second]
            gram += torch.bincount(pairs, (weights[:, first] * weights[:, second]).double(), minlength=count * count)
    return gram.view(count, count).float()
