"""KAR, which gives a recommender what a language model said about the user and about the item.

Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", RecSys 2024,
https://arxiv.org/abs/2306.10933.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.catalogue import PER_EVENT
from recbole_ser.model.embeddings import item_embedding, lookup
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.scoring import ActivationUnit, PairMLP
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, MLPSizes
from recbole_ser.settings.types import Layers, Probability, Width, Widths

ITEMS_AT_ONCE = 1 << 12  # through the experts, when all items go through them


class UserSide(NamedTuple):
    """What is known of each row before there is a candidate; T is the padded length."""

    states: Tensor  # [B, T, d]
    mask: Tensor  # [B, T]
    knowledge: Tensor  # [B, d], r_u of (3)


class KAR(SearchRecommender):
    """KAR on DIN, which scores each candidate on its own.

    The equations are numbered here, with the fixed vectors p_u of the user's text and f_i of an item's, the candidate t
    and the items h_j of the history:

    (1) An expert: E(x) = relu(W_2 relu(W_1 x + b_1) + b_2), from the width of the text vectors through
        ``expert_hidden_size`` to d.
    (2) ``shared_experts`` experts take both kinds of vectors, and ``own_experts`` more belong to users and as many to
        items.
    (3) r_u = sum_e g_e E_e(p_u) over the shared experts and the users' own, with the gate g = softmax(V_u p_u)
    (4) r_i = sum_e g_e E_e(f_i) over the shared experts and the items' own, with the gate g = softmax(V_i f_i)
    (5) w_j = MLP_a([t, h_j, t - h_j, t * h_j]), with Dice between its layers, and u = sum_j w_j h_j, as in DIN
    (6) y = MLP([r_u, t, u, r_t]), with Dice between its layers

    Faithful to the paper: (1) to (4), with ReLU behind both layers of an expert, and (6): a backbone with r_u and r_i
    as two more fields of its input.  The texts' vectors are never trained, and everything else is, end to end.

    Adapted to this package:

    - The texts and their vectors come from the back-ends that the settings name, and how near they are to the paper's
      is up to these.  One text of a user tells of the whole training period.  In training it therefore tells of the
      row's own target and of what came after it, too; the paper's tell of events before the first one trained on.
      With ``texts.until: 0.5`` the texts tell of the first half, so that half of the rows are as in the paper.
    - (5) and (6) are DIN's, as this package has it: items are their id and attributes, projected to d; there is no
      user id; one positive beside several negatives, and logits.
    - The learning rate is constant.  (Published: a cosine whose length is miscounted, so that it hardly falls.)

    Where the published code differs: users and items without a text are left out of its data; the epoch is chosen by
    the test set.

    Decided here:

    - Users and items without a text have a learnt vector each, one for all such users and one for all such items, in
      place of r_u and r_i.  They start at zero and are frozen where nobody needs them.
    - Gates have no bias. Each layer of each expert starts Xavier normal, with biases of zero; no dropout inside.

    Confidence: high for (1) to (4) and (6); low for published numbers, which depend on the language model.
    """

    catalogue_block = PER_EVENT

    class Settings(SearchRecommender.Settings, ItemWidths, MLPSizes):
        shared_experts: Layers = setting("experts that read the texts of users and of items")
        own_experts: Layers = setting("experts that read the texts of users alone, and as many for items alone")
        expert_hidden_size: Width = setting("width inside each expert")
        attention_hidden_size: Widths = setting("widths of the hidden layers of the activation unit")
        dropout_prob: Probability = setting("probability of dropout between the layers of the MLP")

    reads_texts = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, shared = settings.hidden_size, settings.shared_experts
        sizes = (shared, settings.own_experts, settings.expert_hidden_size, width)
        self.items = item_embedding(settings, dataset)
        self.unit = ActivationUnit(width, settings.attention_hidden_size)
        self.mlp = PairMLP(width, 3 * width, settings.mlp_hidden_size, settings.dropout_prob, dice=True)
        self.shared = Experts(shared, dataset.item_texts.vectors.shape[1], settings.expert_hidden_size, width)
        self.of_users = Adaptor(dataset.user_texts.vectors, dataset.user_num, *sizes)
        self.of_items = Adaptor(dataset.item_texts.vectors, dataset.target_num, *sizes)
        self.apply(initialise)

    def encode(self, interaction: Any) -> UserSide:
        items = interaction[self.ITEM_SEQ]
        knowledge = self.of_users(interaction[self.USER_ID], self.shared)  # (3): [B, d]
        return UserSide(self.items(items), items != 0, knowledge)

    def score(self, state: UserSide, items: Tensor) -> Tensor:
        targets = self.items(items)  # [B, C, d]
        interest = self.unit(state.states, state.mask, targets)  # (5): [B, C, d]
        pair = torch.cat([targets, interest, self.item_knowledge(items)], dim=2)  # [B, C, 3 d]
        return self.mlp(state.knowledge, pair)  # (6): [B, C]

    def item_knowledge(self, items: Tensor) -> Tensor:
        """r_i of (4), ``[B, C, d]``, for ``items [B, C]``; each distinct item goes through the experts once."""
        if self.training or torch.is_grad_enabled():
            ids, places = torch.unique(items, return_inverse=True)  # [U], [B, C]
            return lookup(self.of_items(ids, self.shared), places)
        return lookup(self.cached("item_knowledge", self._knowledge_of_all_items), items)

    def _knowledge_of_all_items(self) -> Tensor:
        parts = torch.arange(self.n_items, device=self.of_items.vectors.device).split(ITEMS_AT_ONCE)
        return torch.cat([self.of_items(ids, self.shared) for ids in parts])  # [n_items, d]


class Experts(nn.Module):
    """Networks with two layers beside each other, all on the same input: (1).

    Args:
        count: E, number of networks.
        before, inner, after: widths of the input, behind the first layer and of the output.
    """

    def __init__(self, count: int, before: int, inner: int, after: int) -> None:
        super().__init__()
        self.first_weight = nn.Parameter(_xavier(count, inner, before))
        self.first_bias = nn.Parameter(torch.zeros(count, inner))
        self.second_weight = nn.Parameter(_xavier(count, after, inner))
        self.second_bias = nn.Parameter(torch.zeros(count, after))

    def forward(self, texts: Tensor) -> Tensor:
        """``[n, E, after]`` from ``texts [n, before]``."""
        hidden = F.linear(texts, self.first_weight.flatten(0, 1), self.first_bias.flatten()).relu()  # [n, E inner]
        hidden = hidden.unflatten(1, self.first_bias.shape).transpose(0, 1)  # [E, n, inner]
        output = torch.baddbmm(self.second_bias.unsqueeze(1), hidden, self.second_weight.transpose(1, 2))
        return output.relu().transpose(0, 1)


class Adaptor(nn.Module):
    """What the texts of users, or of items, say to the recommender: (3) or (4).

    Args:
        vectors: ``[n, m]``, the fixed vectors of the texts by id; zeros where there is no text.
        known: ids from this one on are never asked for in training.
        shared: number of experts that users and items share.
        own: number of experts of this kind of entities alone.
        inner: width inside an expert.
        width: d, width of the result.
    """

    vectors: Tensor  # [n, m]
    has_text: Tensor  # [n]

    def __init__(self, vectors: Tensor, known: int, shared: int, own: int, inner: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("has_text", vectors.any(dim=1), persistent=False)
        self.experts = Experts(own, vectors.shape[1], inner, width)
        self.gate = nn.Linear(vectors.shape[1], shared + own, bias=False)
        self.fallback = nn.Parameter(torch.zeros(width))
        self.fallback.requires_grad_(not self.has_text[1:known].all())

    def forward(self, ids: Tensor, shared: Experts) -> Tensor:
        """``[n, d]`` for the entities ``ids [n]``."""
        texts = self.vectors[ids]  # [n, m]
        opinions = torch.cat([shared(texts), self.experts(texts)], dim=1)  # [n, shared + own, d]
        weights = torch.softmax(self.gate(texts), dim=1)  # [n, shared + own]
        mixed = (weights.unsqueeze(1) @ opinions).squeeze(1)  # [n, d]
        return torch.where(self.has_text[ids].unsqueeze(1), mixed, self.fallback)


def _xavier(count: int, after: int, before: int) -> Tensor:
    """Xavier-normal weights ``[count, after, before]`` of as many layers."""
    return torch.stack([nn.init.xavier_normal_(torch.empty(after, before)) for _ in range(count)])
