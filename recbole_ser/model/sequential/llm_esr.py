"""LLM-ESR, which reads items by what texts say of them and by who takes them, and lets similar users teach.

Liu et al., "LLM-ESR: Large Language Models Enhancement for Long-tailed Sequential Recommendation", NeurIPS 2024,
https://arxiv.org/abs/2405.20646.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from recbole_ser.data.instances import last_training_interactions
from recbole_ser.model.base import DotProductRecommender
from recbole_ser.model.embeddings import EntityEmbedding, lookup
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import Attention, Dropout, TransformerEncoder, causal, last_state, masked_mean
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import Projected, TransformerSizes
from recbole_ser.settings.types import Layers, Weight
from recbole_ser.workers.rows import gather_rows

USERS_AT_ONCE = 512  # that are encoded, before an epoch
SIMILARITIES_AT_ONCE = 1 << 24  # of users with all others
NOISE = 0.01  # standard deviation of what the texts do not say about the first collaborative vectors


class LLMESR(DotProductRecommender):
    """LLM-ESR on a Transformer.  The equations are numbered here, for a history of the items i_1, ..., i_n:

    (1) The semantic vector of an item: s_i = A_2 (A_1 e_i + b_1) + b_2, with the fixed vector e_i of its text.
    (2) The collaborative vector c_i is learnt.  It starts as the principal components of e_i over all items' texts.
    (3) Both histories, with vectors p of the places: S_t = sqrt(d) s_{i_t} + p_t and C_t = sqrt(d) c_{i_t} + p_t
    (4) C' = Attention(queries S, keys and values C) and S' = Attention(queries C, keys and values S), each with its own
        weights and without a residual connection
    (5) u_c = the last state of f(C'), and u_s that of f(S'), with one Transformer f for both
    (6) The user: u = [u_c, u_s]; the logit of item v: [c_v, s_v]' u
    (7) The teacher of user k: t_k = the mean of u over the N users whose texts are most similar to that of k (cosine),
        by the weights of now, without gradient
    (8) L = L_rec + ``distillation_weight`` L_SD, where L_SD is the mean of (u - t)^2 over rows and dimensions

    Faithful to the paper: (1) to (8), apart from what follows; the same backbone for both views.

    Adapted to this package:

    - The texts and their vectors come from the back-ends that the settings name, and how near they are to the paper's
      is up to these.  A_1 goes from the m dimensions of the vectors to m / 2, as published (1536 to 768), but to d at
      least.
    - A row is one target with the history before it, and the loss is that of ``loss_type``.  The paper's is pairwise,
      its code's BCE with one negative, at every place of a user's training sequence.
    - (7): the teachers' histories are those of the training period, up to the last training interaction.  All users
      are encoded once, at the start of an epoch, so a teacher is at most one epoch old; that costs about a twentieth
      of an epoch.  Published: N users are encoded again for each row of every step.
    - (5): f normalises before each part of a layer, keys and values too, and has d units inside, like JSR's backbone
      here.
    - Attributes in ``load_col`` are not read.

    Where the published code differs:

    - (4), (5): its causal mask is switched off, and (4) never had one, while every place of a sequence is trained to
      give the next item, which the attention can see.  Here no mask could leak the target, which is not in its own
      history; but what a place says should not depend on what came later, so both are causal.
    - (7): its teachers are computed with dropout; here they are not.  It takes the first of the most similar users for
      the user itself, which fails among equal texts; here the user is left out by id.

    Decided here:

    - (2): there are min(d, m, items with text - 1) components.  The other columns, and items without text, start with
      normal noise of standard deviation 0.01, which also tells such items apart.
    - Items without a text share a learnt vector in place of s_i, which starts at zero and is frozen where no target
      needs it.
    - Only users with a text and a training interaction can be teachers.  L_SD leaves out the rows of users without a
      text, who have no teacher, and rows without a history.
    - The similar users are found exactly, once a run, by comparing all users in parts.  Which of equally similar ones
      teach is arbitrary, but the same in every run.
    - A user without history has u = 0, for whom all items score the same.

    Confidence: high for (1) to (6) and (8); medium for (7) once per epoch.
    """

    class Settings(DotProductRecommender.Settings, Projected, TransformerSizes):
        cross_heads: Layers = setting("heads of the attention between both views; they divide hidden_size")
        similar_users: Annotated[int, Field(ge=1, le=1_000)] = setting("N, the number of users who teach one user")
        distillation_weight: Weight = setting("alpha, weight of the distance from the teacher; 0: no teacher")

        @model_validator(mode="after")
        def _cross_heads_divide_the_width(self) -> Self:
            if self.hidden_size % self.cross_heads:
                raise ValueError(
                    f"cross_heads is {self.cross_heads}, which must divide hidden_size, {self.hidden_size}"
                )
            return self

    reads_texts = True
    items: DualEmbedding
    similar: Tensor | None = None  # [user_num, N], the users of (7), 0 for none; found before the first epoch
    learnt: Tensor | None = None  # [user_num, 2 d], u of (7) for all users at the start of the epoch

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, dropout, length = settings.hidden_size, settings.dropout_prob, config["MAX_ITEM_LIST_LENGTH"]
        self.items = DualEmbedding(dataset.item_texts.vectors, dataset.target_num, width)
        self.positions = nn.Embedding(length, width)
        self.dropout = Dropout(dropout)
        self.to_collaborative, self.to_semantic = (Attention(width, settings.cross_heads) for _ in range(2))
        self.encoder = TransformerEncoder(
            width, settings.n_layers, settings.n_heads, dropout,
            activation=nn.ReLU, attention_dropout=dropout, pre_norm=True,
        )  # fmt: skip
        self.apply(initialise)
        self.similar_users, self.distillation_weight = settings.similar_users, settings.distillation_weight
        if self.distillation_weight:
            self.user_texts = dataset.user_texts.vectors
            self.last_events = last_training_interactions(dataset.log, dataset.split)
            # ``read_through`` reads one item more; searches are not looked at.
            self.reader = replace(dataset.history_reader(), max_rec=length - 1, max_search=1, max_clicks=1)

    def encode(self, interaction: Any) -> Tensor:
        """The users' vectors u of (6): ``[B, 2 d]``."""
        return self.after(interaction[self.ITEM_SEQ])

    def after(self, items: Tensor) -> Tensor:
        """(3) to (6): ``[B, 2 d]`` for the histories ``items [B, L]``."""
        exists = items != 0
        scale, places = self.positions.embedding_dim**0.5, self.positions.weight[: items.shape[1]]
        collaborative, semantic = (
            self.dropout(scale * view + places) for view in self.items(items).chunk(2, dim=2)
        )  # (3): each [B, L, d]
        earlier = causal(exists)  # [B, L, L]
        crossed = [
            self.to_collaborative(semantic, earlier, memory=collaborative),
            self.to_semantic(collaborative, earlier, memory=semantic),
        ]  # (4): each [B, L, d]
        states = self.encoder(torch.cat(crossed), earlier.repeat(2, 1, 1))  # [2 B, L, d]
        return torch.cat(last_state(states, exists.repeat(2, 1)).chunk(2), dim=1)  # (5), (6)

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        if self.learnt is None:  # a step outside of an epoch
            self.begin_epoch(0)
        return super().losses(interaction)

    def auxiliary_losses(self, interaction: Any, state: Tensor) -> dict[str, Tensor]:
        if self.similar is None or self.learnt is None:
            return {}
        similar = self.similar[interaction[self.USER_ID]]  # [B, N]
        teacher = masked_mean(self.learnt[similar], similar != 0)  # (7): [B, 2 d]
        taught = (similar != 0).any(dim=1) & (interaction[self.ITEM_SEQ] != 0).any(dim=1)  # [B]
        distance = F.mse_loss(state, teacher, reduction="none").mean(dim=1)  # [B]
        distance, taught = gather_rows(distance), gather_rows(taught.long())
        loss = (distance * taught).sum() / taught.sum().clamp(min=1)
        return {"distillation": loss}  # (8)

    def loss_weights(self) -> dict[str, float]:
        return {"distillation": self.distillation_weight}

    def begin_epoch(self, epoch: int) -> None:
        """Encode all users by the weights of now; they are the teachers of this epoch."""
        if not self.distillation_weight:
            return
        if self.similar is None:
            can_teach = torch.zeros(len(self.user_texts), dtype=torch.bool)
            can_teach[self.reader.log.users[self.last_events].long()] = True
            self.similar = most_similar(self.user_texts.to(self.device), can_teach, self.similar_users)
        self.learnt = self.after_training_period()

    @torch.no_grad()
    def after_training_period(self) -> Tensor:
        """``[user_num, 2 d]``: u of each user after the latest training interaction; zeros for users without any."""
        was_training = self.training
        self.eval()
        vectors = self.positions.weight.new_zeros(len(self.user_texts), self.items.width)
        for last in self.last_events.split(USERS_AT_ONCE):
            items = self.reader.read_through(last)[self.reader.item_list].to(vectors.device)
            vectors[self.reader.log.users[last].long()] = self.after(items)
        self.train(was_training)
        return vectors


