"""Query-SeqRec, which treats queries and items as the tokens of one sequence.

He et al., "Query-Aware Sequential Recommendation", CIKM 2022.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.data.relations import Relation
from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.catalogue import PRODUCT
from recbole_ser.model.embeddings import Mentions, item_embedding, lookup, query_embedding
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import Dropout, TransformerEncoder, causal, merged_places
from recbole_ser.model.losses import inner_product_softmax, sampled_loss
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, QueryWidths, TransformerSizes
from recbole_ser.settings.types import Share


class Tokens(NamedTuple):
    """Rows of tokens in order of time, right-padded with 0; each token is an item or a query."""

    items: Tensor  # [B, T]; 0: not an item
    queries: Tensor  # [B, T]; 0: not a query
    predicted: Tensor  # [B, T]: the item where it has to be predicted; 0 elsewhere


class UserState(NamedTuple):
    tokens: Tokens
    states: Tensor  # [B, T, d]
    last: Tensor  # [B, d] the state at the last token


class QuerySeqRec(SearchRecommender):
    """Query-SeqRec.  The equations are numbered here:

    (1) a token: its item's or query's vector + a vector of its place, counted from the oldest + one of its type;
    (2) the states: a causal Transformer that normalises before each part;
    (3) the logit of an item: the inner product of its vector with the state at the last token;
    (4) the loss: softmax cross entropy over all items, at every position whose next token is an item;
    (5) augmentation: in training each token of the input is replaced with ``augmentation_prob``: an item, with
        ``graph_prob``, by one clicked under a query it was clicked under, else by any item; a query, with
        ``graph_prob``, by one under which the next item was clicked, else by any query.  What has to be predicted
        stays.

    Tokens: a search is its query, followed by the items clicked under it; an interaction is its item.  A click is
    left out where the row has the same item among its interactions at that time or later: it is the same event logged
    twice, or what became the interaction.  So a row has up to L + S (1 + C) tokens.

    Loss positions: in the published training each user is one sequence, in which every item is predicted once, from
    what came before it.  Here the rows of a user are prefixes of that sequence, so each predicts what no earlier row
    did: its target, from its last token; the clicks behind its last interaction, each from the token before it (in a
    row without interactions these are all its clicks); and its last interaction where a query stands directly before
    it, for a search at the very time of an interaction is unknown when that interaction is a target.  Of a search that
    was known by then, this last position is a repetition.

    ``loss_type: BCE`` or ``BPR`` takes that loss against the row's negatives at each of these positions instead.

    Adapted to this package:

    - A query is one token in the embedding every model here has (its id beside the mean of its words, projected); the
      published one is the mean of up to five words from the table of the items.
    - Events are merged by time; the published data come with their queries in place.
    - Augmentation draws from the clicks and searches of the training period; the published graph files are missing.
    - Initial weights are Xavier normal (published: uniform), those of the attention's input uniform.

    Where the published code differs from the paper's Transformer and this does not: it has no residual connection
    around the attention, normalises only the query side of it, adds the residual of the position-wise network twice,
    never trains biases and LayerNorm, and of a sequence longer than its window trains only what follows a query.

    Decided here: dropout behind the attention, too; what is replaced with ``graph_prob`` but has no relation is
    replaced by any item or query; the target of a row is not the next item of its last query, which so tells nothing of
    it; in the whole softmax, items that were only ever clicked are included, for they have to be predicted too.  A row
    without any event is one padding token, with what such rows have in common as its state.

    Confidence: high for the model and its loss, which the public code shows; medium for the augmentation; low for how
    the papers that compare with it merged queries and items, of which they say nothing.
    """

    searched: Tensor  # [distinct queries of the training period]

    catalogue_block = PRODUCT

    class Settings(SearchRecommender.Settings, ItemWidths, QueryWidths, TransformerSizes):
        augmentation_prob: Share = setting("probability of replacing a token in training; 0: none")
        graph_prob: Share = setting("probability that a replacement is a related token")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        self.augmentation_prob = settings.augmentation_prob
        self.graph_prob = settings.graph_prob
        width, dropout = settings.hidden_size, settings.dropout_prob
        longest = config["MAX_ITEM_LIST_LENGTH"] + config["max_search_length"] * (1 + config["max_clicks_per_search"])

        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        self.positions = nn.Embedding(longest, width)
        self.types = nn.Embedding(2, width)  # item, query
        self.dropout = Dropout(dropout)
        self.encoder = TransformerEncoder(
            width, settings.n_layers, settings.n_heads, dropout,
            inner_dropout=dropout, activation=nn.ReLU, attention_dropout=dropout, pre_norm=True,
        )  # fmt: skip

        clicks = dataset.training_clicks
        self.target_num = dataset.target_num
        self.queries_of_item = Relation(clicks.items, clicks.queries, self.items.count)
        self.items_of_query = Relation(clicks.queries, clicks.items, self.queries.count)
        self.register_buffer("searched", dataset.training_search_queries.unique().long(), persistent=False)
        self.apply(initialise)

    def undividable(self) -> str | None:
        return (
            "the replacements of a batch are drawn together, unless augmentation_prob is 0"
            if self.augmentation_prob
            else None
        )

    def losses(self, interaction: Any) -> dict[str, Tensor]:
        """The losses of the base class, on augmented tokens."""
        tokens = self.merge(interaction)
        if self.training and self.augmentation_prob:
            tokens = self.augment(tokens)
        with self.embedded_once(self.mentions(interaction), Mentions(tokens.items, tokens.queries)):
            return {"rec": self.main_loss(interaction, self.encode_tokens(tokens))}

    def mentions(self, interaction: Any) -> Mentions:
        mentioned = super().mentions(interaction)
        return mentioned._replace(items=self.catalogue(mentioned.items)) if self.loss_type == "CE" else mentioned

    def catalogue(self, like: Tensor) -> Tensor:
        """Every item id, padding included: ``[n_items]``."""
        return torch.arange(self.items.count, device=like.device)

    def encode(self, interaction: Any) -> UserState:
        return self.encode_tokens(self.merge(interaction))

    def merge(self, interaction: Any) -> Tokens:
        """Merge both histories into one sequence of tokens; T is the length of the longest in the batch.

        First, clicks are dropped that the row has among its interactions from then on, and the items to predict besides
        the target are marked: clicks behind the last interaction, and the last interaction itself.  Then every possible
        token gets a number that rises with time, and sorting by it puts the tokens in order, padding last.  In the
        merged sequence, the last interaction stays marked only if a query stands directly before it.
        """
        items, queries = interaction[self.ITEM_SEQ], interaction["search_query_list"]  # [B, L], [B, S]
        clicks, place = interaction["search_click_list"], interaction["search_place_list"]  # [B, S, C], [B, S]
        slot = torch.arange(items.shape[1], device=items.device)  # [L]
        place = place.unsqueeze(2)  # [B, S, 1]: how many interactions come before the search
        again = (slot >= place).unsqueeze(2) & (items[:, None, None] == clicks.unsqueeze(3))  # [B, S, C, L]
        clicks = clicks * ~again.any(dim=3)
        length = (items != 0).sum(dim=1, keepdim=True)  # [B, 1]
        new = clicks * (place == length.unsqueeze(2))  # [B, S, C]
        latest = items * (slot == length - 1)  # [B, L]

        # The time of a token: the number of events before it, then its number among the tokens of its event.
        stride = 1 + clicks.shape[2]
        item_place, search_place = merged_places(place.squeeze(2), queries != 0, items.shape[1])  # [B, L], [B, S]
        item_time, query_time = item_place * stride, search_place.unsqueeze(2) * stride  # [B, L], [B, S, 1]
        click_time = query_time + torch.arange(1, stride, device=items.device)  # [B, S, C]

        time = torch.cat([item_time, query_time.flatten(1), click_time.flatten(1)], dim=1)  # [B, L + S + S C]
        all_items = torch.cat([items, torch.zeros_like(queries), clicks.flatten(1)], dim=1)  # [B, L + S + S C]
        all_queries = F.pad(queries, (items.shape[1], clicks[0].numel()))  # [B, L + S + S C]
        all_new = torch.cat([latest, torch.zeros_like(queries), new.flatten(1)], dim=1)  # [B, L + S + S C]
        exists = (all_items + all_queries) != 0
        longest = max(int(exists.sum(dim=1).max()), 1)  # T
        order = time.masked_fill(~exists, torch.iinfo(time.dtype).max).argsort(dim=1)[:, :longest]  # [B, T]
        tokens = Tokens(all_items.gather(1, order), all_queries.gather(1, order), all_new.gather(1, order))
        is_latest = (order < items.shape[1]) & (tokens.predicted != 0)  # [B, T]
        behind_query = F.pad(tokens.queries[:, :-1] != 0, (1, 0))  # [B, T]
        return tokens._replace(predicted=tokens.predicted * (~is_latest | behind_query))

    def encode_tokens(self, tokens: Tokens) -> UserState:
        is_query, exists = tokens.queries != 0, (tokens.items + tokens.queries) != 0  # [B, T]
        vectors = torch.where(is_query.unsqueeze(2), self.queries(tokens.queries), self.items(tokens.items))
        vectors = vectors + self.positions.weight[: exists.shape[1]] + lookup(self.types.weight, is_query.long())  # (1)
        states = self.encoder(self.dropout(vectors), causal(exists))  # (2): [B, T, d]
        last = _last(exists)  # [B, 1]
        return UserState(tokens, states, states.take_along_dim(last.unsqueeze(2), dim=1).squeeze(1))

    def score(self, state: UserState, items: Tensor) -> Tensor:
        return (self.items(items) @ state.last.unsqueeze(2)).squeeze(2)  # (3): [B, C]

    def score_catalogue(self, state: UserState, items: Tensor) -> Tensor:
        return state.last @ self.items(items).t()  # (3): [B, n]

    def main_loss(self, interaction: Any, state: UserState) -> Tensor:
        labels = self.labels(interaction, state.tokens)  # [B, T]
        row, position = labels.nonzero(as_tuple=True)  # [P]
        states = lookup(state.states.flatten(0, 1), row * labels.shape[1] + position)  # [P, d]
        labels = labels[row, position]  # [P]
        if self.loss_type == "CE":
            return inner_product_softmax(states, self.items(self.catalogue(labels)[1:]), labels - 1)  # (4)
        choice = torch.cat([labels.unsqueeze(1), interaction[self.NEG_ITEM_ID][row]], dim=1)  # [P, 1 + N]
        return sampled_loss(self.loss_type, self.score(state._replace(last=states), choice))

    def labels(self, interaction: Any, tokens: Tokens) -> Tensor:
        """``[B, T]``: the item that each position has to predict; 0: none."""
        labels = F.pad(tokens.predicted[:, 1:], (0, 1))  # [B, T]
        last = _last((tokens.items + tokens.queries) != 0)  # [B, 1]
        return labels.scatter(1, last, interaction[self.POS_ITEM_ID].unsqueeze(1))

    def augment(self, tokens: Tokens) -> Tokens:
        """Replace some items and queries by others, as (5) says."""
        items, queries = tokens.items, tokens.queries  # [B, T]
        chance = torch.rand(2, *items.shape, device=items.device)
        replaced, by_graph = chance[0] < self.augmentation_prob, chance[1] < self.graph_prob  # [B, T]
        other_item = torch.randint_like(items, 1, self.target_num)
        related_item = _related(self.items_of_query, _related(self.queries_of_item, items))
        other_item = torch.where(by_graph & (related_item != 0), related_item, other_item)
        items = torch.where(replaced & (items != 0), other_item, items)
        if not len(self.searched):
            return tokens._replace(items=items)
        other_query = self.searched[torch.randint_like(queries, len(self.searched))]
        related_query = _related(self.queries_of_item, _next_item(tokens.items))
        other_query = torch.where(by_graph & (related_query != 0), related_query, other_query)
        return tokens._replace(items=items, queries=torch.where(replaced & (queries != 0), other_query, queries))


def _last(exists: Tensor) -> Tensor:
    """``[B, 1]``: the last position of each row of ``exists [B, T]``, 0 where there is none."""
    return (exists.sum(dim=1, keepdim=True) - 1).clamp(min=0)


def _next_item(items: Tensor) -> Tensor:
    """``[B, T]``: the first item of ``items [B, T]`` at or behind each position, 0 where there is none."""
    length = items.shape[1]
    slot = torch.arange(length, device=items.device).where(items != 0, length)  # [B, T]
    following = slot.flip(1).cummin(dim=1).values.flip(1)  # [B, T]
    return F.pad(items, (0, 1)).gather(1, following)


def _related(relation: Relation, ids: Tensor) -> Tensor:
    """One related id for each of ``ids [B, T]``, drawn at random; 0 if it has none."""
    return relation.sample(ids, 1, random=True)[0].squeeze(-1)  # [B, T]
