"""BERT4Rec, which learns a history in both directions by guessing the items that are hidden in it.

Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer", CIKM
2019, https://doi.org/10.1145/3357384.3357895.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.base import DotProductRecommender
from recbole_ser.model.embeddings import item_embedding, lookup
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import Dropout, TransformerEncoder
from recbole_ser.model.losses import sampled_loss
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, TransformerSizes
from recbole_ser.settings.types import LossType, Share
from recbole_ser.workers.rows import drawn_for_rows


class BERT4Rec(DotProductRecommender):
    """BERT4Rec.  The equations are numbered here, for the events i_1, ..., i_T of a user:

    (1) the cloze: each position is masked with ``mask_prob``, and at least one of a row; with ``last_item_prob`` it is
        the last position of the row instead, and no other;
    (2) the input: x_t = LayerNorm(v_t + p_t), where v_t is the vector of i_t, or the vector m at a masked position, and
        p_t that of the place, counted from the oldest;
    (3) the states: h = Transformer(x), where every position sees all; each layer is A = LayerNorm(x + MultiHead(x)),
        LayerNorm(A + W_2 GELU(W_1 A + b_1) + b_2), with 4 d units inside;
    (4) the logit of item i at position t: LayerNorm(GELU(W h_t + b))' v_i + b_i;
    (5) the loss: softmax cross entropy over all items, averaged over the masked positions of the batch;
    (6) recommendation: m stands behind the history, and (4) is taken there.

    A row of training is a user: the latest interaction of the training period and the L before it, with other masks in
    every epoch.  An epoch is a small part of what it is for models with a row for every target, so it takes more of
    them.

    Faithful to the paper: (1), (3), (4) except its LayerNorm, (5), (6), items shared by input and output.  A masked
    item is always replaced by m.

    From the public code, without an equation in the paper: LayerNorm and dropout in (2), LayerNorm in (4), the average
    over the positions of a batch in (5), where the paper's is over those of a user, and the share of rows with the last
    item masked, one in eleven.

    Adapted to this package:

    - Items are their id and attributes, projected to d.
    - In (6) the latest L items are kept, and m is one more, as the other models see L items; published: L - 1 and m.
    - ``loss_type: BCE`` or ``BPR`` takes that loss at the masked positions, each against negatives of its own.
    - Initial weights are Xavier normal (published: truncated normal), those of the attention's input uniform.  There is
      neither a schedule of the learning rate nor, by default, a limit on the gradient.

    Where RecBole's implementation differs: it learns from one row per target, and of these from the history alone, so
    that the last item of training is never learnt; the first position of a history counts for nothing in the loss; a
    row may be without a mask; and behind a short history it drops the oldest item to make room for m.

    Decided here: positions are masked independently of each other (published: a fixed number of each row); one rate of
    dropout for all places (published: two).

    Confidence: high.
    """

    class Settings(DotProductRecommender.Settings, ItemWidths, TransformerSizes):
        loss_type: LossType = setting(
            "how a masked item is learnt: CE, the softmax over all items, or BCE or BPR against sampled negatives",
            default="CE",
        )
        mask_prob: Share = setting("probability of masking a position in training; at least one of a row is masked")
        last_item_prob: Share = setting("probability that a row of training has its last item masked, and no other")

    trains_on = "users"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.mask_prob, self.last_item_prob = settings.mask_prob, settings.last_item_prob
        width, dropout = settings.hidden_size, settings.dropout_prob
        self.items = item_embedding(settings, dataset)
        self.positions = nn.Embedding(config["MAX_ITEM_LIST_LENGTH"] + 1, width)
        self.input_norm = nn.LayerNorm(width, eps=1e-8)
        self.dropout = Dropout(dropout)
        self.encoder = TransformerEncoder(
            width, settings.n_layers, settings.n_heads, dropout,
            inner=4 * width, activation=nn.GELU, attention_dropout=dropout,
        )  # fmt: skip
        self.output = nn.Linear(width, width)
        self.output_norm = nn.LayerNorm(width, eps=1e-8)
        self.apply(initialise)
        self.mask = nn.Parameter(torch.randn(width) * width**-0.5)  # m
        self.item_bias = nn.Parameter(torch.zeros(self.items.count, 1))  # b_i

    def encode(self, interaction: Any) -> Tensor:
        """(6): the head's output at m, ``[B, d + 1]``."""
        items = F.pad(interaction[self.ITEM_SEQ], (0, 1))  # [B, L + 1]
        length = (items != 0).sum(dim=1, keepdim=True)  # [B, 1]
        behind = torch.arange(items.shape[1], device=items.device) == length  # [B, L + 1]
        return self.head(self.states(items, behind)[behind])

    def item_vectors(self, items: Tensor) -> Tensor:
        """``[..., d + 1]``: v_i and, behind it, b_i; the states have a 1 there."""
        return torch.cat([self.items(items), lookup(self.item_bias, items)], dim=-1)

    def states(self, items: Tensor, masked: Tensor) -> Tensor:
        """(2), (3): ``[B, T, d]`` from ``items [B, T]``, where those that are ``masked [B, T]`` are not seen."""
        vectors = torch.where(masked.unsqueeze(2), self.mask, self.items(items))  # [B, T, d]
        inputs = self.dropout(self.input_norm(vectors + self.positions.weight[: items.shape[1]]))
        return self.encoder(inputs, (items != 0) | masked)

    def head(self, states: Tensor) -> Tensor:
        """``[P, d + 1]`` from ``states [P, d]``: what is multiplied with ``item_vectors`` in (4)."""
        return F.pad(self.output_norm(F.gelu(self.output(states))), (0, 1), value=1.0)

    def rec_losses(self, interaction: Any) -> dict[str, Tensor]:
        items = interaction[self.ITEM_SEQ]  # [B, T], T = L + 1
        masked = self.cloze(items != 0)  # [B, T]
        place = masked.flatten().nonzero().squeeze(1)  # [P]: the masked positions among B T
        states = self.head(lookup(self.states(items, masked).flatten(0, 1), place))  # [P, d + 1]
        hidden = items.flatten()[place]  # [P]
        if self.loss_type == "CE":
            return {"rec": self.softmax_loss(states, hidden)}  # (5)
        negatives = interaction[self.NEG_ITEM_ID].flatten(0, 1)[place]  # [P, N]
        logits = self.score(states, torch.cat([hidden.unsqueeze(1), negatives], dim=1))  # [P, 1 + N]
        return {"rec": sampled_loss(self.loss_type, logits)}

    def cloze(self, exists: Tensor) -> Tensor:
        """(1): ``[B, T]``, which of the positions that ``exists [B, T]`` are masked."""
        count, length = exists.shape
        drawn = drawn_for_rows(lambda rows: torch.rand(rows, length + 1, device=exists.device), count)  # [B, T + 1]
        chance = drawn[:, :length].masked_fill(~exists, 2.0)  # [B, T]
        least = chance.amin(dim=1, keepdim=True)  # [B, 1]: this position is masked in any case
        cloze = chance <= least.clamp(min=self.mask_prob)  # [B, T]
        last = torch.arange(exists.shape[1], device=exists.device) == exists.sum(dim=1, keepdim=True) - 1  # [B, T]
        only_last = drawn[:, length:] < self.last_item_prob  # [B, 1]
        return torch.where(only_last, last, cloze) & exists
