"""DIEN, which follows the interest in a candidate through a history of interests.

Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019,
https://doi.org/10.1609/aaai.v33i01.33015941.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.embeddings import Mentions, item_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import masked_softmax
from recbole_ser.model.scoring import PairMLP
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, MLPSizes
from recbole_ser.settings.types import Probability, Weight, Widths
from recbole_ser.workers.rows import drawn_for_rows, gather_rows


class Histories(NamedTuple):
    """What is known of each row before there is a candidate; T is the padded length."""

    interests: Tensor  # [B, T, d], h of (1)
    mask: Tensor  # [B, T]
    keys: Tensor  # [B, T, d], h' W of (3)
    inputs: Tensor  # [B, T, 3 d], W h + b of (4), the longest history first
    order: Tensor  # [B], the rows from the longest history to the shortest
    running: list[int]  # for each step that any history has, how many of the histories have it


class DIEN(SearchRecommender):
    """DIEN, which scores each candidate on its own.

    The equations are numbered here, with the items e_t of the history, t = 1 .. T, and the candidate e:

    (1) h_t = GRU(e_t, h_{t-1}) with h_0 = 0: the interests
    (2) L_aux = - 1/P sum [log s(h_t, e_{t+1}) + log(1 - s(h_t, n_{t+1}))] with s(h, x) = sigmoid(MLP_aux([h, x])),
        over all P pairs of successive items of the batch's histories, with a sampled item n_{t+1} for each
    (3) a_t = softmax_t(h_t' W e)
    (4) u_t = sigmoid(W_u h_t + U_u g_{t-1} + b_u), r_t = sigmoid(W_r h_t + U_r g_{t-1} + b_r),
        c_t = tanh(W_c h_t + r_t * (U_c g_{t-1}) + b_c)
    (5) g_t = (1 - a_t u_t) * g_{t-1} + a_t u_t * c_t with g_0 = 0: the interest in e (AUGRU)
    (6) y = MLP([g_T, e])
    (7) L = loss of y + auxiliary_weight L_aux

    (1) does not depend on the candidate, so it is computed once per row, and so are W and b of (4).

    Faithful to the paper: all of (1) to (7), apart from what follows.

    Adapted to this package:

    - Items are their id and attributes, projected to d; the interests are d wide too.
    - There are no features of the user's profile or of the context, which the paper adds to the input of (6).
    - (6) is trained on one positive beside several negatives, as ``loss_type`` says, and gives a logit. CE runs (3) to
      (6) for every item and every row, which takes seconds per step for each thousand items.
    - (2): a negative is drawn for each pair in every step, uniformly from all items that can be targets; it may be
      the item itself, which the paper leaves out. The loss is a mean over the pairs, so that its weight does not
      depend on the length of the histories: the paper adds up the pairs of each row and takes the mean over rows.

    Where public implementations differ (RecBole's):

    - (2): its negatives are drawn once, with the data set; its mean is over positives and negatives, half of ours; its
      network is linear; without any pair its loss is not a number. Here it is 0.
    - (3): the weights come from DIN's network over [e, h_t, e - h_t, e * h_t].
    - (4): the input and the recurrent part have a bias each, and all weights start standard normal.
    - (6): the user's id is an input, too; the paper's profile has fields such as age, and DIN here has no id either.
      There are three layers with Dice; the layers here have ReLU, so that a score depends on no other row.

    Decided here: ReLU in MLP_aux; Xavier-normal weights for each gate, orthogonal recurrent ones, biases of zero; the
    GRU of (1) is PyTorch's, with a bias in its recurrent part too; an empty history has an interest of zero; dropout
    is in the MLP of (6) alone.

    Confidence: high for (1) to (5); medium for the networks of (2) and (6), whose form the paper leaves open.
    """

    class Settings(SearchRecommender.Settings, ItemWidths, MLPSizes):
        auxiliary_weight: Weight = setting("weight of the auxiliary loss; 0: none")
        auxiliary_hidden_size: Widths = setting("widths of the hidden layers of the auxiliary loss's network")
        dropout_prob: Probability = setting("probability of dropout between the layers of the MLP")

    drawn: Tensor  # [B, T - 1], n of (2) for the training step that runs, 0 for padding

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width = settings.hidden_size
        self.auxiliary_weight = settings.auxiliary_weight
        self.items = item_embedding(settings, dataset)
        self.extraction = nn.GRU(width, width, batch_first=True)
        self.attention = nn.Linear(width, width, bias=False)  # W of (3), transposed
        self.evolution = AUGRU(width)
        self.mlp = PairMLP(0, 2 * width, settings.mlp_hidden_size, settings.dropout_prob)
        if self.auxiliary_weight:
            self.auxiliary = PairMLP(width, width, settings.auxiliary_hidden_size, dropout=0.0)
        self.apply(initialise)
        gru = dict(self.extraction.named_parameters())
        initialise_gates(gru["weight_ih_l0"], gru["weight_hh_l0"])
        initialise_gates(self.evolution.input.weight, self.evolution.recurrent.weight)
        nn.init.zeros_(gru["bias_ih_l0"])
        nn.init.zeros_(gru["bias_hh_l0"])

    def draw_mentions(self, interaction: Any) -> list[Mentions]:
        """The negatives of the auxiliary loss, newly drawn."""
        if not self.auxiliary_weight:
            return []
        following = interaction[self.ITEM_SEQ][:, 1:]  # [B, T - 1]
        count, length = following.shape
        self.drawn = drawn_for_rows(
            lambda rows: torch.randint(1, self.target_num, (rows, length), device=following.device), count
        ) * (following != 0)
        drawn = self.drawn.flatten()
        return [Mentions(drawn, drawn[:0])]

    def encode(self, interaction: Any) -> Histories:
        items = interaction[self.ITEM_SEQ]  # [B, T]
        mask = items != 0
        interests, _ = self.extraction(self.items(items))  # (1): [B, T, d]
        order = mask.sum(dim=1).argsort(descending=True, stable=True)  # [B]
        return Histories(
            interests=interests,
            mask=mask,
            keys=self.attention(interests),
            inputs=self.evolution.input(interests.index_select(0, order)),
            order=order,
            running=[rows for rows in mask.sum(dim=0).tolist() if rows],
        )

    def score(self, state: Histories, items: Tensor) -> Tensor:
        targets = self.items(items)  # [B, C, d]
        weights = masked_softmax(targets @ state.keys.transpose(1, 2), state.mask.unsqueeze(1))  # (3): [B, C, T]
        weights = weights.index_select(0, state.order)
        ordered = self.evolution(state.inputs, weights, state.running)  # (4), (5): [B, C, d]
        interest = ordered.index_select(0, state.order.argsort())
        pair = torch.cat([interest, targets], dim=2)  # [B, C, 2 d]
        return self.mlp(targets.new_empty(len(items), 0), pair)  # (6): [B, C]

    def auxiliary_losses(self, interaction: Any, state: Histories) -> dict[str, Tensor]:
        if not self.auxiliary_weight:
            return {}
        has_next = state.mask[:, 1:]  # [B, T - 1]
        following = torch.stack([interaction[self.ITEM_SEQ][:, 1:], self.drawn], dim=2)[has_next]  # [P, 2]
        logits = self.auxiliary(state.interests[:, :-1][has_next], self.items(following))  # [P, 2]
        loss = gather_rows(F.softplus(-logits[:, 0]) + F.softplus(logits[:, 1]))  # [P of all workers]
        return {"auxiliary": loss.sum() / max(len(loss), 1)}  # (2)

    def loss_weights(self) -> dict[str, float]:
        return {"auxiliary": self.auxiliary_weight}


class AUGRU(nn.Module):
    """A GRU whose update gate is multiplied by the weight that attention gives to the step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, 3 * width)  # W and b of (4): of u, r and c
        self.recurrent = nn.Linear(width, 3 * width, bias=False)  # U of (4)

    def forward(self, inputs: Tensor, weights: Tensor, running: list[int]) -> Tensor:
        """The last states of all candidates of each history, ``[B, C, d]``; zeros for an empty one.

        Args:
            inputs: ``[B, T, 3 d]``, ``input`` of the histories, from the longest to the shortest.
            weights: ``[B, C, T]``, the weight of each step under each candidate.
            running: how many histories have a first step, a second one, and so on, up to the longest one's length.
        """
        states = inputs.new_zeros(*weights.shape[:2], self.recurrent.in_features)
        ended: list[Tensor] = []
        steps = zip(running, inputs.unbind(dim=1), weights.unbind(dim=2))  # one gradient for all steps
        for rows, now, weight in steps:
            if rows < len(states):  # the histories that have ended stay as they are
                states, stopped = states.split([rows, len(states) - rows])
                ended.append(stopped)
            states = self._step(states, now[:rows].unsqueeze(1), weight[:rows].unsqueeze(2))
        return torch.cat([states, *reversed(ended)])

    def _step(self, states: Tensor, inputs: Tensor, weights: Tensor) -> Tensor:
        """``[n, C, d]`` from states ``[n, C, d]``, inputs ``[n, 1, 3 d]`` and weights ``[n, C, 1]``."""
        width = states.shape[2]
        gates, inner = self.recurrent(states).split([2 * width, width], dim=2)  # [n, C, 2 d], [n, C, d]
        gates_input, inner_input = inputs.split([2 * width, width], dim=2)  # [n, 1, 2 d], [n, 1, d]
        update, reset = torch.sigmoid(gates_input + gates).chunk(2, dim=2)  # (4): each [n, C, d]
        candidate = torch.tanh(inner_input + reset * inner)  # (4)
        return states + weights * update * (candidate - states)  # (5)


def initialise_gates(inputs: Tensor, recurrent: Tensor) -> None:
    """Xavier-normal and orthogonal weights for each of the three gates, whose weights ``[3 d, d]`` hold together."""
    for gate in inputs.detach().chunk(3):
        nn.init.xavier_normal_(gate)
    for gate in recurrent.detach().chunk(3):
        nn.init.orthogonal_(gate)
