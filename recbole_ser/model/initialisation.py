"""How the weights of the search-aware models start."""

from __future__ import annotations

from torch import nn

from recbole_ser.model.layers import Attention
from recbole_ser.model.scoring import ExpertGates


def initialise(module: nn.Module) -> None:
    """Xavier-normal weights, zero biases and zero padding rows; for ``module.apply``.

    As published, the input of attention is Xavier-uniform, and each expert is a layer of its own.
    """
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.xavier_normal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])
    if isinstance(module, Attention):
        nn.init.xavier_uniform_(module.input.weight)
    if isinstance(module, ExpertGates):
        for layer in (module.shared, *module.own):
            for expert in layer.weight.detach().split(module.output):
                nn.init.xavier_normal_(expert)
