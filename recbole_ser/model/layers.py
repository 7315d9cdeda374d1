"""Layers the models share.

All masking is exact: what a layer gives for valid positions does not depend on how much padding there is.
Shapes: B rows, T positions, d width, C candidates of a row, V views (subsets of the positions) of a history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Value = TypeVar("Value")


class PassCache(nn.Module):
    """Remembers, for one evaluation pass, what depends on the parameters alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pass_cache: dict[str, tuple[int, Any]] = {}

    def cached(self, name: str, compute: Callable[[], Value]) -> Value:
        """``compute()``, remembered until the parameters change or ``train()``/``eval()`` is called.

        While training, or where gradients are recorded, it is computed each time.
        """
        if self.training or torch.is_grad_enabled():
            return compute()
        version = sum(parameter._version for parameter in self.parameters())
        if name not in self._pass_cache or self._pass_cache[name][0] != version:
            self._pass_cache[name] = (version, compute())
        return self._pass_cache[name][1]

    def train(self, mode: bool = True) -> Any:
        self._pass_cache.clear()
        return super().train(mode)


class Attribute(NamedTuple):
    """One attribute of every entity: ``values`` [count] or [count, W] right-padded with 0, of ``size`` values."""

    values: Tensor
    vocabulary: int
    width: int


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """``table[ids]``: ``[..., d]`` from ``table [n, d]`` and ``ids [...]``.

    On the CPU ``index_select`` has a much cheaper backward pass than ``F.embedding``; on a GPU it is not repeatable.
    """
    if table.device.type != "cpu":
        return F.embedding(ids, table)
    return table.index_select(0, ids.reshape(-1)).view(*ids.shape, table.shape[1])


def distinct(ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The distinct values ``[U]`` among ``ids``, ascending, and the place of each in them.

    The places are ``[count]``, indexed by id; -1 for an id that does not occur.  All ids are below ``count``.
    """
    present = torch.zeros(count, dtype=torch.bool, device=ids.device)
    present[ids.reshape(-1)] = True
    values = present.nonzero().squeeze(1)
    places = torch.full((count,), -1, device=ids.device)
    places[values] = torch.arange(len(values), device=ids.device)
    return values, places


class FeatureEmbedding(PassCache):
    """An entity's vector: its id's embedding beside those of its attributes, projected if ``width`` is given.

    Several values of one attribute are averaged (none: zeros).  Id 0 is padding: its embedding is zero.

    Args:
        count: number of ids, the padding id included.
        id_width: width of the id embedding.
        attributes: attributes by name.
        width: width of the projection (with bias), or None for the concatenation as it is.
    """

    def __init__(
        self, count: int, id_width: int, attributes: Mapping[str, Attribute] | None = None, width: int | None = None
    ) -> None:
        super().__init__()
        self.count = count
        self.ids = nn.Embedding(count, id_width, padding_idx=0)
        self.attributes = nn.ModuleDict()
        total = id_width
        for name, (values, vocabulary, attribute_width) in (attributes or {}).items():
            self.attributes[name] = nn.Embedding(vocabulary, attribute_width, padding_idx=0)
            self.register_buffer(f"{name}_values", values.reshape(count, -1), persistent=False)
            total += attribute_width
        self.projection = nn.Identity() if width is None else nn.Linear(total, width)
        self.width = width or total
        self._shared: tuple[Tensor, Tensor] | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors ``[..., width]`` of ``ids [...]``."""
        if self._shared is not None:
            vectors, places = self._shared
            return lookup(vectors, places[ids])
        if self.training or torch.is_grad_enabled():
            return self._embed(ids.reshape(-1)).view(*ids.shape, self.width)
        return lookup(self.cached("table", self._table), ids)

    @contextmanager
    def shared(self, *ids: Tensor) -> Iterator[None]:
        """Inside this block the distinct ones of ``ids`` are embedded once, and calls gather from the result.

        One lookup means one dense gradient of the table instead of one for every call.
        """
        values, places = distinct(torch.cat([some.reshape(-1) for some in ids]), self.count)
        self._shared = self._embed(values), places
        try:
            yield
        finally:
            self._shared = None

    def _table(self) -> Tensor:
        return self._embed(torch.arange(self.count, device=self.ids.weight.device))

    def _embed(self, ids: Tensor) -> Tensor:
        parts = [lookup(self.ids.weight, ids) * (ids != 0).unsqueeze(1)]  # [U, id_width]
        for name, table in self.attributes.items():
            values = getattr(self, f"{name}_values")[ids].long()  # [U, W]
            parts.append(masked_mean(lookup(table.weight, values), values != 0))  # [U, attribute width]
        return self.projection(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])


