"""UnifiedSSR: one Siamese encoder of product and query sequences, pre-trained on both tasks, tuned on one.

Xie et al., "UnifiedSSR: A Unified Framework of Sequential Search and Recommendation", WWW 2024.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recbole_ser.model.base import JointRecommender, SearchRecommender
from recbole_ser.model.embeddings import item_embedding, query_embedding, user_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import Dropout, TransformerEncoder, causal, mean_weights
from recbole_ser.model.losses import positive_first_loss
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, QueryWidths, TransformerSizes, UserWidths
from recbole_ser.settings.types import Probability, Weight
from recbole_ser.workers.rows import gather_rows

SHARPNESS = 32.0  # slope at a window's border: a quarter of its initial radius takes membership from 0.5 to 0.73


class RecState(NamedTuple):
    products: Tensor  # [B, T, d]: the state of the start position, then one per product
    mask: Tensor  # [B, T]


class SearchState(NamedTuple):
    products: Tensor  # [B, T, d]: states of what was clicked before each search
    queries: Tensor  # [B, T, d]: states of the searches, the present one last
    mask: Tensor  # [B, T]


class UnifiedSSR(JointRecommender):
    """UnifiedSSR.  The equations are numbered here; P is a sequence of products and Q one of queries:

    (1) Input: sqrt(d) (e + u) + position, with e the product's or query's vector, u the user's, sinusoidal positions.
    (2) enc(X, Y): layers of causal self-attention, causal attention to the inputs of Y, position-wise network.
    (3) Recommendation: the state at the last position of enc(P, P), dotted with sqrt(d) times the candidate's vector.
    (4) Search: likewise enc(P, Q) and enc(Q, P) with P shifted right by one, so that position t has product t - 1 and
        query t; the scores are added with weights w and 1 - w, and so are the two losses.
    (5) Segments: of each half of a sequence the sum of its states, in which states inside a window count twice.  A
        linear map of the half's mean state places the window.
    (6) Session loss: |cos| of the two segments; for search this of P and of Q, minus the mean over segments of
        cos(P's segment, Q's segment).
    (7) Pre-training: both tasks with their session losses; then fine-tuning: recommendation with its session loss.

    Faithful to the paper and its public code: (1)-(4), one encoder for both sides and both tasks, layers that normalise
    first and a last LayerNorm, w kept in [0.1, 0.9]; of (5)-(6) two segments, the doubled weight inside windows and the
    terms of the loss, weighted 0.1; (7).

    Where the public code has flaws that are not reproduced:

    - (2): it masks no future, so that a position sees its own target; here every attention is causal.
    - (2): it gives each layer the first input, so that only the last counts; here each goes on from the one before.
    - (5): its windows enter through comparisons, get no gradient, and stay in the middle half of each half.

    Adapted:

    - An instance is a target with the histories before it, so the loss is at the last position, not at all of them:
      each earlier target is an instance of its own, and with causal attention the state it is predicted from is the
      same there, as long as the history is not cut.
    - (3): both histories may be empty, so P begins with a start position that has no product (e = 0), as P in (4) does.
    - (4): P and Q are the search history, each query with its first clicked item (none: e = 0), and the present query
      behind them.
    - A query is its id beside the mean of its words, this package's convention for every model; items have their
      attributes, and users too, projected to d.
    - (7): in one run.  Epochs before ``pretrain_epochs`` pre-train, and the loss of the search task is multiplied by
      ``search_weight`` (the original mixes batches of either task).  What only searches train keeps still in
      fine-tuning.
    - Optimiser and learning rate are this package's (the original: Adam with Noam's warm-up over 4000 steps), and so
      are the initial weights (Xavier normal; the original: uniform) and LayerNorm (the original: unbiased variance, and
      the small constant is added to the deviation).
    - Negatives are this package's: the original draws any item but the target, all alike.

    Decided here:

    - (5): the window is soft.  With places running from 0 to 1, that of half k has its centre at 1/4 or 3/4 plus
      tanh(.) / 4, the radius sigmoid(.) / 4 and the membership sigmoid(32 (radius - distance)); at zero outputs of the
      linear map it is the middle half of the half, as published.
    - (5): a segment is a sum; in the public code it is a mean, which has the same cosines.
    - (5): windows shape the session loss alone; the public code also doubles the states inside them for the scores.
    - (6): rows with fewer than two positions are left out; the start of (3) is in no segment.
    - (4): w is 0.1 + 0.8 sigmoid(.); at the end of a clamped range it would get no gradient.

    Confidence: high in (1)-(4) and (7), medium in (5)-(6).
    """

    positions: Tensor

    class Settings(JointRecommender.Settings, ItemWidths, QueryWidths, UserWidths, TransformerSizes):
        attention_dropout_prob: Probability = setting("probability of dropout of the attention weights")
        pretrain_epochs: Annotated[int, Field(ge=0, le=1_000_000)] = setting(
            "epochs on both tasks before recommendation is tuned alone"
        )
        session_weight: Weight = setting("weight of the session losses; 0: none")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, heads, dropout = settings.hidden_size, settings.n_heads, settings.dropout_prob
        self.pretrain_epochs: int = settings.pretrain_epochs
        self.pretraining = True
        self.session_weight: float = settings.session_weight
        self.scale = width**0.5
        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        self.users = user_embedding(settings, dataset)
        self.user_projection = nn.Linear(self.users.width, width)
        longest = 1 + max(config["MAX_ITEM_LIST_LENGTH"], config["max_search_length"])
        self.register_buffer("positions", sinusoids(longest, width), persistent=False)
        self.input_dropout = Dropout(dropout)
        self.encoder = TransformerEncoder(
            width, settings.n_layers, heads, dropout, cross=True, pre_norm=True, inner=2 * width,
            activation=nn.ReLU, attention_dropout=settings.attention_dropout_prob,
        )  # fmt: skip
        self.balance = nn.Parameter(torch.zeros(()))
        self.window = nn.Linear(width, 2) if self.session_weight else None
        self.apply(initialise)

    # --- phases -----------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        self.pretraining = epoch < self.pretrain_epochs

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        """The losses of the current phase of (7)."""
        if self.pretraining:
            return super().losses(interaction)
        return SearchRecommender.losses(self, interaction)  # without the search instances

    # --- recommendation ---------------------------------------------------------------------------------------------

    def encode(self, interaction: Any) -> RecState:
        products = interaction[self.ITEM_SEQ]  # [B, L]
        mask = F.pad(products != 0, (1, 0), value=True)  # [B, T], T = L + 1
        vectors = F.pad(self.items(products), (0, 0, 1, 0))  # [B, T, d]
        inputs, visible = self.inputs(vectors, interaction), causal(mask)
        return RecState(self.encoder(inputs, visible, inputs, visible), mask)  # (2)

    def score(self, state: RecState, items: Tensor) -> Tensor:
        return self.match(state.products, state.mask, items)

    def auxiliary_losses(self, interaction: Any, state: RecState) -> dict[str, Tensor]:
        if self.window is None:
            return {}
        mask = state.mask[:, 1:]  # [B, L]
        apart = self.likeness(self.segments(state.products[:, 1:], mask))  # [B]
        return {"session": mean_of_long(apart, mask)}

    def loss_weights(self) -> dict[str, float]:
        return {"session": self.session_weight, "search_session": self.session_weight}

    # --- search -----------------------------------------------------------------------------------------------------

    def encode_search(self, interaction: Any) -> SearchState:
        searched, clicked = interaction["search_query_list"], interaction["search_click_list"][:, :, 0]  # [B, S]
        behind = (searched != 0).sum(dim=1, keepdim=True)  # [B, 1]
        queries = F.pad(searched, (0, 1)).scatter(1, behind, interaction["query_id"].unsqueeze(1))  # [B, T], T = S + 1
        mask = queries != 0
        products = self.items(clicked) * (clicked != 0).unsqueeze(2)  # [B, S, d]
        of_products = self.inputs(F.pad(products, (0, 0, 1, 0)), interaction)  # [B, T, d]
        of_queries, visible = self.inputs(self.queries(queries), interaction), causal(mask)
        return SearchState(
            self.encoder(of_products, visible, of_queries, visible),  # (2): [B, T, d]
            self.encoder(of_queries, visible, of_products, visible),
            mask,
        )

    def score_search(self, state: SearchState, queries: Tensor, items: Tensor) -> Tensor:
        """The scores of (4); the query is part of the state."""
        weight = self.product_weight()
        of_products = self.match(state.products, state.mask, items)  # [B, C]
        return weight * of_products + (1 - weight) * self.match(state.queries, state.mask, items)

    def search_losses(self, interaction: Any) -> dict[str, Tensor]:
        state, items = self.encode_search(interaction), self.training_items(interaction)
        weight = self.product_weight()
        of_products = positive_first_loss(self.match(state.products, state.mask, items))
        of_queries = positive_first_loss(self.match(state.queries, state.mask, items))
        losses = {"search": weight * of_products + (1 - weight) * of_queries}  # (4)
        if self.window is not None:
            products, queries = (self.segments(side, state.mask) for side in (state.products, state.queries))
            between = F.cosine_similarity(products, queries, dim=2).mean(dim=1)  # [B]
            apart = self.likeness(products) + self.likeness(queries) - between  # (6): [B]
            losses["search_session"] = mean_of_long(apart, state.mask)
        return losses

    def product_weight(self) -> Tensor:
        """The weight w of (4), a scalar."""
        return 0.1 + 0.8 * torch.sigmoid(self.balance)

    # --- both -------------------------------------------------------------------------------------------------------

    def inputs(self, vectors: Tensor, interaction: Any) -> Tensor:
        """The inputs of (1), ``[B, T, d]``, from the vectors of products or queries ``[B, T, d]``."""
        user = self.user_projection(self.users(interaction[self.USER_ID]))  # [B, d]
        scaled = self.scale * (vectors + user.unsqueeze(1))  # [B, T, d]
        return self.input_dropout(scaled + self.positions[: vectors.shape[1]])

    def match(self, states: Tensor, mask: Tensor, items: Tensor) -> Tensor:
        """The scores of (3), ``[B, C]``, from the last valid one of ``states [B, T, d]``."""
        last = (mask.sum(dim=1) - 1)[:, None, None].expand(-1, 1, states.shape[2])  # [B, 1, d]
        return self.scale * (self.items(items) @ states.gather(1, last).transpose(1, 2)).squeeze(2)

    def segments(self, states: Tensor, mask: Tensor) -> Tensor:
        """The segments of (5), ``[B, 2, d]``, from ``states [B, T, d]``, valid where ``mask [B, T]`` is true."""
        assert self.window is not None
        count = mask.sum(dim=1, keepdim=True).clamp(min=1)  # [B, 1]
        place = ((torch.arange(mask.shape[1], device=mask.device) + 0.5) / count).unsqueeze(1)  # [B, 1, T]
        halves = torch.cat([place < 0.5, place >= 0.5], dim=1) & mask.unsqueeze(1)  # [B, 2, T]
        shift, size = self.window(mean_weights(halves, states.dtype) @ states).unbind(dim=2)  # [B, 2], [B, 2]
        centre = (shift.new_tensor([0.25, 0.75]) + torch.tanh(shift) / 4).unsqueeze(2)  # [B, 2, 1]
        radius = (torch.sigmoid(size) / 4).unsqueeze(2)  # [B, 2, 1]
        inside = torch.sigmoid(SHARPNESS * (radius - (place - centre).abs())) * mask.unsqueeze(1)  # [B, 2, T]
        return (halves + inside) @ states

    @staticmethod
    def likeness(segments: Tensor) -> Tensor:
        """|cos| ``[B]`` of the two segments of each row of ``segments [B, 2, d]``."""
        return F.cosine_similarity(segments[:, 0], segments[:, 1], dim=1).abs()


def mean_of_long(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of ``values [B]`` over the rows with two or more positions in ``mask [B, T]``; 0 if there are none."""
    long = gather_rows((mask.sum(dim=1) > 1).long()) > 0
    return (mean_weights(long, values.dtype) * gather_rows(values)).sum()


def sinusoids(length: int, width: int) -> Tensor:
    """Sine and cosine of place / 10000^(2i / d), alternating: ``[length, width]`` (Vaswani et al., NIPS 2017, 3.5)."""
    rate = 10000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(length).unsqueeze(1) * rate  # [length, width / 2]
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width].float()
