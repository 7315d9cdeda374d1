"""SESRec written down as plainly as PyTorch allows: the yardstick of ``training_step.py``.

Equations and decisions are those of ``recbole_ser.model.search_aware.sesrec``; how it is computed is the published
recipe: rows are assembled one by one from Python lists, padded and collated; every (query, click) pair of the batch is
scored against all alignment negatives; each view has its own attention; the loss is taken of sigmoids; Adam is dense.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Sizes(NamedTuple):
    users: int
    items: int
    queries: int
    terms: int
    sources: int
    width: int = 32
    query_id_width: int = 16
    term_width: int = 16
    history: int = 15
    searches: int = 15
    clicks: int = 1
    words: int = 15
    heads: int = 4
    negatives: int = 4
    alignment_negatives: int = 1024


class Logs(NamedTuple):
    """Logs as Python lists and dictionaries."""

    histories: list[list[int]]  # items of each user, oldest first
    searches: list[list[int]]  # sessions of each user, oldest first
    sessions: list[dict[str, Any]]  # query, source and clicks of each session
    words: list[list[int]]  # of each query
    targets: list[tuple[int, int, int]]  # user, length of the history and of the search history before the target
    seen: list[set[int]]  # training items of each user


def padded(values: list[int], length: int) -> list[int]:
    return values[:length] + [0] * (length - len(values))


class PlainDataset(Dataset):
    """One training row per target."""

    def __init__(self, logs: Logs, sizes: Sizes) -> None:
        self.logs, self.sizes = logs, sizes

    def __len__(self) -> int:
        return len(self.logs.targets)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        logs, sizes = self.logs, self.sizes
        user, rec_count, search_count = logs.targets[index]
        target = logs.histories[user][rec_count]
        rec = logs.histories[user][:rec_count][-sizes.history :]
        queries, sources, clicks, words = [], [], [], []
        for session in logs.searches[user][:search_count][-sizes.searches :]:
            queries.append(logs.sessions[session]["query"])
            sources.append(logs.sessions[session]["source"])
            clicks.append(padded(logs.sessions[session]["clicks"], sizes.clicks))
            words.append(padded(logs.words[queries[-1]], sizes.words))
        missing = sizes.searches - len(queries)
        clicks += [[0] * sizes.clicks] * missing
        words += [[0] * sizes.words] * missing
        return {
            "user": torch.tensor(user),
            "items": torch.tensor([target, *self.negatives(user, target)]),
            "rec": torch.tensor(padded(rec, sizes.history)),
            "queries": torch.tensor(padded(queries, sizes.searches)),
            "sources": torch.tensor(padded(sources, sizes.searches)),
            "clicks": torch.tensor(clicks),
            "words": torch.tensor(words),
        }

    def negatives(self, user: int, target: int) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < self.sizes.negatives:
            item = random.randint(1, self.sizes.items - 1)
            if item != target and item not in self.logs.seen[user]:
                chosen.append(item)
        return chosen

    def alignment_negatives(self) -> dict[str, Tensor]:
        count = self.sizes.alignment_negatives
        queries = [random.choice(self.logs.sessions)["query"] for _ in range(count)]
        return {
            "negative_items": torch.tensor([random.randint(1, self.sizes.items - 1) for _ in range(count)]),
            "negative_queries": torch.tensor(queries),
            "negative_words": torch.tensor([padded(self.logs.words[query], self.sizes.words) for query in queries]),
        }


def batches(dataset: PlainDataset, batch_size: int) -> Iterator[dict[str, Tensor]]:
    for batch in DataLoader(dataset, batch_size, shuffle=True):
        yield {**batch, **dataset.alignment_negatives()}


class Side(NamedTuple):
    """One history of each row: T positions."""

    states: Tensor  # [B, T, d]
    weight: Tensor  # [B, T]
    views: Tensor  # [B, 3, T]


def repeat(values: Tensor, count: int) -> Tensor:
    return values.repeat_interleave(count, dim=0)


class PlainEncoder(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(width, eps=1e-8)
        self.network = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width))
        self.network_norm = nn.LayerNorm(width, eps=1e-8)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        mixed, _ = self.attention(states, states, states, key_padding_mask=~mask, need_weights=False)
        states = self.attention_norm(states + self.dropout(mixed))
        return self.network_norm(states + self.dropout(self.network(states)))


class PlainSESRec(nn.Module):
    def __init__(self, sizes: Sizes, dropout: float, alpha: float, beta: float, margin: float) -> None:
        super().__init__()
        self.alpha, self.beta, self.margin = alpha, beta, margin
        width = sizes.width
        self.user = nn.Embedding(sizes.users, width)
        self.item = nn.Embedding(sizes.items, width)
        self.query = nn.Embedding(sizes.queries, sizes.query_id_width)
        self.term = nn.Embedding(sizes.terms, sizes.term_width)
        self.source = nn.Embedding(sizes.sources, width)
        self.item_projection = nn.Linear(width, width)
        self.query_projection = nn.Linear(sizes.query_id_width + sizes.term_width, width)
        self.rec_position = nn.Embedding(sizes.history, width)
        self.search_position = nn.Embedding(sizes.searches, width)
        self.rec_encoder = PlainEncoder(width, sizes.heads, dropout)
        self.search_encoder = PlainEncoder(width, sizes.heads, dropout)
        self.affinity = nn.Parameter(torch.empty(width, width))
        self.search_vote = nn.Parameter(torch.empty(1, width))
        self.rec_vote = nn.Parameter(torch.empty(1, width))
        self.rec_target = nn.Parameter(torch.empty(width, width))
        self.search_target = nn.Parameter(torch.empty(width, width))
        self.alignment = nn.Parameter(torch.empty(width, width))
        self.raw_temperature = nn.Parameter(torch.tensor(0.0))
        self.mlp = nn.Sequential(
            nn.Linear(8 * width, 200), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(200, 80), nn.ReLU(), nn.Dropout(dropout), nn.Linear(80, 1),
        )  # fmt: skip

    def embed_items(self, items: Tensor) -> Tensor:
        return self.item_projection(self.item(items))

    def embed_queries(self, queries: Tensor, words: Tensor) -> Tensor:
        present = (words != 0).unsqueeze(-1)
        mean = (self.term(words) * present).sum(-2) / present.sum(-2).clamp(min=1)
        return self.query_projection(torch.cat([self.query(queries), mean], dim=-1))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        user, rec, search, queries, clicks = self.encode(batch)
        positive = self.predict(rec, search, user, batch["items"][:, 0])
        count = batch["items"].shape[1] - 1
        repeated = [Side(*[repeat(value, count) for value in side]) for side in (rec, search)]
        negative = self.predict(*repeated, repeat(user, count), batch["items"][:, 1:].reshape(-1))
        labels = torch.cat([torch.ones_like(positive), torch.zeros_like(negative)])
        losses = {"rec": F.binary_cross_entropy(torch.cat([positive, negative]), labels)}
        losses["alignment"] = self.alpha * self.align(batch, queries, clicks, batch["clicks"] != 0)
        losses["contrast"] = self.beta * (self.contrast(rec) + self.contrast(search))
        return losses

    def score_pairs(self, batch: dict[str, Tensor]) -> Tensor:
        """Probabilities ``[n]``; each row of the batch is one (user, candidate) pair with its own histories."""
        user, rec, search, _, _ = self.encode(batch)
        return self.predict(rec, search, user, batch["items"][:, 0])

    def encode(self, batch: dict[str, Tensor]) -> tuple[Tensor, Side, Side, Tensor, Tensor]:
        rec_mask, search_mask = batch["rec"] != 0, batch["queries"] != 0
        clicked = (batch["clicks"] != 0).unsqueeze(-1)
        queries = self.embed_queries(batch["queries"], batch["words"])
        clicks = self.embed_items(batch["clicks"])
        click_mean = (clicks * clicked).sum(2) / clicked.sum(2).clamp(min=1)
        rec = self.rec_encoder(self.embed_items(batch["rec"]) + self.rec_position.weight, rec_mask)
        search = queries + self.search_position.weight + click_mean + self.source(batch["sources"])
        search = self.search_encoder(search, search_mask)

        zeroed_rec, zeroed_search = rec * rec_mask.unsqueeze(-1), search * search_mask.unsqueeze(-1)
        affinity = torch.tanh(search @ self.affinity @ rec.transpose(1, 2))  # [B, S, R]
        search_score = (self.rec_vote @ zeroed_rec.transpose(1, 2) @ affinity.transpose(1, 2)).squeeze(1)
        rec_score = (self.search_vote @ zeroed_search.transpose(1, 2) @ affinity).squeeze(1)
        search_weight = torch.softmax(search_score.masked_fill(~search_mask, -1e12), dim=1)
        rec_weight = torch.softmax(rec_score.masked_fill(~rec_mask, -1e12), dim=1)
        rec_views = torch.stack([rec_mask, *self.split(rec_weight, rec_mask)], dim=1)
        search_views = torch.stack([search_mask, *self.split(search_weight, search_mask)], dim=1)
        sides = Side(rec, rec_weight, rec_views), Side(search, search_weight, search_views)
        return self.user(batch["user"]), *sides, queries, clicks

    def split(self, weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        threshold = 1 / mask.sum(dim=1, keepdim=True)
        similar, dissimilar = mask & (weight > threshold), mask & (weight <= threshold)
        return (
            torch.where(similar.any(dim=1, keepdim=True), similar, mask),
            torch.where(dissimilar.any(dim=1, keepdim=True), dissimilar, mask),
        )

    def predict(self, rec: Side, search: Side, user: Tensor, item: Tensor) -> Tensor:
        target = self.embed_items(item)  # [n, d]
        parts = [self.attend(rec.states, view, target, self.rec_target) for view in rec.views.unbind(1)]
        parts += [self.attend(search.states, view, target, self.search_target) for view in search.views.unbind(1)]
        return torch.sigmoid(self.mlp(torch.cat([user, *parts, target], dim=1)).squeeze(1))

    def attend(self, states: Tensor, view: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        scores = (states @ weight @ target.unsqueeze(2)).squeeze(2)  # [n, T]
        attention = torch.softmax(scores.masked_fill(~view, -1e16), dim=1)
        return (attention.unsqueeze(1) @ states).squeeze(1)

    def contrast(self, side: Side) -> Tensor:
        anchor = (side.weight.unsqueeze(1) @ side.states).squeeze(1)
        views = side.views[:, 1:].unbind(1)
        means = [(side.states * view.unsqueeze(2)).sum(1) / view.sum(1, keepdim=True) for view in views]
        return nn.TripletMarginWithDistanceLoss(margin=self.margin)(anchor, *means)

    def align(self, batch: dict[str, Tensor], queries: Tensor, clicks: Tensor, clicked: Tensor) -> Tensor:
        query = queries.unsqueeze(2).expand_as(clicks)[clicked]  # [pairs, d]
        item = clicks[clicked]  # [pairs, d]
        negative_items = self.embed_items(batch["negative_items"])
        negative_queries = self.embed_queries(batch["negative_queries"], batch["negative_words"])
        temperature = 0.01 + F.softplus(self.raw_temperature, beta=100)
        projected = query @ self.alignment
        positive = (projected * item).sum(1, keepdim=True)
        labels = torch.zeros(len(item), dtype=torch.long)
        logits = [
            torch.cat([positive, projected @ negative_items.T], dim=1),
            torch.cat([positive, item @ (negative_queries @ self.alignment).T], dim=1),
        ]
        return sum(F.cross_entropy(torch.tanh(x) / temperature, labels) for x in logits) / 2
