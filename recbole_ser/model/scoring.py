"""Layers that score (row, candidate) pairs: attention of candidates to a history, and the networks behind it.

Shapes: B rows, T positions, d width, C candidates of a row, V views (subsets of the positions) of a history; n items
that are the same for every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.layers import Dropout, masked_softmax, mean_weights
from recbole_ser.workers import group
from recbole_ser.workers.rows import gather_rows


class Pooling(NamedTuple):
    """A history to be pooled for each of n items: the weights of the sums that ``TargetAttention`` makes.

    Views that share no position share their weights too, so there are G groups of views.
    """

    states: Tensor  # [B, T, d]
    weights: list[Tensor]  # of each group [B, T, n]
    shares: Tensor  # [B, G, T, V]: the views of a group that a position belongs to; adds up to 1 over them, or to 0

    def linear(self, weight: Tensor) -> Tensor:
        """``[B, G T, h]``: what the weights are multiplied by to give the linear map ``weight [h, V d]`` of V views."""
        maps = torch.cat(weight.split(self.states.shape[2], dim=1))  # [V h, d]
        mapped = F.linear(self.states, maps).unflatten(2, (-1, len(weight)))  # [B, T, V, h]
        return (self.shares.unsqueeze(3) @ mapped.unsqueeze(1)).squeeze(3).flatten(1, 2)


class TargetAttention(nn.Module):
    """Pools each view of a history for each candidate, by bilinear attention with the candidate as the query."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Xavier initialisation of a (1, d, d) tensor has another spread; it is what the published code draws.
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, width, width))[0])

    def forward(self, states: Tensor, views: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """One ``[B, C, d]`` per view, from ``states [B, T, d]``, ``views [B, V, T]`` and ``targets [B, C, d]``.

        ``views`` is true where a position belongs to the view.  An empty view gives zeros.
        """
        scores = targets @ (states @ self.weight).transpose(1, 2)  # [B, C, T]
        scores = scores.transpose(1, 2).unsqueeze(2)  # [B, T, 1, C]
        weights = masked_softmax(scores, views.transpose(1, 2).unsqueeze(3), dim=1)  # [B, T, V, C]
        pooled = weights.flatten(2).transpose(1, 2) @ states  # [B, V C, d]
        return pooled.unflatten(1, weights.shape[2:]).unbind(dim=1)

    def pooling(self, states: Tensor, views: Tensor, targets: Tensor) -> Pooling:
        """What pools each view for ``targets [n, d]``, the same ones for every row.

        The views after the first have no position in common, unless they are equal.
        """
        scores = (states @ self.weight).flatten(0, 1) @ targets.t()  # [B T, n]
        scores = scores.view(len(states), 1, -1, len(targets))  # [B, 1, T, n]
        weights = masked_softmax(scores, views.unsqueeze(3), dim=2)  # [B, V, T, n]
        groups = [(0, 1), (1, views.shape[1])] if views.shape[1] > 1 else [(0, 1)]
        shares = [
            F.pad(mean_weights(views[:, start:end].transpose(1, 2), states.dtype), (start, views.shape[1] - end))
            for start, end in groups
        ]
        summed = [weights[:, 0], *(weights[:, start:end].sum(dim=1) for start, end in groups[1:])]
        return Pooling(states, summed, torch.stack(shares, dim=1))


def pooled_linear(weight: Tensor, rows: Tensor, poolings: Sequence[Pooling], targets: Tensor) -> Tensor:
    """The linear map ``weight [h, p]`` of all pairs' features, plus ``rows [B, h]``, without making these features.

    The features are the views of the histories that are pooled, then ``targets [n, d]``.  A pooled view is a sum of
    states with weights that depend on the item; the map of this sum is the sum of the states' maps, which depend on the
    row alone.  So what is left to do for each pair are the sums.

    Returns:
        ``[B, n, h]``.
    """
    width = targets.shape[1]
    *of_views, of_targets = weight.split([*(pooling.shares.shape[3] * width for pooling in poolings), width], dim=1)
    mapped = [pooling.linear(of_view) for pooling, of_view in zip(poolings, of_views)]
    weights = [of_group for pooling in poolings for of_group in pooling.weights]
    ones = targets.new_ones(len(rows), 1, len(targets))
    right = torch.cat([*mapped, rows.unsqueeze(1)], dim=1)  # [B, K + 1, h]
    left = torch.cat([*weights, ones], dim=1)  # [B, K + 1, n]
    hidden = F.linear(targets, of_targets).expand(len(rows), -1, -1)
    return torch.baddbmm(hidden, left.transpose(1, 2), right)


class ActivationUnit(nn.Module):
    """DIN's local activation unit: the sum of a history's states, each weighted by its relevance to a candidate.

    The weight of state h under candidate t is MLP([t, h, t - h, t * h]) with Dice, not normalised over the history
    (Zhou et al., KDD 2018, Eq. 3).
    """

    def __init__(self, width: int, hidden: list[int]) -> None:
        super().__init__()
        self.first = nn.Linear(4 * width, hidden[0])
        self.others = nn.ModuleList(nn.Linear(a, b) for a, b in zip(hidden, [*hidden[1:], 1]))
        self.activations = nn.ModuleList(Dice(size) for size in hidden)

    def forward(self, states: Tensor, mask: Tensor, targets: Tensor) -> Tensor:
        """``[B, C, d]`` from ``states [B, T, d]``, valid where ``mask [B, T]``, and ``targets [B, C, d]``."""
        row, _ = mask.nonzero(as_tuple=True)  # [P]: the valid positions of all rows; padding costs nothing
        hidden = self._first_layer(states[mask], row, targets)  # [P, C, hidden]
        for layer, activation in zip(self.others, self.activations):
            hidden = layer(activation(hidden))
        weights = torch.zeros(*mask.shape, targets.shape[1], dtype=states.dtype, device=states.device)
        weights[mask] = hidden.squeeze(2).to(states.dtype)  # [B, T, C]
        return weights.transpose(1, 2) @ states

    def _first_layer(self, states: Tensor, row: Tensor, targets: Tensor) -> Tensor:
        """The first layer's output ``[P, C, hidden]``, without concatenating its four inputs."""
        target, state, difference, product = self.first.weight.chunk(4, dim=1)  # each [hidden, d]
        of_targets = F.linear(targets, target + difference, self.first.bias)  # [B, C, hidden]
        of_states = F.linear(states, state - difference)  # [P, hidden]
        hidden = F.linear(states.unsqueeze(1) * targets[row], product)  # [P, C, hidden]
        hidden += of_targets[row]
        hidden += of_states.unsqueeze(1)
        return hidden


class PairMLP(nn.Module):
    """Scores each (row, candidate) pair by linear layers with ReLU (or Dice) and dropout between them.

    The part of the first layer that multiplies features of the row is computed once per row.
    """

    def __init__(self, row_width: int, pair_width: int, hidden: list[int], dropout: float, dice: bool = False) -> None:
        super().__init__()
        self.row_width = row_width
        self.first = nn.Linear(row_width + pair_width, hidden[0])
        self.others = nn.ModuleList(nn.Linear(a, b) for a, b in zip(hidden, [*hidden[1:], 1]))
        self.activations = nn.ModuleList(Dice(size) if dice else nn.ReLU(inplace=True) for size in hidden)
        self.dropout = Dropout(dropout)

    def forward(self, row: Tensor, pair: Tensor) -> Tensor:
        """``[B, C]`` from ``row [B, r]`` and ``pair [B, C, p]``."""
        row_weight, pair_weight = self.first.weight.split([self.row_width, pair.shape[2]], dim=1)
        hidden = F.linear(pair, pair_weight)  # [B, C, h]
        hidden += F.linear(row, row_weight, self.first.bias).unsqueeze(1)
        return self._after_first(hidden)

    def over_catalogue(self, row: Tensor, poolings: Sequence[Pooling], targets: Tensor) -> Tensor:
        """``[B, n]``, where the pairs' features are those of ``pooled_linear``."""
        row_weight, pair_weight = self.first.weight.tensor_split([self.row_width], dim=1)
        return self._after_first(
            pooled_linear(pair_weight, F.linear(row, row_weight, self.first.bias), poolings, targets)
        )

    def _after_first(self, hidden: Tensor) -> Tensor:
        for layer, activation in zip(self.others, self.activations):
            hidden = layer(self.dropout(activation(hidden)))  # [B, C, next width]
        return hidden.squeeze(2)


class ExpertGates(nn.Module):
    """Experts that all tasks share and experts of each task, mixed by one gate per task.

    This is one level of progressive layered extraction (Tang et al., RecSys 2020).  An expert consists of Linear, ReLU
    and dropout.  Its input belongs to a (row, candidate) pair: the features of the pair, then those of the row.
    """

    def __init__(self, tasks: int, width: int, output: int, shared: int, own: int, dropout: float) -> None:
        super().__init__()
        self.output, self.mixed = output, shared + own
        self.shared = nn.Linear(width, shared * output)
        self.own = nn.ModuleList(nn.Linear(width, own * output) for _ in range(tasks))
        self.gates = nn.ModuleList(nn.Linear(width, shared + own) for _ in range(tasks))
        self.dropout = Dropout(dropout)

    def forward(self, row: Tensor, pair: Tensor, task: int) -> Tensor:
        """``[B, C, output]`` for one task, from ``row [B, r]`` and ``pair [B, C, p]``, p + r being the width."""
        pair_weight, row_weight, bias = self._first_layer(row.shape[1], task)
        hidden = F.linear(pair, pair_weight)  # [B, C, mixed * output + mixed]
        hidden += F.linear(row, row_weight, bias).unsqueeze(1)
        return self._mixture(hidden)

    def over_catalogue(self, row: Tensor, poolings: Sequence[Pooling], targets: Tensor, task: int) -> Tensor:
        """``[B, n, output]``, where the pairs' features are those of ``pooled_linear``."""
        pair_weight, row_weight, bias = self._first_layer(row.shape[1], task)
        return self._mixture(pooled_linear(pair_weight, F.linear(row, row_weight, bias), poolings, targets))

    def _first_layer(self, row_width: int, task: int) -> tuple[Tensor, Tensor, Tensor]:
        """The weights of pair and row, and the biases, of all experts and gates of a task."""
        layers: list[Any] = [self.shared, self.own[task], self.gates[task]]
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        return weight[:, :-row_width], weight[:, -row_width:], bias

    def _mixture(self, hidden: Tensor) -> Tensor:
        experts, gates = hidden.split([self.mixed * self.output, self.mixed], dim=2)
        experts = self.dropout(F.relu(experts)).unflatten(2, (self.mixed, self.output))
        # On the CPU, softmax is slow over a short last dimension, and so are products of matrices with a single row.
        weights = torch.softmax(gates.permute(2, 0, 1).contiguous(), dim=0).permute(1, 2, 0)  # [B, C, mixed]
        return (weights.unsqueeze(3) * experts).sum(dim=2)


class Dice(nn.Module):
    """p x + (1 - p) a x with p = sigmoid(BatchNorm(x)) and a learnt a per feature (Zhou et al., KDD 2018, Eq. 5-6)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.slope = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        """``[..., width]``; in training the statistics are those of all given values, which must not be padding."""
        flat = values.reshape(-1, values.shape[-1])
        if self.training and group.count() > 1:
            normed = self._normed_by_all(flat)
        else:
            batch_statistics = self.training and len(flat) > 1  # one row has no variance
            normed = F.batch_norm(
                flat, self.norm.running_mean, self.norm.running_var, training=batch_statistics,
                momentum=self.norm.momentum or 0.0, eps=self.norm.eps,
            )  # fmt: skip
        gate = torch.sigmoid(normed).view(values.shape)
        return values * torch.addcmul(self.slope, gate, 1 - self.slope)  # p + (1 - p) a = a + p (1 - a)

    def _normed_by_all(self, flat: Tensor) -> Tensor:
        """``flat [n, width]``, normalised by the statistics of the rows of all workers."""
        exact = flat.double()
        rows = exact.new_full(flat.shape[1:], float(len(flat)))
        sums = torch.stack([rows, exact.sum(dim=0), exact.square().sum(dim=0)])  # [3, width]
        rows, total, squares = gather_rows(sums.unsqueeze(0)).sum(dim=0)  # [width] each
        if rows[0] <= 1:
            return F.batch_norm(flat, self.norm.running_mean, self.norm.running_var, eps=self.norm.eps)
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        mean, momentum = total / rows, self.norm.momentum or 0.0
        variance = (squares / rows - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.norm.running_mean.lerp_(mean.to(flat.dtype), momentum)
            self.norm.running_var.lerp_((variance * rows / (rows - 1)).to(flat.dtype), momentum)
        return ((exact - mean) * (variance + self.norm.eps).rsqrt()).to(flat.dtype)
