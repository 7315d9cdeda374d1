"""GSERec one user, one position, one pair, one edge at a time: slow, and plain enough to be checked against the paper.

It reads the weights of a model by name and nothing else of it.  There is no padding anywhere: a history is a list, and
so are the codes of a user.  Messages go over the whole graph, all users and all codes, layer by layer.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from reference import unisar_reference
from reference.sesrec_reference import Row, Search
from reference.unisar_reference import mean, total
from torch import Tensor


@dataclass
class Nodes:
    """One graph after Eq. 8, by user id and by code id."""

    users: list[Tensor]
    codes: list[Tensor]


@dataclass
class Side:
    user: Tensor
    codes: list[Tensor]
    states: list[Tensor]  # H
    enriched: list[Tensor]  # W


@dataclass
class Encoded:
    search: Side
    rec: Side


@dataclass
class Views:
    """Two vectors that belong together, and whose they are."""

    user: int
    left: Tensor
    right: Tensor


class GSERecReference(unisar_reference.Reference):
    """The Transformer layers and the bilinear attention are those of UniSAR's reference.

    Args: weights by name; the fake data set of the test, with codes; the values of the configuration.
    """

    def __init__(self, weights: dict[str, Tensor], dataset: Any, config: dict[str, Any]) -> None:
        self.weights, self.dataset, self.config = weights, dataset, config
        self.width = config["hidden_size"]
        self.zero = torch.zeros(self.width, dtype=weights["users.weight"].dtype)
        self.search_nodes, self.rec_nodes = self.propagated("search"), self.propagated("rec")

    # --- 4.2.1 and 4.2.3: vectors of items, queries and searches ----------------------------------------------------

    def entity(self, name: str, number: int, attributes: list[Tensor]) -> Tensor:
        parts = [self.weights[f"{name}.ids.weight"][number]]
        for index, values in enumerate(attributes):
            table = self.weights[f"{name}.attributes.{index}.table.weight"]
            present = [table[int(value)] for value in values[number].reshape(-1) if value != 0]
            parts.append(mean(present, torch.zeros(table.shape[1], dtype=table.dtype)))
        return self.linear(f"{name}.projection", torch.cat(parts))

    def record(self, search: Search) -> Tensor:
        return self.query(search.query) + mean([self.item(click) for click in search.clicks], self.zero)

    # --- Eq. 7 and 8 ------------------------------------------------------------------------------------------------

    def codes_of(self, side: str, user: int) -> list[int]:
        return [code for code in getattr(self.dataset.user_codes, side)[user].tolist() if code]

    def propagated(self, side: str) -> Nodes:
        users, codes = list(self.weights["users.weight"]), list(self.weights[f"{side}_graph.table.weight"])
        edges = [(user, code) for user in range(len(users)) for code in self.codes_of(side, user)]
        of_user, of_code = Counter(user for user, _ in edges), Counter(code for _, code in edges)
        layers = [Nodes(users, codes)]
        for _ in range(self.config["graph_layers"]):
            before, after = layers[-1], Nodes([self.zero] * len(users), [self.zero] * len(codes))
            for user, code in edges:
                weight = 1 / math.sqrt(of_user[user] * of_code[code])
                after.users[user] = after.users[user] + weight * before.codes[code]
                after.codes[code] = after.codes[code] + weight * before.users[user]
            layers.append(after)
        return Nodes(
            [mean(list(states)) for states in zip(*(layer.users for layer in layers))],
            [mean(list(states)) for states in zip(*(layer.codes for layer in layers))],
        )

    # --- Eq. 10 and 11 ----------------------------------------------------------------------------------------------

    def encode(self, row: Row) -> Encoded:
        search = self.side("search", self.search_nodes, row.user, [self.record(search) for search in row.searches])
        return Encoded(search, self.side("rec", self.rec_nodes, row.user, [self.item(item) for item in row.items]))

    def side(self, name: str, nodes: Nodes, user: int, inputs: list[Tensor]) -> Side:
        codes = [nodes.codes[code] for code in self.codes_of(name, user)]
        memory = codes if self.config["cross_attention"] else None
        states = self.own(name, inputs)
        enriched = [self.layer(f"{name}_fusion.layers.0", state, states, memory) for state in states]
        return Side(nodes.users[user], codes, states, enriched)

    # --- Eq. 14 and 15 ----------------------------------------------------------------------------------------------

    def score(self, encoded: Encoded, candidate: int) -> Tensor:
        target = self.item(candidate)
        w_s = self.interest("search_interest", encoded.search.enriched, target)
        w_r = self.interest("rec_interest", encoded.rec.enriched, target)
        hidden = self.linear("mlp.first", torch.cat([encoded.search.user, encoded.rec.user, w_s, w_r, target]))
        for number in range(len(self.config["mlp_hidden_size"])):
            hidden = self.linear(f"mlp.others.{number}", hidden.clamp(min=0))
        return hidden[0]

    # --- Eq. 9, 12, 13, 16, 17 --------------------------------------------------------------------------------------

    def losses(self, rows: list[Row]) -> dict[str, Tensor]:
        """The terms of Eq. 17, but for the one that is the optimiser's."""
        encoded = [self.encode(row) for row in rows]
        losses = {"rec": self.cross_entropy(rows, encoded)}
        if self.config["user_contrast_weight"]:
            views = [Views(row.user, state.search.user, state.rec.user) for row, state in zip(rows, encoded)]
            losses["user_contrast"] = self.config["user_contrast_weight"] * self.contrast("user_contrast", views)
        if self.config["history_contrast_weight"]:
            search = self.history_contrast("search_contrast", rows, [state.search for state in encoded])
            rec = self.history_contrast("rec_contrast", rows, [state.rec for state in encoded])
            losses["history_contrast"] = self.config["history_contrast_weight"] * (search + rec)
        return losses

    def cross_entropy(self, rows: list[Row], encoded: list[Encoded]) -> Tensor:
        """Eq. 16."""
        pairs = []
        for row, state in zip(rows, encoded):
            for number, candidate in enumerate(row.candidates):
                score = self.score(state, candidate)
                pairs.append(torch.log1p(torch.exp(-score if number == 0 else score)))
        return mean(pairs)

    def history_contrast(self, name: str, rows: list[Row], sides: list[Side]) -> Tensor:
        """Eq. 12."""
        views = [
            Views(row.user, mean(side.states), mean(side.codes))
            for row, side in zip(rows, sides)
            if side.states and side.codes
        ]
        return self.contrast(name, views)

    def contrast(self, name: str, views: list[Views]) -> Tensor:
        """Eq. 9 and 12."""
        temperature = self.temperature(name)

        def power(left: Tensor, right: Tensor) -> Tensor:
            return torch.exp(self.similarity(name, left, right) / temperature)

        losses = []
        for anchor in views:
            positive = power(anchor.left, anchor.right)
            negatives = [other for other in views if other.user != anchor.user]
            of_left = positive / total([positive, *(power(anchor.left, other.right) for other in negatives)])
            of_right = positive / total([positive, *(power(other.left, anchor.right) for other in negatives)])
            losses.append(-(torch.log(of_left) + torch.log(of_right)) / 2)
        return mean(losses, torch.zeros((), dtype=self.zero.dtype))

    def similarity(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        if self.config["contrast_similarity"] == "bilinear":
            return torch.tanh(left @ self.weights[f"{name}.weight"] @ right)
        return left @ right / (left.square().sum() * right.square().sum()).sqrt()
