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
    """Keeps, for one evaluation pass, what depends on the parameters alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pass_cache: dict[str, tuple[int, Any]] = {}

    def cached(self, name: str, compute: Callable[[], Value]) -> Value:
        """``compute()``, kept until a parameter changes or ``train()`` or ``eval()`` is called.

        In training, and where gradients are recorded, it is computed each time.
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
    """One attribute of every entity."""

    values: Tensor  # [count] or [count, W], right-padded with 0
    vocabulary: int  # number of values, the padding value 0 included
    width: int


def attributes_of(dataset: Any, tables: Mapping[str, Tensor], width: int) -> list[Attribute]:
    """Attributes for ``FeatureEmbedding`` from ``dataset.item_attributes`` or ``dataset.user_attributes``."""
    return [Attribute(values, dataset.num(name), width) for name, values in tables.items()]


class AttributeEmbedding(nn.Module):
    """The mean of the embeddings of an entity's values of one attribute; none: zeros."""

    values: Tensor  # [count, W]

    def __init__(self, attribute: Attribute) -> None:
        super().__init__()
        self.table = nn.Embedding(attribute.vocabulary, attribute.width, padding_idx=0)
        values = attribute.values.reshape(len(attribute.values), -1)
        self.register_buffer("values", values, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """``[U, width]`` for the entities ``ids [U]``."""
        values = self.values[ids].long()  # [U, W]
        return masked_mean(lookup(self.table.weight, values), values != 0)


class FeatureEmbedding(PassCache):
    """An entity's vector: its id's embedding beside those of its attributes, projected if ``width`` is given.

    Id 0 is padding: the embedding of the id is zero there.

    Args:
        count: number of ids, the padding id included.
        id_width: width of the id embedding.
        attributes: what else is known of each entity.
        width: width of the projection (with bias), or None for the concatenation as it is.
    """

    def __init__(self, count: int, id_width: int, attributes: list[Attribute], width: int | None = None) -> None:
        super().__init__()
        self.count = count
        self.ids = nn.Embedding(count, id_width, padding_idx=0)
        self.attributes = nn.ModuleList(AttributeEmbedding(attribute) for attribute in attributes)
        concatenated = id_width + sum(attribute.width for attribute in attributes)
        self.projection = nn.Identity() if width is None else nn.Linear(concatenated, width)
        self.width = width or concatenated
        self._shared: tuple[Tensor, Tensor] | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors ``[..., width]`` of ``ids [...]``."""
        if self._shared is not None:
            vectors, places = self._shared
            return lookup(vectors, places[ids])
        if self.training or torch.is_grad_enabled():
            return self._embed(ids.reshape(-1)).view(*ids.shape, self.width)
        everything = torch.arange(self.count, device=ids.device)
        return lookup(self.cached("table", lambda: self._embed(everything)), ids)

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

    def _embed(self, ids: Tensor) -> Tensor:
        own = lookup(self.ids.weight, ids) * (ids != 0).unsqueeze(1)  # [U, id_width]
        parts = [own, *(attribute(ids) for attribute in self.attributes)]
        return self.projection(torch.cat(parts, dim=1))  # [U, width]


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """``table[ids]``: ``[..., d]`` from ``table [n, d]`` and ``ids [...]``.

    On the CPU ``index_select`` has a much cheaper backward pass than ``F.embedding``; on a GPU it is not repeatable.
    """
    if table.device.type != "cpu":
        return F.embedding(ids, table)
    return table.index_select(0, ids.reshape(-1)).view(*ids.shape, table.shape[1])


def distinct(ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The distinct ones ``[U]`` of ``ids``, ascending, and for each of ``count`` ids its place among them, or -1."""
    present = torch.zeros(count, dtype=torch.bool, device=ids.device)
    present[ids] = True
    values = present.nonzero().squeeze(1)  # [U]
    places = torch.full((count,), -1, device=ids.device)
    places[values] = torch.arange(len(values), device=ids.device)
    return values, places


class _MaskedSoftmax(torch.autograd.Function):
    """PyTorch's own softmax is several times slower on the CPU where the softmaxed dimension is short."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, mask: Tensor, dim: int) -> Tensor:
        mask = mask.to(scores.dtype)
        weights = scores + (1 - mask) * (torch.finfo(scores.dtype).min / 2)
        weights -= weights.amax(dim, keepdim=True)
        weights.mul_(1 / math.log(2)).exp2_()  # exp is slow where it underflows
        # Where nothing is valid the sum is divided by 0, and x / inf gives weights of 0.
        weights /= weights.sum(dim, keepdim=True) / mask.amax(dim, keepdim=True)
        ctx.save_for_backward(weights)
        ctx.dim, ctx.shape = dim, scores.shape
        return weights

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weights,) = ctx.saved_tensors
        gradient = gradient * weights
        gradient.addcmul_(weights, gradient.sum(ctx.dim, keepdim=True), value=-1)
        return gradient.sum_to_size(ctx.shape), None, None


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax over the places where ``mask`` is true, exactly 0 elsewhere, and 0 everywhere where none is.

    ``scores`` and ``mask`` are broadcast against each other; both have their full size along ``dim``.
    """
    return _MaskedSoftmax.apply(scores, mask, dim)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean ``[..., d]`` of ``values [..., T, d]`` over the places where ``mask [..., T]`` is true; none: zeros."""
    return (mean_weights(mask, values.dtype).unsqueeze(-1) * values).sum(dim=-2)


def mean_weights(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights ``[..., T]`` that average over the places where ``mask [..., T]`` is true; none: zeros."""
    weights = mask.to(dtype)
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)


