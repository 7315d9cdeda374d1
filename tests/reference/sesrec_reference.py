"""SESRec one user, one position, one pair at a time: slow, and plain enough to be checked against the paper by eye.

It reads the weights of a model by name and nothing else of it.  There is no padding anywhere: a history is a list.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-8


@dataclass
class Search:
    query: int
    clicks: list[int]
    source: int


@dataclass
class Row:
    user: int
    items: list[int]
    searches: list[Search]
    candidates: list[int]  # the positive first


@dataclass
class Side:
    """What is known of one history: states [T, d], similarities [T], and positions in P and N."""

    states: Tensor
    similarity: Tensor | None = None
    similar: list[int] = field(default_factory=list)
    dissimilar: list[int] = field(default_factory=list)


@dataclass
class Encoded:
    user: Tensor
    rec: Side
    search: Side


class Reference:
    """Args: weights by name; the fake data set of the test; the values of the configuration."""

    def __init__(self, weights: dict[str, Tensor], dataset: Any, config: dict[str, Any]) -> None:
        self.weights, self.dataset, self.config = weights, dataset, config
        self.width = config["hidden_size"]
        self.dtype = weights["items.ids.weight"].dtype

    # --- Eq. 1 to 3 -------------------------------------------------------------------------------------------------

    def entity(self, name: str, number: int, attributes: list[Tensor]) -> Tensor:
        parts = [self.weights[f"{name}.ids.weight"][number]]
        for index, values in enumerate(attributes):
            table = self.weights[f"{name}.attributes.{index}.table.weight"]
            present = [int(value) for value in values[number].reshape(-1) if value != 0]
            mean = torch.zeros(table.shape[1], dtype=self.dtype)
            for value in present:
                mean = mean + table[value] / len(present)
            parts.append(mean)
        return torch.cat(parts)

    def item(self, number: int) -> Tensor:
        return self.linear(
            "items.projection", self.entity("items", number, list(self.dataset.item_attributes.values()))
        )

    def query(self, number: int) -> Tensor:
        return self.linear("queries.projection", self.entity("queries", number, [self.dataset.query_terms]))

    def search(self, position: int, search: Search) -> Tensor:
        vector = self.query(search.query) + self.weights["search_positions.weight"][position]
        for click in search.clicks:
            vector = vector + self.item(click) / len(search.clicks)
        return vector + self.weights["sources.weight"][search.source]

    # --- Eq. 4 and 5 ------------------------------------------------------------------------------------------------

    def linear(self, name: str, vector: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ vector + self.weights[f"{name}.bias"]

    def norm(self, name: str, vector: Tensor) -> Tensor:
        centred = vector - vector.mean()
        scaled = centred / (centred.square().mean() + EPSILON).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def encoder(self, name: str, inputs: list[Tensor]) -> list[Tensor]:
        states = inputs
        for layer in range(self.config["n_layers"]):
            states = self.layer(f"{name}.layers.{layer}", states)
        return states

    def layer(self, name: str, states: list[Tensor]) -> list[Tensor]:
        heads, width = self.config["n_heads"], self.width
        size = width // heads
        projected = [self.linear(f"{name}.attention.input", state) for state in states]
        outputs = []
        for position, state in enumerate(states):
            mixed = []
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                query = projected[position][:width][part]
                keys = [other[width : 2 * width][part] for other in projected]
                values = [other[2 * width :][part] for other in projected]
                weights = softmax([query @ key / math.sqrt(size) for key in keys])
                mixed.append(total([weight * value for weight, value in zip(weights, values)]))
            attended = self.linear(f"{name}.attention.output", torch.cat(mixed))
            middle = self.norm(f"{name}.attention_norm", state + attended)
            inner = self.linear(f"{name}.network.0", middle)
            inner = torch.where(inner > 0, inner, 0.01 * inner)
            outputs.append(self.norm(f"{name}.network_norm", middle + self.linear(f"{name}.network.2", inner)))
        return outputs

    # --- Eq. 9 to 12 ------------------------------------------------------------------------------------------------

    def similarities(self, search: list[Tensor], rec: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        affinity = [[torch.tanh(s @ self.weights["co_attention.affinity"] @ r) for r in rec] for s in search]
        w_s, w_r = self.weights["co_attention.left.weight"][0], self.weights["co_attention.right.weight"][0]
        zero = torch.zeros((), dtype=self.dtype)
        search_scores = [
            total([(w_r @ rec[k]) * affinity[j][k] for k in range(len(rec))], zero) for j in range(len(search))
        ]
        rec_scores = [
            total([(w_s @ search[j]) * affinity[j][k] for j in range(len(search))], zero) for k in range(len(rec))
        ]
        return softmax(search_scores), softmax(rec_scores)

    def split(self, similarity: list[Tensor]) -> tuple[list[int], list[int]]:
        rule, values = self.config["split_threshold"], [value.item() for value in similarity]
        if not values:
            return [], []
        if rule == "mean":
            threshold = float(torch.tensor(1 / len(values), dtype=self.dtype))
        elif rule == "median":
            threshold = sorted(values)[(len(values) - 1) // 2]
        else:
            threshold = rule
        similar = [j for j, value in enumerate(values) if value > threshold]
        dissimilar = [j for j, value in enumerate(values) if value <= threshold]
        everything = list(range(len(values)))
        return similar or everything, dissimilar or everything

    def encode(self, row: Row) -> Encoded:
        positions = self.weights["rec_positions.weight"]
        rec = self.encoder("rec_encoder", [self.item(i) + positions[k] for k, i in enumerate(row.items)])
        search = self.encoder("search_encoder", [self.search(k, s) for k, s in enumerate(row.searches)])
        sides = Side(stacked(rec, self.width, self.dtype)), Side(stacked(search, self.width, self.dtype))
        if "co_attention.affinity" in self.weights:
            search_similarity, rec_similarity = self.similarities(search, rec)
            for side, similarity in zip(sides, (rec_similarity, search_similarity)):
                side.similarity = torch.stack(similarity) if similarity else torch.zeros(0, dtype=self.dtype)
                side.similar, side.dissimilar = self.split(similarity)
        return Encoded(self.entity("users", row.user, list(self.dataset.user_attributes.values())), *sides)

    # --- Eq. 17 to 21 -----------------------------------------------------------------------------------------------

    def interests(self, name: str, side: Side, target: Tensor) -> list[Tensor]:
        views = [list(range(len(side.states)))]
        if self.config["multi_interest"]:
            views += [side.similar, side.dissimilar]
        vectors = []
        for view in views:
            weights = softmax([side.states[j] @ self.weights[f"{name}.weight"] @ target for j in view])
            zero = torch.zeros(self.width, dtype=self.dtype)
            vectors.append(total([weight * side.states[j] for weight, j in zip(weights, view)], zero))
        return vectors

    def score(self, encoded: Encoded, candidate: int) -> Tensor:
        target = self.item(candidate)
        rec = self.interests("rec_interest", encoded.rec, target)
        search = self.interests("search_interest", encoded.search, target)
        hidden = self.linear("mlp.first", torch.cat([encoded.user, *rec, *search, target]))
        for number in range(len(self.config["mlp_hidden_size"])):
            hidden = self.linear(f"mlp.others.{number}", hidden.clamp(min=0))
        return hidden[0]

    # --- Eq. 6 to 8, 13 to 16, 22, 23 -------------------------------------------------------------------------------

    def losses(self, rows: list[Row], negative_items: list[int], negative_queries: list[int]) -> dict[str, Tensor]:
        encoded = [self.encode(row) for row in rows]
        pairs = []
        for row, state in zip(rows, encoded):
            for number, candidate in enumerate(row.candidates):
                score = self.score(state, candidate)
                pairs.append(torch.log1p(torch.exp(-score if number == 0 else score)))
        losses = {"rec": total(pairs) / len(pairs)}
        if self.config["alpha"]:
            losses["alignment"] = self.config["alpha"] * self.alignment(rows, negative_items, negative_queries)
        if self.config["beta"]:
            contrast = [
                self.triplet(state.rec) + self.triplet(state.search)
                for row, state in zip(rows, encoded)
                if row.items and row.searches
            ]
            losses["contrast"] = self.config["beta"] * total(contrast) / len(rows)
        return losses

    def alignment(self, rows: list[Row], negative_items: list[int], negative_queries: list[int]) -> Tensor:
        raw = self.weights["alignment.temperature.raw"]
        temperature = 0.01 + torch.log1p(torch.exp(100 * raw)) / 100
        items, queries = [self.item(i) for i in negative_items], [self.query(q) for q in negative_queries]

        def similarity(query: Tensor, item: Tensor) -> Tensor:
            return torch.exp(torch.tanh(query @ self.weights["alignment.weight"] @ item) / temperature)

        losses = []
        for row in rows:
            for search in row.searches:
                for click in search.clicks:
                    query, item = self.query(search.query), self.item(click)
                    positive = similarity(query, item)
                    q2i = -torch.log(positive / (positive + total([similarity(query, n) for n in items])))
                    i2q = -torch.log(positive / (positive + total([similarity(n, item) for n in queries])))
                    losses.append((q2i + i2q) / 2)
        return total(losses) / len(losses)

    def triplet(self, side: Side) -> Tensor:
        anchor = total([weight * state for weight, state in zip(side.similarity, side.states)])
        positive = total([side.states[j] for j in side.similar]) / len(side.similar)
        negative = total([side.states[j] for j in side.dissimilar]) / len(side.dissimilar)
        return (distance(anchor, positive) - distance(anchor, negative) + self.config["margin"]).clamp(min=0)


def distance(first: Tensor, second: Tensor) -> Tensor:
    return (first - second + 1e-6).square().sum().sqrt()  # PyTorch's offset, which keeps the gradient finite at 0


def softmax(scores: list[Tensor]) -> list[Tensor]:
    powers = [torch.exp(score) for score in scores]
    return [power / total(powers) for power in powers]


def total(values: list[Tensor], nothing: Tensor | None = None) -> Tensor:
    return sum(values[1:], values[0]) if values else nothing


def stacked(states: list[Tensor], width: int, dtype: torch.dtype) -> Tensor:
    return torch.stack(states) if states else torch.zeros(0, width, dtype=dtype)