class _MaskedSoftmax(torch.autograd.Function):
    """PyTorch's own softmax is several times slower on the CPU where the softmaxed dimension is short."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor, dim: int) -> Tensor:
        mask = mask.to(scores.dtype)
        weights = scores + (mask - 1) * (-torch.finfo(scores.dtype).min / 2)
        weights -= weights.amax(dim, keepdim=True)
        weights.mul_(1 / math.log(2)).exp2_()
        # With nothing valid the sum is divided by 0, and x / inf gives weights of zero.
        weights /= weights.sum(dim, keepdim=True) / mask.amax(dim, keepdim=True)
        ctx.save_for_backward(weights)
        ctx.dim, ctx.shape = dim, scores.shape
        return weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weights,) = ctx.saved_tensors
        weighted = gradient * weights
        weighted = weighted - weights * weighted.sum(ctx.dim, keepdim=True)
        return weighted.sum_to_size(ctx.shape), None, None


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax over the places where ``mask`` is true, exactly 0 elsewhere and everywhere where none is.

    ``scores`` and ``mask`` are broadcast against each other; both have their full size along ``dim``.
    """
    return _MaskedSoftmax.apply(scores, mask, dim)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean ``[..., d]`` of ``values [..., T, d]`` over the places where ``mask [..., T]`` is true; none: zeros."""
    weights = mask.to(values.dtype)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1)
    return (weights.unsqueeze(-1) * values).sum(-2)


class SelfAttention(nn.Module):
    """Multi-head self-attention, bidirectional, without dropout of the attention weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.input = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        rows, length, width = states.shape
        projected = self.input(states).view(rows, length, 3, self.heads, width // self.heads)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # each [B, heads, T, d / heads]
        scores = (queries * (width // self.heads) ** -0.5) @ keys.transpose(2, 3)  # [B, heads, T, T]
        mixed = masked_softmax(scores, mask[:, None, None]) @ values  # [B, heads, T, d / heads]
        return self.output(mixed.transpose(1, 2).reshape(rows, length, width))


class Dropout(nn.Module):
    """Dropout with a probability rounded to a multiple of 2**-16.

    Sixteen random bits decide about one element; PyTorch's own draws a whole random number for each, which on the CPU
    takes several times as long.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.cut = round(probability * 2**16)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.cut:
            return values
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device)
        bits = words.random_(-(2**63), None).view(torch.int16)[: values.numel()].view(values.shape)
        kept = (bits >= self.cut - 2**15).to(values.dtype)
        return values * kept.mul_(2**16 / (2**16 - self.cut))


class TransformerLayer(nn.Module):
    """Self-attention and a position-wise network of width d, each with residual, dropout and LayerNorm after it."""

    def __init__(self, width: int, heads: int, dropout: float, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.network = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width))
        self.network_norm = nn.LayerNorm(width, eps=epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States ``[B, T, d]`` from states ``[B, T, d]`` that are valid where ``mask [B, T]`` is true."""
        states = self.attention_norm(states + self.dropout(self.attention(states, mask)))
        return self.network_norm(states + self.dropout(self.network(states)))


class TransformerEncoder(nn.Module):
    """Transformer layers over right-padded histories, short rows apart from long ones so that less is padding."""

    GROUPS = 2

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(width, heads, dropout) for _ in range(layers))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States ``[B, T, d]`` from states ``[B, T, d]`` that are valid where ``mask [B, T]`` is true."""
        encoded = []
        for group, group_mask in zip(states.chunk(self.GROUPS), mask.chunk(self.GROUPS)):
            longest = max(1, int(group_mask.sum(1).max()))
            group, group_mask = group[:, :longest], group_mask[:, :longest]
            for layer in self.layers:
                group = layer(group, group_mask)
            encoded.append(F.pad(group, (0, 0, 0, states.shape[1] - longest)))
        return torch.cat(encoded)


class CoAttention(nn.Module):
    """How much each position of one history has to do with the other history (SESRec, Eq. 9 and 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.affinity = nn.Parameter(torch.empty(width, width))  # W_l
        self.left = nn.Linear(width, 1, bias=False)  # W_s
        self.right = nn.Linear(width, 1, bias=False)  # W_r

    def forward(self, left: Tensor, left_mask: Tensor, right: Tensor, right_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``[B, S]`` and ``[B, R]``, each summing to 1, of states ``[B, S, d]`` and ``[B, R, d]``.

        Against an empty history every position weighs the same.
        """
        affinity = torch.tanh(left @ self.affinity @ right.transpose(1, 2))  # [B, S, R]
        left_votes = self.left(left).squeeze(2) * left_mask  # [B, S]
        right_votes = self.right(right).squeeze(2) * right_mask  # [B, R]
        left_scores = (affinity @ right_votes.unsqueeze(2)).squeeze(2)  # [B, S]
        right_scores = (left_votes.unsqueeze(1) @ affinity).squeeze(1)  # [B, R]
        return masked_softmax(left_scores, left_mask), masked_softmax(right_scores, right_mask)


class TargetAttention(nn.Module):
    """What views of a history say about each candidate: bilinear attention with the candidate as the query."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))

    def forward(self, states: Tensor, views: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """One ``[B, C, d]`` per view, from ``states [B, T, d]``, ``views [B, V, T]`` and ``targets [B, C, d]``.

        ``views`` is true where a position belongs to the view.  A view with nothing in it gives zeros.
        """
        scores = targets @ (states @ self.weight).transpose(1, 2)  # [B, C, T]
        weights = masked_softmax(scores.transpose(1, 2).unsqueeze(2), views.transpose(1, 2).unsqueeze(3), dim=1)  # [B, T, V, C]
        pooled = weights.flatten(2).transpose(1, 2) @ states  # [B, V C, d]
        return pooled.unflatten(1, weights.shape[2:]).unbind(1)


class PairMLP(nn.Module):
    """Scores of (row, candidate) pairs: linear layers with ReLU and dropout between them, one number at the end.

    The first layer's product with what belongs to the row is computed once per row.
    """

    def __init__(self, row_width: int, pair_width: int, hidden: list[int], dropout: float) -> None:
        super().__init__()
        widths = [row_width + pair_width, *hidden, 1]
        self.row_width = row_width
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.dropout = Dropout(dropout)

    def forward(self, row: Tensor, pair: Tensor) -> Tensor:
        """``[B, C]`` from ``row [B, r]`` and ``pair [B, C, p]``."""
        first = self.layers[0]
        row_weight, pair_weight = first.weight.split([self.row_width, pair.shape[-1]], dim=1)
        hidden = F.linear(row, row_weight, first.bias).unsqueeze(1) + F.linear(pair, pair_weight)  # [B, C, h]
        for layer in self.layers[1:]:
            hidden = layer(self.dropout(F.relu(hidden)))
        return hidden.squeeze(2)
