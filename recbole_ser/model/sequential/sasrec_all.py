"""SASRec, trained at all positions of a history at once.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, https://arxiv.org/abs/1808.09781.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_ser.model.base import DotProductRecommender
from recbole_ser.model.embeddings import item_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import Dropout, TransformerEncoder, causal, last_state
from recbole_ser.model.losses import sampled_loss
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, TransformerSizes
from recbole_ser.settings.types import LossType
from recbole_ser.workers.rows import gather_rows


class SASRecAll(DotProductRecommender):
    """SASRec with the paper's training; RecBole's, ``SASRec``, has a row for each target and learns its last position.

    The equations are numbered here, for the items i_1, ..., i_n, with vectors v:

    (1) h_1, ..., h_n = Transformer(v_1 + p_1, ..., v_n + p_n), where each position sees those up to itself; each layer
        is A = x + MultiHead(LayerNorm(x)), A + W_2 ReLU(W_1 LayerNorm(A) + b_1) + b_2.
    (2) The logit of item i behind position t: h_t' v_i.
    (3) The loss: that of i_{t+1} behind each position t = 1, ..., n - 1, averaged over all positions of the batch.
    (4) Recommendation: (2) behind the last position.

    A row of training is a user: the latest interaction of the training period and the L before it.  So an interaction
    is learnt even if it is no target, because its user had not searched before, say; and of longer histories the
    earlier part is never seen.

    Faithful to the paper: (1), apart from what follows, to (4); items shared by input and output.

    Adapted to this package:

    - Items are their id and attributes, projected to d.
    - The loss is the softmax over all items, or, as in the paper, ``loss_type: BCE``, against sampled negatives, of
      which the paper takes one for each position.
    - Positions are counted from the oldest item that is seen; published: from the latest.

    Where the published code differs: it normalises what asks, but not what is attended to; items are scaled by the
    square root of d; one more dropout is inside the position-wise network.

    Decided here: a row of a single interaction teaches nothing; a user without history has a state of 0, for whom all
    items score the same; Xavier-normal weights.

    Confidence: high.
    """

    class Settings(DotProductRecommender.Settings, ItemWidths, TransformerSizes):
        loss_type: LossType = setting(
            "how the item behind a position is learnt: CE, the softmax over all items, or BCE or BPR against sampled "
            "negatives", default="CE",
        )  # fmt: skip

    trains_on = "users"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, dropout = settings.hidden_size, settings.dropout_prob
        self.items = item_embedding(settings, dataset)
        self.positions = nn.Embedding(config["MAX_ITEM_LIST_LENGTH"], width)
        self.dropout = Dropout(dropout)
        self.encoder = TransformerEncoder(
            width, settings.n_layers, settings.n_heads, dropout,
            activation=nn.ReLU, attention_dropout=dropout, pre_norm=True,
        )  # fmt: skip
        self.apply(initialise)

    def encode(self, interaction: Any) -> Tensor:
        """(4): the last states, ``[B, d]``."""
        items = interaction[self.ITEM_SEQ]
        return last_state(self.states(items), items != 0)

    def states(self, items: Tensor) -> Tensor:
        """(1): ``[B, T, d]`` of ``items [B, T]``."""
        inputs = self.items(items) + self.positions.weight[: items.shape[1]]
        return self.encoder(self.dropout(inputs), causal(items != 0))

    def rec_losses(self, interaction: Any) -> dict[str, Tensor]:
        items = interaction[self.ITEM_SEQ]  # [B, L + 1]
        following = items[:, 1:]  # [B, L]
        learnt = following != 0
        states, targets = self.states(items[:, :-1])[learnt], following[learnt]  # [P, d], [P]
        if not len(gather_rows(targets)):  # no user of the batch has two interactions
            return {"rec": states.sum()}
        if self.loss_type == "CE":
            return {"rec": self.softmax_loss(states, targets)}  # (3)
        negatives = interaction[self.NEG_ITEM_ID][:, 1:][learnt]  # [P, N]
        logits = self.score(states, torch.cat([targets.unsqueeze(1), negatives], dim=1))  # (2): [P, 1 + N]
        return {"rec": sampled_loss(self.loss_type, logits)}  # (3)
