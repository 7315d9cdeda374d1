"""A Transformer one row, one head and one position at a time, from weights by name, and item vectors likewise."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


class TransformerReference:
    """What references of models with self-attention over items share.

    Args:
        weights: the model's parameters by name.
        dataset: what the model was built from.
        heads: number of attention heads.
        pre_norm: whether LayerNorm comes before each part; else behind the residual connection.
        activation: of the position-wise network.
    """

    def __init__(
        self, weights: Weights, dataset: SimpleNamespace, heads: int, pre_norm: bool,
        activation: Callable[[Tensor], Tensor],
    ) -> None:  # fmt: skip
        self.weights, self.dataset, self.heads = weights, dataset, heads
        self.pre_norm, self.activation = pre_norm, activation

    def linear(self, name: str, vector: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ vector + self.weights[f"{name}.bias"]

    def norm(self, name: str, vector: Tensor) -> Tensor:
        centred = vector - vector.mean()
        scaled = centred / (centred.square().mean() + 1e-8).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def item(self, number: int) -> Tensor:
        parts = [self.weights["items.ids.weight"][number]]
        for place, values in enumerate(self.dataset.item_attributes.values()):
            table = self.weights[f"items.attributes.{place}.table.weight"]
            present = [table[int(value)] for value in values[number].reshape(-1) if value != 0]
            parts.append(sum(present) / len(present) if present else torch.zeros_like(table[0]))
        return self.linear("items.projection", torch.cat(parts))

    def attention(self, name: str, state: Tensor, seen: list[Tensor]) -> Tensor:
        width = len(state)
        size = width // self.heads
        own, projected = self.linear(f"{name}.input", state), [self.linear(f"{name}.input", other) for other in seen]
        mixed = []
        for start in range(0, width, size):
            query, keys = own[start : start + size], [p[width + start : width + start + size] for p in projected]
            powers = [torch.exp(query @ key / math.sqrt(size)) for key in keys]
            values = [p[2 * width + start : 2 * width + start + size] for p in projected]
            mixed.append(sum(power * value for power, value in zip(powers, values)) / sum(powers))
        return self.linear(f"{name}.output", torch.cat(mixed))

    def network(self, name: str, vector: Tensor) -> Tensor:
        return self.linear(f"{name}.2", self.activation(self.linear(f"{name}.0", vector)))

    def layer(self, name: str, states: list[Tensor], causal: bool) -> list[Tensor]:
        heard = [self.norm(f"{name}.attention_norm", x) for x in states] if self.pre_norm else states
        results = []
        for place, state in enumerate(states):
            seen = heard[: place + 1] if causal else heard
            middle = state + self.attention(f"{name}.attention", heard[place], seen)
            if self.pre_norm:
                results.append(middle + self.network(f"{name}.network", self.norm(f"{name}.network_norm", middle)))
            else:
                middle = self.norm(f"{name}.attention_norm", middle)
                results.append(self.norm(f"{name}.network_norm", middle + self.network(f"{name}.network", middle)))
        return results

    def encoder(self, states: list[Tensor], layers: int, causal: bool) -> list[Tensor]:
        for number in range(layers):
            states = self.layer(f"encoder.layers.{number}", states, causal)
        return [self.norm("encoder.norm", state) for state in states] if self.pre_norm else states


def weights_of(model: nn.Module) -> Weights:
    return {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}


def enlarged(model: Any) -> Any:
    """``model`` in double precision with weights so large that nothing in it is nearly linear or nearly zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.dim() == 1 else 0.4))
            if name.endswith(("ids.weight", "table.weight")):
                parameter[0] = 0
    return model.double()


def histories(rows: list[list[int]], length: int) -> Tensor:
    """``rows`` as ``[B, length]``, right-padded with 0."""
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], dtype=torch.int64)
