"""The optimiser, its groups of parameters, and the schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau

FUSED = {"adam": optim.Adam, "adamw": optim.AdamW}


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The model's parameters in groups: those that ``model.no_weight_decay()``, if there is one, names do not decay.

    Raises:
        ValueError: ``no_weight_decay`` names something that is no parameter.
    """
    parameters = dict(model.named_parameters())
    spared = set(getattr(model, "no_weight_decay", set)())
    if unknown := spared - set(parameters):
        raise ValueError(f"{type(model).__name__}.no_weight_decay names no parameter: {sorted(unknown)}")
    decayed = {"params": [value for name, value in parameters.items() if name not in spared]}
    kept = {"params": [value for name, value in parameters.items() if name in spared], "weight_decay": 0.0}
    return [group for group in (decayed, kept) if group["params"]]


def build_adam(model: nn.Module, learner: str, rate: float, weight_decay: float) -> optim.Optimizer:
    """Adam or AdamW over ``parameter_groups``, as one fused kernel if the device has one."""
    try:
        return FUSED[learner](parameter_groups(model), lr=rate, weight_decay=weight_decay, fused=True)
    except RuntimeError:  # no fused kernel for this device in this version of PyTorch
        return FUSED[learner](parameter_groups(model), lr=rate, weight_decay=weight_decay)


class Plateau(ReduceLROnPlateau):
    """Multiplies the learning rate by ``factor`` after more than ``patience`` evaluations without a better score.

    Args:
        settings: ``lr_plateau`` of the configuration: ``{factor, patience, min_lr}``.
        bigger: whether a bigger score is a better one.

    """

    def __init__(self, optimizer: optim.Optimizer, settings: Mapping[str, Any], bigger: bool) -> None:
        super().__init__(optimizer, "max" if bigger else "min", **settings)

    @property
    def can_fall(self) -> bool:
        """Whether the scheduler can still lower the rate; it ignores changes of at most ``eps``."""
        rate = self.optimizer.param_groups[0]["lr"]
        return rate - max(rate * self.factor, self.min_lrs[0]) > self.eps
