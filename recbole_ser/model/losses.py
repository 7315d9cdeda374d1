"""Losses the models share."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Temperature(nn.Module):
    """A learnable temperature that stays above ``minimum``.

    ``minimum + softplus(raw)``, with a softplus so sharp that well above the minimum the temperature moves like a
    plain parameter.  It must not be part of the weight decay, which would pull it somewhere on its own.
    """

    def __init__(self, initial: float = 0.1, minimum: float = 0.01) -> None:
        super().__init__()
        self.minimum = minimum
        self.raw = nn.Parameter(torch.tensor(minimum * math.log(math.expm1((initial - minimum) / minimum))))

    def forward(self) -> Tensor:
        return self.minimum + F.softplus(self.raw, beta=1 / self.minimum)


class _LogSumExpTanh(torch.autograd.Function):
    """The gradient's factor is worked out in the forward pass, in the buffer of the scores.

    With u = sigmoid(-2 x), tanh(x) = 1 - 2u and its derivative is 4 u (1 - u); on the CPU a sigmoid costs a tenth of
    a tanh and exp2 a quarter of an exp.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, temperature: Tensor) -> Tensor:
        rate = 2 / (float(temperature) * math.log(2))
        u = (left @ (right.t() * -2)).sigmoid_()  # [J, K]
        lowest = u.amin(1, keepdim=True)  # [J, 1]
        share = torch.sub(lowest * rate, u, alpha=rate).exp2_()  # exp((tanh - its maximum) / temperature)
        total = share.sum(1, keepdim=True)
        share.mul_(u)
        weighted = share.sum(1, keepdim=True)
        factor = torch.addcmul(share, share, u, value=-1, out=u)  # share u (1 - u)
        ctx.save_for_backward(left, right, temperature, factor, total, weighted)
        return ((1 - 2 * lowest) / temperature + total.log()).squeeze(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right, temperature, factor, total, weighted = ctx.saved_tensors
        gradient = gradient.unsqueeze(1)
        scale = gradient * 4 / (temperature * total)
        mean_tanh = 1 - 2 * weighted / total
        return (
            (factor @ right) * scale,
            ((left * scale).t() @ factor).t(),
            -(gradient * mean_tanh).sum() / temperature.square(),
        )


def log_sum_exp_tanh(left: Tensor, right: Tensor, temperature: Tensor) -> Tensor:
    """``log sum_k exp(tanh(left_j . right_k) / temperature)``: ``[J]`` from ``left [J, d]`` and ``right [K, d]``."""
    return _LogSumExpTanh.apply(left, right, temperature)


def info_nce(positives: Tensor, negatives: Tensor) -> Tensor:
    """``[P]``: minus the log-probability of the positive among itself and the negatives.

    Args:
        positives: ``[P]`` logits of the positives.
        negatives: ``[P]`` log-sum-exp of the logits of the negatives.
    """
    return -F.logsigmoid(positives - negatives)


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """``max(|anchor - positive| - |anchor - negative| + margin, 0)`` with Euclidean distances: ``[B]`` from ``[B, d]``."""
    return F.relu(F.pairwise_distance(anchor, positive) - F.pairwise_distance(anchor, negative) + margin)
