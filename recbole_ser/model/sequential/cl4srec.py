"""CL4SRec, which also learns that two altered versions of one history belong together.

Xie et al., "Contrastive Learning for Sequential Recommendation", ICDE 2022, https://arxiv.org/abs/2010.14395.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.base import DotProductRecommender
from recbole_ser.model.embeddings import item_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import Dropout, TransformerEncoder, causal, last_state
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, TransformerSizes
from recbole_ser.settings.types import Share, Weight
from recbole_ser.workers.rows import drawn_for_rows, gather_rows


class CL4SRec(DotProductRecommender):
    """CL4SRec.  The equations are numbered here, for a history of the items i_1, ..., i_n, with vectors v:

    (1) The user: f(i) = h_n, the last state of h = Transformer(v_1 + p_1, ..., v_n + p_n), where each position sees
        those up to itself.
    (2) The logit of an item: f(i)' v.
    (3) Crop: a stretch of floor(eta n) items, at least one, is kept, with eta = ``crop_share``.
    (4) Mask: floor(gamma n) positions, with gamma = ``mask_share``, have the vector m instead of their item's.
    (5) Reorder: a stretch of floor(beta n) items, with beta = ``reorder_share``, is shuffled.
    (6) Two operators are drawn from (3) to (5) for each history, which make two views of it.  With their vectors z and
        z' of (1), the contrast is -log exp(z' z) / (exp(z' z) + sum over the views y of other users exp(z' y)),
        averaged over all views of the batch.
    (7) The loss: that of the next item + ``contrast_weight`` times the contrast.

    Where an operator works on a stretch or on positions, all are equally likely.

    Faithful to the paper: (1), (3) to (7), the inner product in (6), without a temperature.

    Adapted to this package:

    - Items are their id and attributes, projected to d.
    - A row is one target with the history before it, so (7) has one position per row, and (6) has views of each of
      these histories; the paper has one row per user.  Rows of the same user are therefore no negatives of each other.
    - The loss of the next item is that of ``loss_type``; the paper takes a softmax over the sampled negatives.
    - Initial weights are Xavier normal (published: truncated normal), those of the attention's input uniform; there is
      no schedule of the learning rate.

    Where public implementations differ (there are none by the authors): RecBole-DA forces two different operators, and
    leaves out histories of one item; SELFRec takes one operator for a whole run, with cosine and a temperature.

    Decided here:

    - The two operators of (6) are independent, so both may be the same: the paper draws both from one set and does not
      say that they differ.
    - (1) normalises before each part of a layer, keys and values too, and has d units inside, like JSR's backbone here.
    - A user without history has f = 0, for whom all items score the same, and takes no part in (6).
    - Without (6), or with no position to mask, m is frozen.

    Confidence: high, but medium for the details of (1) and for the draw of the operators.
    """

    class Settings(DotProductRecommender.Settings, ItemWidths, TransformerSizes):
        crop_share: Share = setting("eta, the share of a history that a crop keeps; at least one item")
        mask_share: Share = setting("gamma, the share of a history that is masked; 0: none")
        reorder_share: Share = setting("beta, the share of a history that is shuffled; 0: none")
        contrast_weight: Weight = setting("lambda, the weight of the contrast of views; 0: none")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.contrast_weight = settings.contrast_weight
        self.shares = [settings.crop_share, settings.mask_share, settings.reorder_share]
        width, dropout = settings.hidden_size, settings.dropout_prob
        self.items = item_embedding(settings, dataset)
        self.positions = nn.Embedding(config["MAX_ITEM_LIST_LENGTH"], width)
        self.dropout = Dropout(dropout)
        self.encoder = TransformerEncoder(
            width, settings.n_layers, settings.n_heads, dropout,
            activation=nn.ReLU, attention_dropout=dropout, pre_norm=True,
        )  # fmt: skip
        self.apply(initialise)
        self.mask = nn.Parameter(torch.randn(width) * width**-0.5)  # m
        self.mask.requires_grad_(bool(self.contrast_weight and settings.mask_share))

    def encode(self, interaction: Any) -> Tensor:
        """The users' vectors f of (1): ``[B, d]``."""
        items = interaction[self.ITEM_SEQ]
        return self.last_state(items, self.items(items))

    def last_state(self, items: Tensor, vectors: Tensor) -> Tensor:
        """(1): ``[B, d]`` from ``items [B, L]`` and their ``vectors [B, L, d]``."""
        exists = items != 0
        states = self.encoder(self.dropout(vectors + self.positions.weight[: items.shape[1]]), causal(exists))
        return last_state(states, exists)

    def auxiliary_losses(self, interaction: Any, state: Tensor) -> dict[str, Tensor]:
        if not self.contrast_weight:
            return {}
        items, users = interaction[self.ITEM_SEQ], interaction[self.USER_ID]  # [B, L], [B]
        has_history = (items != 0).any(dim=1)
        users = users[has_history]  # [B']
        items, masked = self.augment(items[has_history])  # [2B', L]
        views = torch.where(masked.unsqueeze(2), self.mask, self.items(items))  # [2B', L, d]
        left, right = (gather_rows(view) for view in self.last_state(items, views).chunk(2))  # [B' of all workers, d]
        return {"contrast": contrast(torch.cat([left, right]), gather_rows(users).repeat(2))}

    def loss_weights(self) -> dict[str, float]:
        return {"contrast": self.contrast_weight}

    def augment(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Apply one of (3) to (5) twice to each row of ``items [B, L]``, none of them empty.

        Returns:
            The items of the views ``[V, L]``, V = 2 B, the second ones behind all first ones, and which of their
            positions are masked ``[V, L]``.
        """
        rows, width = items.shape

        def drawn(draw: Callable[[tuple[int, ...]], Tensor], numbers: int) -> Tensor:
            of_rows = drawn_for_rows(lambda count: draw((count, 2, numbers)), rows)  # [B, 2, numbers]
            return torch.cat(of_rows.unbind(dim=1))  # [V, numbers]

        operator = drawn(lambda shape: torch.randint(3, shape, device=items.device), 1)  # [V, 1]
        where = drawn(lambda shape: torch.rand(shape, device=items.device), 1)  # [V, 1]
        noise = drawn(lambda shape: torch.rand(shape, device=items.device), width)  # [V, L]
        items = items.repeat(2, 1)
        length = (items != 0).sum(dim=1, keepdim=True)  # [V, 1]
        slot = torch.arange(width, device=items.device)  # [L]
        crop, mask, reorder = (operator == number for number in range(3))
        shares = torch.tensor(self.shares, dtype=torch.float64, device=items.device)  # [3]
        size = (shares[operator] * length).long().maximum(crop.long())  # [V, 1]; a crop keeps at least one item
        start = (where * (length - size + 1)).long()  # [V, 1]: of the stretch
        inside = (slot >= start) & (slot < start + size)  # [V, L]

        rank = noise.masked_fill(slot >= length, 2.0).argsort(dim=1).argsort(dim=1)  # [V, L]
        # Sorted by this, the items of a stretch change places among themselves, as their keys lie between its ends.
        key = torch.where(reorder & inside, start - 0.5 + size * noise, slot)  # [V, L]
        source = torch.where(crop, (slot + start).clamp(max=len(slot) - 1), key.argsort(dim=1))  # [V, L]
        exists = slot < torch.where(crop, size, length)  # [V, L]
        return items.gather(1, source) * exists, mask & (rank < size)


def contrast(views: Tensor, users: Tensor) -> Tensor:
    """(6): a scalar from ``views [2B, d]`` of ``users [2B]``, both views of a row B places apart; 0 without rows."""
    partner = torch.arange(len(views), device=views.device).roll(len(views) // 2)  # [2B]
    logits = views @ views.t()  # [2B, 2B]
    excluded = users.unsqueeze(1) == users  # [2B, 2B]: views of the same user, and the view itself,
    excluded.scatter_(1, partner.unsqueeze(1), False)  # but not the other one of the same row
    log_shares = F.log_softmax(logits.masked_fill(excluded, -torch.inf), dim=1)
    return -log_shares.gather(1, partner.unsqueeze(1)).sum() / max(len(views), 1)
