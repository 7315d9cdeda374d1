"""LLM-ESR one user, one place, one pair of users at a time, written from the equations in the model's docstring."""

from __future__ import annotations

import math
from typing import Any

import torch
from reference.transformer_reference import TransformerReference, Weights
from torch import Tensor


class LLMESRReference(TransformerReference):
    """Args: weights by name; the fake data set; the configuration."""

    def __init__(self, weights: Weights, dataset: Any, config: dict[str, Any]) -> None:
        super().__init__(weights, dataset, config["n_heads"], True, torch.relu)
        self.config = config

    def collaborative(self, item: int) -> Tensor:
        return self.weights["items.collaborative"][item]

    def semantic(self, item: int) -> Tensor:
        """(1)."""
        text = self.dataset.item_texts.vectors[item].double()
        if not any(text.tolist()):
            return self.weights["items.fallback"]
        return self.linear("items.second", self.linear("items.first", text))

    def user(self, items: list[int]) -> Tensor:
        """(3) to (6)."""
        width = self.config["hidden_size"]
        if not items:
            return torch.zeros(2 * width, dtype=torch.float64)
        places = self.weights["positions.weight"]
        semantic = [math.sqrt(width) * self.semantic(i) + places[t] for t, i in enumerate(items)]
        collaborative = [math.sqrt(width) * self.collaborative(i) + places[t] for t, i in enumerate(items)]
        crossed = {
            "to_collaborative": (semantic, collaborative),  # where the queries are from, and the keys and values
            "to_semantic": (collaborative, semantic),
        }
        views = []
        for name, (asking, asked) in crossed.items():
            self.heads = self.config["cross_heads"]
            states = [self.cross(name, state, asked[: place + 1]) for place, state in enumerate(asking)]
            self.heads = self.config["n_heads"]
            views.append(self.encoder(states, self.config["n_layers"], causal=True)[-1])
        return torch.cat(views)

    def cross(self, name: str, state: Tensor, memory: list[Tensor]) -> Tensor:
        size = len(state) // self.heads
        query_map, key_map, value_map = self.weights[f"{name}.input.weight"].chunk(3)
        query_bias, key_bias, value_bias = self.weights[f"{name}.input.bias"].chunk(3)
        query = query_map @ state + query_bias
        keys, values = [key_map @ x + key_bias for x in memory], [value_map @ x + value_bias for x in memory]
        mixed = []
        for start in range(0, len(state), size):
            part = slice(start, start + size)
            powers = [torch.exp(query[part] @ key[part] / math.sqrt(size)) for key in keys]
            mixed.append(sum(power * value[part] for power, value in zip(powers, values)) / sum(powers))
        return self.linear(f"{name}.output", torch.cat(mixed))

    def score(self, user: Tensor, candidate: int) -> Tensor:
        """(6)."""
        return torch.cat([self.collaborative(candidate), self.semantic(candidate)]) @ user

    def similar(self, user: int, training: dict[int, list[int]]) -> list[int]:
        """The users of (7); ``training`` are the items of each user's training period."""
        texts = self.dataset.user_texts.vectors.double()
        if not any(texts[user].tolist()):
            return []
        others = [other for other, items in training.items() if other != user and items and any(texts[other].tolist())]
        others.sort(key=lambda other: float(texts[user] @ texts[other]), reverse=True)
        return others[: self.config["similar_users"]]

    def teacher(self, user: int, training: dict[int, list[int]]) -> Tensor | None:
        """(7)."""
        length = self.config["MAX_ITEM_LIST_LENGTH"]
        vectors = [self.user(training[other][-length:]).detach() for other in self.similar(user, training)]
        return sum(vectors) / len(vectors) if vectors else None

    def distillation(self, users: list[int], rows: list[list[int]], training: dict[int, list[int]]) -> Tensor:
        """L_SD of (8)."""
        terms = []
        for user, items in zip(users, rows):
            teacher = self.teacher(user, training)
            if teacher is not None and items:
                terms.append(((self.user(items) - teacher) ** 2).mean())
        return sum(terms) / len(terms)

    def next_item(self, kind: str, rows: list[list[int]], candidates: list[list[int]]) -> Tensor:
        terms = []
        for items, (positive, *negatives) in zip(rows, candidates):
            user = self.user(items)
            own, others = self.score(user, positive), [self.score(user, negative) for negative in negatives]
            if kind == "CE":
                everything = [self.score(user, item) for item in range(1, self.dataset.target_num)]
                terms.append(torch.stack(everything).exp().sum().log() - own)
            elif kind == "BPR":
                terms += [-torch.log(torch.sigmoid(own - other)) for other in others]
            else:
                terms += [-torch.log(torch.sigmoid(own)), *(-torch.log(1 - torch.sigmoid(other)) for other in others)]
        return sum(terms) / len(terms)
