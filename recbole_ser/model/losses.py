"""Losses that the models share.  Shapes: B rows, P pairs, d width.

Where several workers share a batch, all of these are losses of the whole batch, see ``workers.rows``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recbole_ser.errors import ConfigError
from recbole_ser.settings.types import LOWEST_TEMPERATURE, LossType
from recbole_ser.workers.rows import gather_rows

LOGITS_AT_ONCE = 1 << 20  # of a softmax over inner products with all items: as many as stay in a CPU's cache
FEWEST_ROWS = 16  # of it; each part reads all vectors and adds to all their gradients


def positive_first_loss(logits: Tensor) -> Tensor:
    """Mean binary cross entropy of ``logits [B, 1 + N]``, whose first column belongs to the positives."""
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1.0
    return gather_rows(F.binary_cross_entropy_with_logits(logits, labels, reduction="none")).mean()


def sampled_loss(kind: LossType, logits: Tensor) -> Tensor:
    """The loss of positives against sampled negatives; ``logits [B, 1 + N]`` have the positives in the first column.

    ``BCE`` is the binary cross entropy, averaged over all pairs; ``BPR`` is ``-log sigmoid(positive - negative)``,
    averaged over all negatives (Rendle et al., UAI'09).
    """
    if kind == "BPR":
        return gather_rows(F.softplus(logits[:, 1:] - logits[:, :1])).mean()
    return positive_first_loss(logits)


def softmax_loss(own: Tensor, items: Tensor, logits_of: Callable[[Tensor], Tensor], at_once: int) -> Tensor:
    """Mean cross entropy of targets in the softmax over all items.

    The logits of a part are computed again for the gradient, so that only one part is in memory.

    Args:
        own: ``[B]``, the logits of the targets.
        items: what stands for the items: their ids ``[n]``, say, or vectors ``[n, d]``.
        logits_of: gives the logits ``[B, m]`` of a part of ``items``.
        at_once: number of logits in a part.
    """
    parts = items.split(max(1, at_once // max(len(own), 1)))

    def log_sum_exp(part: Tensor) -> Tensor:
        return logits_of(part).logsumexp(dim=1)  # [B]

    if len(parts) == 1:
        return gather_rows(log_sum_exp(parts[0]) - own).mean()
    sums = [checkpoint(log_sum_exp, part, use_reentrant=False) for part in parts]
    return gather_rows(torch.stack(sums).logsumexp(dim=0) - own).mean()


class _InnerProductSoftmax(torch.autograd.Function):
    """See ``inner_product_softmax``.

    The sum of the losses is the only result, so its gradient can be had together with it, up to a factor, while the
    logits of a few rows are in the CPU's cache: each logit is computed once and is never kept.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
        at_once = LOGITS_AT_ONCE if states.device.type == "cpu" else 64 * LOGITS_AT_ONCE
        rows = max(FEWEST_ROWS, at_once // len(vectors))
        of_states, of_vectors = torch.empty_like(states), torch.zeros_like(vectors)  # the gradients
        total = states.new_zeros(())
        parts = zip(states.split(rows), places.unsqueeze(1).split(rows), of_states.split(rows))
        for some, place, of_some in parts:
            shares = some @ vectors.t()  # the logits [b, n]
            own = shares.gather(1, place)  # [b, 1]
            highest = shares.amax(dim=1, keepdim=True)  # [b, 1]
            shares.sub_(highest).mul_(1 / math.log(2)).exp2_()
            sums = shares.sum(dim=1, keepdim=True)
            total += (highest - own + sums.log()).sum()
            shares /= sums
            shares.scatter_add_(1, place, torch.full_like(own, -1.0))  # the gradient of the loss by the logits
            torch.mm(shares, vectors, out=of_some)
            of_vectors.addmm_(shares.t(), some)
        ctx.save_for_backward(of_states, of_vectors)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        of_states, of_vectors = ctx.saved_tensors
        return of_states * gradient, of_vectors * gradient, None


def inner_product_softmax(states: Tensor, vectors: Tensor, places: Tensor) -> Tensor:
    """Mean cross entropy of the softmax over the inner products of ``states [B, d]`` with all ``vectors [n, d]``.

    ``places [B]`` are the targets' places among the vectors.  It is computed in single precision at least.
    """
    states, vectors = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (states, vectors))
    with torch.autocast(states.device.type, enabled=False):
        total: Tensor = _InnerProductSoftmax.apply(states, vectors, places)
    sums = torch.stack([total, total.new_tensor(len(states))]).unsqueeze(0)  # [1, 2], of this worker
    total, rows = gather_rows(sums).sum(dim=0)
    return total / rows


class Temperature(nn.Module):
    """A learnable temperature that stays above ``minimum``: ``minimum + softplus(raw)``.

    The softplus is so sharp that well above the minimum the temperature moves like a plain parameter.  Weight decay
    must not be applied to ``raw``: it would pull the temperature towards a value of its own.

    Raises:
        ConfigError: ``initial`` is not above ``minimum``.
    """

    def __init__(self, initial: float, minimum: float = LOWEST_TEMPERATURE) -> None:
        super().__init__()
        if not initial > minimum:
            raise ConfigError(f"temperature must be above {minimum}, not {initial}")
        self.minimum = minimum
        excess = initial / minimum - 1
        self.raw = nn.Parameter(torch.tensor(minimum * (excess + math.log(-math.expm1(-excess)))))

    def forward(self) -> Tensor:
        return self.minimum + F.softplus(self.raw, beta=1 / self.minimum)


class _LogSumExpTanh(torch.autograd.Function):
    """See ``log_sum_exp_tanh``.

    With u = sigmoid(-2 x), tanh(x) = 1 - 2u, and its derivative is 4 u (1 - u); on the CPU a sigmoid costs a tenth of
    a tanh, and exp2 a quarter of an exp.  The factor that the backward pass needs is computed in the forward pass, in
    the buffer of the scores, so that only one ``[J, K]`` matrix is kept.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, temperature: Tensor, counts: Tensor | None) -> Tensor:
        rate = 2 / (float(temperature) * math.log(2))
        u = (left @ (right.t() * -2)).sigmoid_()  # [J, K]
        lowest = u.amin(dim=1, keepdim=True)  # [J, 1]
        share = torch.sub(lowest * rate, u, alpha=rate).exp2_()  # exp((tanh - its maximum) / temperature)
        if counts is not None:
            share.mul_(counts.to(share.dtype))
        total = share.sum(dim=1, keepdim=True)
        share.mul_(u)
        mean_tanh = 1 - 2 * share.sum(dim=1, keepdim=True) / total
        factor = torch.addcmul(share, share, u, value=-1, out=u)  # exp(...) u (1 - u)
        ctx.save_for_backward(left, right, temperature, factor, total, mean_tanh)
        return ((1 - 2 * lowest) / temperature + total.log()).squeeze(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        left, right, temperature, factor, total, mean_tanh = ctx.saved_tensors
        gradient = gradient.unsqueeze(1)  # [J, 1]
        scale = 4 * gradient / (temperature * total)
        return (
            (factor @ right) * scale,
            ((left * scale).t() @ factor).t(),  # several times as fast as factor.t() @ (left * scale)
            -(gradient * mean_tanh).sum() / temperature.square(),
            None,
        )


def log_sum_exp_tanh(left: Tensor, right: Tensor, temperature: Tensor, counts: Tensor | None = None) -> Tensor:
    """``log sum_k counts_k exp(tanh(left_j . right_k) / temperature)``, in single precision at least.

    Args:
        left, right: the vectors ``[J, d]`` and ``[K, d]``.
        temperature: scalar.
        counts: ``[K]`` how often each of ``right`` occurs, at least once; by default once.

    Returns:
        ``[J]``, the log-sum-exp for each of ``left``.
    """
    left, right = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (left, right))
    with torch.autocast(left.device.type, enabled=False):
        return _LogSumExpTanh.apply(left, right, temperature, counts)


def info_nce(positives: Tensor, negatives: Tensor) -> Tensor:
    """``[P]``: the negative log-probability of each positive among itself and its negatives.

    Args:
        positives: ``[P]`` logits of the positives.
        negatives: ``[P]`` log-sum-exp of the logits of each positive's negatives.
    """
    return -F.logsigmoid(positives - negatives)


def nt_xent(left: Tensor, right: Tensor, weight: Tensor, temperature: Tensor) -> Tensor:
    """Contrastive loss between two views of each row, with the 2B - 2 vectors of other rows as negatives.

    It is the mean over all 2B vectors as anchors.  The similarity is tanh(x W y') / temperature (UniSAR's published
    code; GSERec, Eq. 9 and 12).

    Args:
        left, right: ``[B, d]`` the two views.
        weight: ``[d, d]`` W.
        temperature: scalar.

    Returns:
        A scalar; 0 if there are fewer than two rows.
    """
    left, right = gather_rows(left), gather_rows(right)
    rows = len(left)
    if rows < 2:
        return (left.sum() + right.sum() + weight.sum() + temperature) * 0.0
    views = torch.cat([left, right])  # [2B, d]
    logits = torch.tanh(views @ weight @ views.t()) / temperature  # [2B, 2B]
    logits = logits.masked_fill(torch.eye(2 * rows, dtype=torch.bool, device=left.device), -torch.inf)
    other_view = (torch.arange(2 * rows, device=left.device) + rows) % (2 * rows)
    return F.cross_entropy(logits, other_view)


class ViewContrast(nn.Module):
    """InfoNCE between two views of users, in both directions; negatives are the other view of the batch's other users.

    Args:
        width: d, width of the views.
        similarity: ``bilinear``, tanh(x W y') with a learnt W, or ``cosine``.
        temperature: initial value of the learnt temperature.

    Raises:
        ConfigError: the similarity is another one.
    """

    def __init__(self, width: int, similarity: str, temperature: float) -> None:
        super().__init__()
        if similarity not in ("bilinear", "cosine"):
            raise ConfigError(f"contrast_similarity must be bilinear or cosine, not {similarity}")
        bilinear = similarity == "bilinear"
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width))) if bilinear else None
        self.temperature = Temperature(temperature)

    def forward(self, left: Tensor, right: Tensor, users: Tensor) -> Tensor:
        """The mean loss, a scalar, over the rows and both directions; 0 if there are no rows.

        ``left [B, d]`` and ``right [B, d]`` are the views of ``users [B]``; rows of the same user are no negatives.
        """
        left, right, users = (gather_rows(rows) for rows in (left, right, users))
        if self.weight is None:
            similarity = F.normalize(left, dim=1) @ F.normalize(right, dim=1).t()  # [B, B]
        else:
            similarity = torch.tanh(left @ self.weight @ right.t())  # [B, B]
        same = (users.unsqueeze(1) == users) & ~torch.eye(len(users), dtype=torch.bool, device=users.device)
        logits = (similarity / self.temperature()).masked_fill(same, -torch.inf)
        own = logits.diagonal()  # [B]
        losses = 0.5 * (logits.logsumexp(dim=1) + logits.logsumexp(dim=0)) - own  # [B]
        return losses.sum() / max(len(users), 1)


def triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """``max(|anchor - positive| - |anchor - negative| + margin, 0)``, Euclidean: ``[B]`` from three ``[B, d]``."""
    return F.relu(F.pairwise_distance(anchor, positive) - F.pairwise_distance(anchor, negative) + margin)
