"""Layers that the models share.

All masking is exact: the output of a layer at valid positions does not depend on how much padding there is.
Shapes: B rows, T positions, d width, C candidates of a row, V views (subsets of the positions) of a history.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.errors import ConfigError


class _MaskedSoftmax(torch.autograd.Function):
    """Softmax with a mask; PyTorch's own is several times slower on the CPU if the softmaxed dimension is short."""

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
    """Softmax over the places where ``mask`` is true, exactly 0 elsewhere, and 0 everywhere if no place is true.

    ``scores`` and ``mask`` are broadcast against each other; both have their full size along ``dim``.
    """
    return _MaskedSoftmax.apply(scores, mask, dim)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean ``[..., d]`` of ``values [..., T, d]`` over the places where ``mask [..., T]`` is true; zeros if none is."""
    return (mean_weights(mask, values.dtype).unsqueeze(-1) * values).sum(dim=-2)


def mean_weights(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights ``[..., T]`` that average over the places where ``mask [..., T]`` is true; zeros if none is."""
    weights = mask.to(dtype)
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)


def random_int16(shape: torch.Size, device: torch.device) -> Tensor:
    """int16 of this ``shape``, uniform from -2**15 to 2**15 - 1; each random int64 gives four of them."""
    count = shape.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return words.view(torch.int16)[:count].view(shape)


