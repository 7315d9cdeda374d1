"""The optimiser, its groups of parameters, and the schedule of the learning rate."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn, optim
from torch.optim.lr_scheduler import ReduceLROnPlateau


def eager(kind: type[Any]) -> type[Any]:
    """The optimiser ``kind`` without its provisions for ``torch.compile``, which this package does not use.

    The methods of PyTorch's optimisers are wrapped in functions that import PyTorch's compiler: 1.5 CPU seconds and 65
    MiB of every process that trains.  What they wrap computes the same.  A wrapper that does not name what it wraps, in
    some version of PyTorch, is kept.
    """
    wrapped = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "step": step})


FUSED = {"adam": eager(optim.Adam), "adamw": eager(optim.AdamW)}


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