class Dropout(nn.Module):
    """Dropout with the probability rounded to a multiple of 2**-16.

    Sixteen random bits decide about each element.  PyTorch's own draws a whole random number for it, which on the CPU
    takes several times as long.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.cut = round(probability * 2**16)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.cut:
            return values
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64, device=values.device).random_(-(2**63), None)
        bits = words.view(torch.int16)[: values.numel()].view(values.shape)
        return values * (bits >= self.cut - 2**15).to(values.dtype).mul_(2**16 / (2**16 - self.cut))


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
        states = self.attention_norm(states + self.dropout(self.attention(states, mask)))
        return self.network_norm(states + self.dropout(self.network(states)))


class TransformerEncoder(nn.Module):
    """Transformer layers, one after the other."""

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(width, heads, dropout) for _ in range(layers))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States ``[B, T, d]`` from states ``[B, T, d]`` that are valid where ``mask [B, T]`` is true."""
        for layer in self.layers:
            states = layer(states, mask)
        return states


class CoAttention(nn.Module):
    """How much each position of one history has to do with the other history (SESRec, Eq. 9 and 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.affinity = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width)))
        self.left = nn.Linear(width, 1, bias=False)
        self.right = nn.Linear(width, 1, bias=False)

    def forward(self, left: Tensor, left_mask: Tensor, right: Tensor, right_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``[B, S]`` and ``[B, R]``, each summing to 1, of states ``[B, S, d]`` and ``[B, R, d]``.

        Against an empty history every position weighs the same.
        """
        affinity = torch.tanh(left @ self.affinity @ right.transpose(1, 2))  # [B, S, R]
        left_votes = self.left(left) * left_mask.unsqueeze(2)  # [B, S, 1]
        right_votes = self.right(right) * right_mask.unsqueeze(2)  # [B, R, 1]
        left_scores = (affinity @ right_votes).squeeze(2)  # [B, S]
        right_scores = (affinity.transpose(1, 2) @ left_votes).squeeze(2)  # [B, R]
        return masked_softmax(left_scores, left_mask), masked_softmax(right_scores, right_mask)


class TargetAttention(nn.Module):
    """What views of a history say about each candidate: bilinear attention with the candidate as the query."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The spread of a Xavier-initialised (1, d, d) tensor, which is what the published code draws.
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


class PairMLP(nn.Module):
    """A score of each (row, candidate) pair: linear layers with ReLU and dropout between them.

    The first layer's product with what belongs to the row is computed once per row.
    """

    def __init__(self, row_width: int, pair_width: int, hidden: list[int], dropout: float) -> None:
        super().__init__()
        self.row_width = row_width
        self.first = nn.Linear(row_width + pair_width, hidden[0])
        self.others = nn.ModuleList(nn.Linear(a, b) for a, b in zip(hidden, [*hidden[1:], 1]))
        self.dropout = Dropout(dropout)

    def forward(self, row: Tensor, pair: Tensor) -> Tensor:
        """``[B, C]`` from ``row [B, r]`` and ``pair [B, C, p]``."""
        row_weight, pair_weight = self.first.weight.split([self.row_width, pair.shape[2]], dim=1)
        hidden = F.linear(pair, pair_weight)  # [B, C, h]
        hidden += F.linear(row, row_weight, self.first.bias).unsqueeze(1)
        for layer in self.others:
            hidden = layer(self.dropout(F.relu(hidden, inplace=True)))  # [B, C, next width]
        return hidden.squeeze(2)


def initialise(module: nn.Module) -> None:
    """Xavier-normal weights, zero biases and zero padding rows; for ``module.apply``."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.xavier_normal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])
    if isinstance(module, SelfAttention):
        nn.init.xavier_uniform_(module.input.weight)