class DualEmbedding(EntityEmbedding):
    """The collaborative and the semantic vector of an item, concatenated; zeros for padding.

    Args:
        texts: ``[n, m]``, the fixed vectors of the items' texts by id; zeros where there is no text.
        target_num: ids from this one on are read by nobody.
        width: d, width of each of the two.
    """

    texts: Tensor  # [n, m]
    has_text: Tensor  # [n]

    def __init__(self, texts: Tensor, target_num: int, width: int) -> None:
        super().__init__(len(texts), 2 * width)
        self.register_buffer("texts", texts, persistent=False)
        self.register_buffer("has_text", texts.any(dim=1), persistent=False)
        self.collaborative = nn.Parameter(first_vectors(texts, width))  # c of (2)
        inner = max(texts.shape[1] // 2, width)
        self.first, self.second = nn.Linear(texts.shape[1], inner), nn.Linear(inner, width)  # A_1, A_2
        self.fallback = nn.Parameter(torch.zeros(width))
        self.fallback.requires_grad_(not self.has_text[1:target_num].all())

    def _embed(self, ids: Tensor) -> Tensor:
        # There is nothing between A_1 and A_2, so they are multiplied first: that costs far less than a wide layer.
        weight = self.second.weight @ self.first.weight  # [d, m]
        semantic = F.linear(self.texts[ids], weight, self.second(self.first.bias))  # (1): [U, d]
        semantic = torch.where(self.has_text[ids].unsqueeze(1), semantic, self.fallback)
        both = torch.cat([lookup(self.collaborative, ids), semantic], dim=1)  # [U, 2 d]
        return both * (ids != 0).unsqueeze(1)


def first_vectors(texts: Tensor, width: int) -> Tensor:
    """(2): the first principal components ``[n, width]`` of ``texts [n, m]`` among those that are not zero.

    Noise stands for what is not there: components beyond what the texts have, and all of an item without text.
    """
    table = NOISE * torch.randn(len(texts), width)
    table[0] = 0.0  # padding
    has_text = texts.any(dim=1)
    centred = texts[has_text] - texts[has_text].mean(dim=0)
    count = max(min(width, *centred.shape, len(centred) - 1), 0)
    _, axes = torch.linalg.eigh((centred.t() @ centred).double())  # [m, m], the largest variance last
    axes = axes.flip(1)[:, :count]
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))  # [1, count]
    table[has_text, :count] = centred @ (axes * largest.sign()).float()  # which way an axis points is arbitrary
    return table


def most_similar(texts: Tensor, can_teach: Tensor, count: int) -> Tensor:
    """The users of (7).

    Args:
        texts: ``[U, m]``, vectors of length 1 by user id; zeros for users without text.
        can_teach: ``[U]``, which users may be among the similar ones.
        count: N.

    Returns:
        ``[U, n]``: for each user with a text the n others that have the most similar ones; n is N, or as many as
        there are.  0 stands for none.
    """
    has_text = texts.any(dim=1)
    teachers = (has_text & can_teach.to(texts.device)).nonzero().squeeze(1)  # [V]
    count = min(count, len(teachers))
    similar = torch.zeros(len(texts), count, dtype=torch.int64, device=texts.device)
    columns = texts[teachers].t()  # [m, V]
    for users in has_text.nonzero().squeeze(1).split(max(1, SIMILARITIES_AT_ONCE // max(len(teachers), 1))):
        cosine = (texts[users] @ columns).masked_fill_(users.unsqueeze(1) == teachers, -torch.inf)  # [P, V]
        best = cosine.topk(count, dim=1)
        similar[users] = teachers[best.indices] * best.values.isfinite()
    return similar