class Dropout(nn.Module):
    """Dropout with the probability rounded to a multiple of 2**-16.

    Sixteen random bits decide about each element.  PyTorch's own dropout draws a whole random number for each, which
    takes several times as long on the CPU.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.cut = round(probability * 2**16)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.cut:
            return values
        bits = random_int16(values.shape, values.device)
        return values * (bits >= self.cut - 2**15).to(values.dtype).mul_(2**16 / (2**16 - self.cut))


class Attention(nn.Module):
    """Multi-head attention of states to themselves or to a memory.

    Raises:
        ConfigError: ``width`` is no multiple of ``heads``.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"hidden_size ({width}) must be a multiple of n_heads ({heads})")
        self.heads = heads
        self.input = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor, memory: Tensor | None = None) -> Tensor:
        """``[B, T, d]`` from ``states [B, T, d]``; ``mask`` is true where there is something to attend to.

        The mask is ``[B, M]``, or ``[B, T, M]`` if not all positions may see the same.  M is the length of ``memory
        [B, M, d]``, or T without a memory.  A position that may see nothing attends to zeros, so its output is the bias
        of the last linear map.
        """
        rows, length, width = states.shape
        query, key, value = self._projected(states, memory)  # [B, T, d], twice [B, M, d]
        query, key, value = (
            part.unflatten(2, (self.heads, width // self.heads)).transpose(1, 2) for part in (query, key, value)
        )  # [B, heads, T, d / heads], twice [B, heads, M, d / heads]
        scores = (query * (width // self.heads) ** -0.5) @ key.transpose(2, 3)  # [B, heads, T, M]
        weights = masked_softmax(scores, mask[:, None] if mask.dim() == 3 else mask[:, None, None])
        mixed = self.dropout(weights) @ value  # [B, heads, T, d / heads]
        return self.output(mixed.transpose(1, 2).reshape(rows, length, width))

    def _projected(self, states: Tensor, memory: Tensor | None) -> tuple[Tensor, ...]:
        width = states.shape[2]
        if memory is None:
            return self.input(states).split(width, dim=2)
        weights, biases = self.input.weight.split([width, 2 * width]), self.input.bias.split([width, 2 * width])
        query = F.linear(states, weights[0], biases[0])
        return query, *F.linear(memory, weights[1], biases[1]).split(width, dim=2)


class TransformerLayer(nn.Module):
    """Self-attention, attention to a memory (with ``cross``) and a position-wise network.

    Each of these parts has a residual connection around it with dropout, and LayerNorm after it, or before it
    (``pre_norm``).

    Args:
        width, heads: d, and the number of attention heads.
        dropout: dropout probability of the output of each part.
        cross: whether there is a memory to attend to, as in a Transformer decoder.
        inner: width inside the position-wise network, by default d.
        inner_dropout: dropout probability inside it, behind the activation.
        activation: activation of the position-wise network.
        attention_dropout: dropout probability of the attention weights.
        pre_norm: whether LayerNorm comes before each part instead of after it.
        epsilon: the small constant of LayerNorm.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        *,
        cross: bool = False,
        inner: int | None = None,
        inner_dropout: float = 0.0,
        activation: type[nn.Module] = nn.LeakyReLU,
        attention_dropout: float = 0.0,
        pre_norm: bool = False,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = Attention(width, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.cross = Attention(width, heads, attention_dropout) if cross else None
        self.cross_norm = nn.LayerNorm(width, eps=epsilon) if cross else None
        inner = inner or width
        between = nn.Sequential(activation(), Dropout(inner_dropout))
        self.network = nn.Sequential(nn.Linear(width, inner), between, nn.Linear(inner, width))
        self.network_norm = nn.LayerNorm(width, eps=epsilon)
        self.dropout = Dropout(dropout)

    def forward(
        self, states: Tensor, mask: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """``[B, T, d]``; masks as in ``Attention``: ``mask`` of the states, ``memory_mask`` of the memory."""
        states = self._residual(states, self.attention_norm, lambda x: self.attention(x, mask))
        if self.cross is not None:
            assert memory is not None and memory_mask is not None and self.cross_norm is not None
            cross = self.cross
            states = self._residual(states, self.cross_norm, lambda x: cross(x, memory_mask, memory))
        return self._residual(states, self.network_norm, self.network)

    def _residual(self, states: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return states + self.dropout(part(norm(states)))
        return norm(states + self.dropout(part(states)))


class TransformerEncoder(nn.Module):
    """Transformer layers, one after the other, with a LayerNorm at the end if they normalise first (``pre_norm``).

    The keyword arguments are those of ``TransformerLayer``.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float, **options: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(width, heads, dropout, **options) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=1e-8) if options.get("pre_norm") else nn.Identity()

    def forward(
        self, states: Tensor, mask: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """States ``[B, T, d]`` from states ``[B, T, d]``; masks as in ``Attention``."""
        for layer in self.layers:
            states = layer(states, mask, memory, memory_mask)
        return self.norm(states)


def last_state(states: Tensor, mask: Tensor) -> Tensor:
    """``[B, d]``: the state of the last place where ``mask [B, T]`` is true, right-padded; zeros if there is none."""
    length = mask.sum(dim=1)  # [B]
    last = states[torch.arange(len(states), device=states.device), (length - 1).clamp(min=0)]  # [B, d]
    return last * (length > 0).unsqueeze(1)


def causal(mask: Tensor) -> Tensor:
    """``[B, T, T]``: each position sees the valid positions (``mask [B, T]``) up to itself."""
    length = mask.shape[1]
    return mask.unsqueeze(1) & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()


def merged_places(search_place: Tensor, search_mask: Tensor, items: int) -> tuple[Tensor, Tensor]:
    """The places, from 0, of the events of both histories when they are merged in order of time.

    The place of an item is its own position plus the number of searches before it, and the other way round.

    Args:
        search_place: ``[B, S]`` how many items come before each search.
        search_mask: ``[B, S]`` true for real searches.
        items: L, length of the (padded) history of items.

    Returns:
        The places of the items ``[B, L]`` and of the searches ``[B, S]``.
    """
    item = torch.arange(items, device=search_place.device)  # [L]
    earlier = (search_place.unsqueeze(1) <= item.unsqueeze(1)) & search_mask.unsqueeze(1)  # [B, L, S]
    search = torch.arange(search_place.shape[1], device=search_place.device) + search_place  # [B, S]
    return item + earlier.sum(dim=2), search


class AdditiveAttention(nn.Module):
    """Pools a set of vectors x to one, with the weights softmax(v' tanh(U x + b)) (Bahdanau et al., ICLR 2015)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.vote = nn.Linear(inner, 1, bias=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """``[..., d]`` from ``states [..., T, d]``, valid where ``mask [..., T]`` is true; zeros if none is valid."""
        weights = masked_softmax(self.vote(torch.tanh(self.inner(states))).squeeze(-1), mask)  # [..., T]
        return (weights.unsqueeze(-1) * states).sum(dim=-2)


class CoAttention(nn.Module):
    """How closely each position of one history is related to the other history (SESRec, Eq. 9 and 10)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.affinity = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width)))
        self.left = nn.Linear(width, 1, bias=False)
        self.right = nn.Linear(width, 1, bias=False)

    @property
    def vanished(self) -> bool:
        """Whether its weights are so small that all positions have the same weight."""
        votes = max(self.left.weight.norm().item(), self.right.weight.norm().item())
        return self.affinity.norm().item() * votes < 1e-6

    def forward(self, left: Tensor, left_mask: Tensor, right: Tensor, right_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Weights ``[B, S]`` and ``[B, R]``, each summing to 1, of states ``[B, S, d]`` and ``[B, R, d]``.

        If the other history is empty, all positions have the same weight.
        """
        affinity = torch.tanh(left @ self.affinity @ right.transpose(1, 2))  # [B, S, R]
        left_votes = self.left(left) * left_mask.unsqueeze(2)  # [B, S, 1]
        right_votes = self.right(right) * right_mask.unsqueeze(2)  # [B, R, 1]
        left_scores = (affinity @ right_votes).squeeze(2)  # [B, S]
        right_scores = (affinity.transpose(1, 2) @ left_votes).squeeze(2)  # [B, R]
        return masked_softmax(left_scores, left_mask), masked_softmax(right_scores, right_mask)


def perceptron(sizes: list[int], activation: type[nn.Module], dropout: float, last: bool = False) -> nn.Sequential:
    """Linear layers from each size to the next, activation and dropout between them (``last``: also at the end)."""
    layers: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:]):
        layers += [nn.Linear(before, after), activation(), Dropout(dropout)]
    return nn.Sequential(*(layers if last else layers[:-2]))
