"""USER: searching and browsing as one sequence of behaviours, at the levels of a session and of the whole history.

Yao et al., "USER: A Unified Information Search and Recommendation Model based on Integrated Behavior Sequence",
CIKM 2021.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.model.base import JointRecommender
from recbole_ser.model.embeddings import (
    AttributeEmbedding,
    distinct,
    item_embedding,
    lookup,
    query_embedding,
    user_embedding,
)
from recbole_ser.model.initialisation import initialise
from recbole_ser.model.layers import TransformerEncoder, TransformerLayer, masked_softmax, merged_places
from recbole_ser.model.losses import Temperature
from recbole_ser.settings.declaration import setting
from recbole_ser.settings.model import ItemWidths, QueryWidths, TransformerSizes, UserWidths
from recbole_ser.settings.types import StartTemperature, Width

ITEM, SEARCH, INTENT = range(3)  # the types of the elements of a sequence


class UserState(NamedTuple):
    intents: Tensor  # [B, 2, d]: the intents of the session and of the history
    past: Tensor  # [B, T, d]: the states of the events within their sessions
    past_mask: Tensor  # [B, T]: true for the events of past sessions


class USER(JointRecommender):
    """USER on ids.  The equations are numbered here; T = L + S are the events of a row, both histories merged by time:

    (1) A search with clicks: L = tanh(Q A D'), Q [W, d] its query's words and D [C, d] its clicked items; the words
        weighted by the softmax of L's row sums and the items by that of its column sums, beside each other, projected.
    (2) A session: a Transformer over its events; the present one has the intent behind them, which is the user's
        vector for recommendation and the query's for search.
    (3) The history: a Transformer over the states that (2) gives the events of past sessions and over the present
        session's intent.
    (4) A candidate is also seen in the light of the history: its vector takes the intent's place in (3).
    (5) Score: an MLP of the four cosines of {intent of the session, of the history} and {item, item by (4)}.

    Faithful to the paper and its public code: one sequence of both behaviours, co-attention of a query with what was
    clicked under it (1), the intent token and what it is for each task (2), past sessions through the Transformer of
    the present one (2), the history level with the past sessions' events and the session's intent (3), candidates in
    the light of the history (4), the four cosines (5), one model trained on instances of both tasks.

    Adapted:

    - Items are ids with attributes here, not texts: D holds clicked items instead of their words, and the text encoder
      is left out.  A query is its id beside the mean of its words, which is this package's convention for every model;
      the words of (1) are those words' vectors, projected.
    - (1): a search without clicks is its query's vector; that is also the one "word" of a query without words.  Where
      a search came from is not read.
    - (2): sessions come from ``session_gap``; without it all events belong to the present session, and at the level of
      the history there is the intent alone.  Past sessions share one pass, with a mask that keeps sessions apart.  The
      public code sends the present session through the Transformer twice; here ``n_layers`` says how deep it is.
    - (3)-(4): one layer, read only at the token behind the past states.  What a layer gives at a token depends on no
      other token's output, so this is exactly the Transformer over [past; token], for the intent and for each of C
      candidates, at the cost of C queries over T + 1 keys; whether the past sees the token makes no difference.  Of a
      deeper Transformer it would be exact only if the past could not see the token, and there is no such option.
    - (5): the public code has Linear and tanh, for a softmax over candidates, and features made by hand.  Cross entropy
      of single candidates needs logits of any size: the cosines are divided by a learnt temperature, and the MLP's
      output is not squashed.
    - The Transformers are those of SESRec: LayerNorm behind each part, d wide inside, LeakyReLU.
    - Loss: binary cross entropy, as for every model of this package, of both tasks jointly, the search one times
      ``search_weight``, instead of joint training followed by fine-tuning for either task.

    Where the public code has a flaw that is not reproduced: in (4) it pairs the candidates of a row with the history of
    another row, as it repeats histories in another order than candidates.

    Decided here: positions count events back from the intent and are added, like the type of each event, to the inputs
    of (2) (the public code makes both and adds neither).

    Confidence: high in (1)-(5) as the original's structure, low to medium in what others who compare with USER on ids
    did, which is not public.
    """

    class Settings(JointRecommender.Settings, ItemWidths, QueryWidths, UserWidths, TransformerSizes):
        mlp_hidden_size: Width = setting("width of the MLP that makes a score of four cosines")
        temperature: StartTemperature = setting("by which the cosines are divided, where it starts")

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.Settings.of(config)
        width, heads, dropout = settings.hidden_size, settings.n_heads, settings.dropout_prob
        self.items = item_embedding(settings, dataset)
        self.queries = query_embedding(settings, dataset)
        self.users = user_embedding(settings, dataset)
        self.user_intent = nn.Linear(self.users.width, width)
        self.ages = nn.Embedding(config["MAX_ITEM_LIST_LENGTH"] + config["max_search_length"] + 1, width)
        self.types = nn.Embedding(3, width)

        self.words = nn.Linear(settings.term_embedding_size, width)
        self.affinity = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width)))  # A
        self.search_record = nn.Linear(2 * width, width)
        self.session = TransformerEncoder(width, settings.n_layers, heads, dropout)
        self.history = TransformerLayer(width, heads, dropout)
        self.temperature = Temperature(settings.temperature)
        inner = settings.mlp_hidden_size
        self.mlp = nn.Sequential(nn.Linear(4, inner), nn.ReLU(), nn.Linear(inner, 1))
        self.apply(initialise)

    def encode(self, interaction: Any) -> UserState:
        return self.intents(interaction, self.user_intent(self.users(interaction[self.USER_ID])))

    def encode_search(self, interaction: Any) -> UserState:
        return self.intents(interaction, self.queries(interaction["query_id"]))

    def intents(self, interaction: Any, intent: Tensor) -> UserState:
        """The state after (2) and (3), from the intent ``[B, d]`` of the task."""
        events, mask, sessions = self.behaviours(interaction)
        intent = intent + self.ages.weight[0] + self.types.weight[INTENT]
        tokens = torch.cat([events, intent.unsqueeze(1)], dim=1)  # [B, T + 1, d]
        number, valid = F.pad(sessions, (0, 1)), F.pad(mask, (0, 1), value=True)  # [B, T + 1]
        together = (number.unsqueeze(2) == number.unsqueeze(1)) & valid.unsqueeze(1)  # [B, T + 1, T + 1]
        states = self.session(tokens, together)  # (2)
        past, of_session = states[:, :-1], states[:, -1:]  # [B, T, d], [B, 1, d]
        past_mask = mask & (sessions > 0)
        of_history = appended(self.history, of_session, past, past_mask)  # (3): [B, 1, d]
        return UserState(torch.cat([of_session, of_history], dim=1), past, past_mask)

    def behaviours(self, interaction: Any) -> tuple[Tensor, Tensor, Tensor]:
        """The vectors ``[B, T, d]`` of the events, a mask of valid ones ``[B, T]``, and their sessions ``[B, T]``.

        Items come before searches.  The Transformers know the order of the events from their ages alone: 1 is the age
        of the last event before the target.
        """
        items, queries = interaction[self.ITEM_SEQ], interaction["search_query_list"]
        place = interaction["search_place_list"]  # [B, S] how many items come before
        mask = torch.cat([items != 0, queries != 0], dim=1)  # [B, T]
        merged = torch.cat(merged_places(place, queries != 0, items.shape[1]), dim=1)  # [B, T]
        age = (mask.sum(dim=1, keepdim=True) - merged).clamp(min=0)  # [B, T]
        kind = self.types.weight[[ITEM] * items.shape[1] + [SEARCH] * queries.shape[1]]  # [T, d]
        events = torch.cat([self.items(items), self.search_records(interaction)], dim=1)  # [B, T, d]
        sessions = torch.zeros_like(age)
        if "item_session_list" in interaction:
            sessions = torch.cat([interaction["item_session_list"], interaction["search_session_list"]], dim=1)
        return events + lookup(self.ages.weight, age) + kind, mask, sessions

    def search_records(self, interaction: Any) -> Tensor:
        """The search records of (1): ``[B, S, d]``."""
        queries, clicks = interaction["search_query_list"], interaction["search_click_list"]
        records = self.queries(queries)  # [B, S, d]
        clicked = (clicks != 0).any(dim=2)  # [B, S], true P times
        words, word_mask = self.words_of(queries[clicked])  # [P, W, d], [P, W]
        items, item_mask = self.items(clicks[clicked]), clicks[clicked] != 0  # [P, C, d], [P, C]
        affinity = torch.tanh(words @ (items @ self.affinity.t()).transpose(1, 2))  # L [P, W, C]
        affinity = affinity * (word_mask.unsqueeze(2) & item_mask.unsqueeze(1))
        of_words = masked_softmax(affinity.sum(dim=2), word_mask).unsqueeze(1) @ words  # [P, 1, d]
        of_items = masked_softmax(affinity.sum(dim=1), item_mask).unsqueeze(1) @ items  # [P, 1, d]
        both = self.search_record(torch.cat([of_words, of_items], dim=2).squeeze(1))  # [P, d]
        return records.index_put(clicked.nonzero(as_tuple=True), both.to(records.dtype))

    def words_of(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The words ``[P, W, d]`` of ``queries [P]``, and a mask ``[P, W]`` in which every query has a valid word."""
        terms = cast(AttributeEmbedding, self.queries.attributes[0])
        values, places = distinct(queries, self.queries.count)  # each query's words are projected once
        ids = terms.values[values].long()  # [U, W - 1]
        words = self.words(lookup(terms.table.weight, ids))  # [U, W - 1, d]
        words = torch.cat([words, self.queries(values).unsqueeze(1)], dim=1)  # [U, W, d]
        wordless = ~(ids != 0).any(dim=1, keepdim=True)
        mask = torch.cat([ids != 0, wordless], dim=1)  # [U, W]
        rows = places[queries]  # [P]
        return lookup(words.flatten(1), rows).unflatten(1, words.shape[1:]), mask[rows]

    def score(self, state: UserState, items: Tensor) -> Tensor:
        targets = self.items(items)  # [B, C, d]
        aware = appended(self.history, targets, state.past, state.past_mask)  # (4): [B, C, d]
        both = F.normalize(torch.stack([targets, aware], dim=2), dim=3)  # [B, C, 2, d]
        cosines = both.flatten(1, 2) @ F.normalize(state.intents, dim=2).transpose(1, 2)  # [B, 2 C, 2]
        cosines = cosines.view(*items.shape, 4)  # [B, C, 4]
        return self.mlp(cosines / self.temperature()).squeeze(2)  # (5): [B, C]

    def score_search(self, state: UserState, queries: Tensor, items: Tensor) -> Tensor:
        """The same as for recommendation: the query is the intent that the state was encoded with."""
        return self.score(state, items)


def appended(layer: TransformerLayer, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    """The output of ``layer`` at each of ``tokens [B, C, d]`` when it alone is appended to ``memory [B, T, d]``.

    A token sees the memory where ``mask [B, T]`` is true, and itself.
    """
    attention = layer.attention

    def heads(states: Tensor) -> Tensor:
        return states.unflatten(2, (attention.heads, -1)).transpose(1, 2)  # [B, heads, any, d / heads]

    query, key, value = (heads(part) for part in attention.input(tokens).chunk(3, dim=2))
    _, memory_key, memory_value = (heads(part) for part in attention.input(memory).chunk(3, dim=2))
    own = (query * key).sum(dim=3, keepdim=True)  # [B, heads, C, 1]
    scores = torch.cat([query @ memory_key.transpose(2, 3), own], dim=3)  # [B, heads, C, T + 1]
    visible = F.pad(mask, (0, 1), value=True)[:, None, None]  # [B, 1, 1, T + 1]
    weights = attention.dropout(masked_softmax(scores * query.shape[3] ** -0.5, visible))
    mixed = weights[..., :-1] @ memory_value + weights[..., -1:] * value  # [B, heads, C, d / heads]
    attended = attention.output(mixed.transpose(1, 2).flatten(2))  # [B, C, d]
    states = layer.attention_norm(tokens + layer.dropout(attended))
    return layer.network_norm(states + layer.dropout(layer.network(states)))
