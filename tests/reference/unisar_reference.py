"""UniSAR one user, one position, one candidate at a time: slow, and plain enough to be checked by eye.

It reads the weights of a model by name and nothing else of it.  A user's past is one list of events in order of time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-5


@dataclass
class Search:
    query: int
    clicks: list[int]


@dataclass
class Row:
    user: int
    events: list[int | Search]  # items and searches, oldest first
    candidates: list[int]  # the positive first
    query: int = 0  # of an instance of the search task

    @property
    def items(self) -> list[int]:
        return [event for event in self.events if isinstance(event, int)]

    @property
    def searches(self) -> list[Search]:
        return [event for event in self.events if isinstance(event, Search)]


@dataclass
class Side:
    own: list[Tensor]
    other: list[Tensor]
    fused: list[Tensor]


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
        self.zero = torch.zeros(self.width, dtype=weights["no_query"].dtype)

    # --- (1) --------------------------------------------------------------------------------------------------------

    def entity(self, name: str, number: int, attributes: list[Tensor]) -> Tensor:
        parts = [self.weights[f"{name}.ids.weight"][number]]
        for index, values in enumerate(attributes):
            table = self.weights[f"{name}.attributes.{index}.table.weight"]
            present = [table[int(value)] for value in values[number].reshape(-1) if value != 0]
            parts.append(mean(present, torch.zeros(table.shape[1], dtype=table.dtype)))
        return torch.tanh(self.linear(f"{name}.projection", torch.cat(parts)))

    def item(self, number: int) -> Tensor:
        return self.entity("items", number, list(self.dataset.item_attributes.values()))

    def query(self, number: int) -> Tensor:
        return self.entity("queries", number, [self.dataset.query_terms])

    def user(self, number: int) -> Tensor:
        return self.entity("users", number, list(self.dataset.user_attributes.values()))

    def event(self, event: int | Search) -> Tensor:
        if isinstance(event, Search):
            return self.query(event.query) + mean([self.item(click) for click in event.clicks], self.zero)
        return self.item(event)

    # --- (2) and (5) ------------------------------------------------------------------------------------------------

    def linear(self, name: str, vector: Tensor) -> Tensor:
        return self.weights[f"{name}.weight"] @ vector + self.weights[f"{name}.bias"]

    def norm(self, name: str, vector: Tensor) -> Tensor:
        centred = vector - vector.mean()
        scaled = centred / (centred.square().mean() + EPSILON).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, name: str, state: Tensor, seen: list[Tensor]) -> Tensor:
        width, size = self.width, self.width // self.config["n_heads"]
        own = self.linear(f"{name}.input", state)[:width]
        projected = [self.linear(f"{name}.input", other) for other in seen]
        mixed = []
        for start in range(0, width, size):
            part = slice(start, start + size)
            keys, values = [p[width : 2 * width][part] for p in projected], [p[2 * width :][part] for p in projected]
            weights = softmax([own[part] @ key / math.sqrt(size) for key in keys])
            mixed.append(total([weight * value for weight, value in zip(weights, values)], self.zero[part]))
        return self.linear(f"{name}.output", torch.cat(mixed))

    def layer(self, name: str, state: Tensor, seen: list[Tensor], memory: list[Tensor] | None = None) -> Tensor:
        state = self.norm(f"{name}.attention_norm", state + self.attention(f"{name}.attention", state, seen))
        if memory is not None:
            state = self.norm(f"{name}.cross_norm", state + self.attention(f"{name}.cross", state, memory))
        inner = self.linear(f"{name}.network.0", state).clamp(min=0)
        return self.norm(f"{name}.network_norm", state + self.linear(f"{name}.network.2", inner))

    def own(self, side: str, inputs: list[Tensor]) -> list[Tensor]:
        states = [x + self.weights[f"{side}_positions.weight"][place] for place, x in enumerate(inputs)]
        for number in range(self.config["n_layers"]):
            states = [self.layer(f"{side}_encoder.layers.{number}", state, states) for state in states]
        return states

    def other(self, events: list[int | Search]) -> list[Tensor]:
        states = [self.event(event) + self.weights["positions.weight"][place] for place, event in enumerate(events)]
        for number in range(self.config["n_layers"]):
            states = [
                self.layer(
                    f"encoder.layers.{number}",
                    state,
                    [s for s, e in zip(states, events) if isinstance(e, int) != isinstance(event, int)],
                )
                for state, event in zip(states, events)
            ]
        return states

    def fused(self, side: str, own: list[Tensor], other: list[Tensor]) -> Side:
        return Side(own, other, [self.layer(f"{side}_decoder.layers.0", state, own, other) for state in own])

    def encode(self, row: Row) -> Encoded:
        rec2rec = self.own("rec", [self.item(item) for item in row.items])
        src2src = self.own("search", [self.event(search) for search in row.searches])
        other = self.other(row.events)
        src2rec = [state for state, event in zip(other, row.events) if isinstance(event, int)]
        rec2src = [state for state, event in zip(other, row.events) if isinstance(event, Search)]
        rec, search = self.fused("rec", rec2rec, src2rec), self.fused("search", src2src, rec2src)
        return Encoded(self.user(row.user), rec, search)

    # --- (6) and (7) ------------------------------------------------------------------------------------------------

    def interest(self, name: str, states: list[Tensor], target: Tensor) -> Tensor:
        weights = softmax([state @ self.weights[f"{name}.weight"] @ target for state in states])
        return total([weight * state for weight, state in zip(weights, states)], self.zero)

    def score(self, encoded: Encoded, candidate: int, query: int) -> Tensor:
        """Of the recommendation task where ``query`` is 0."""
        target, task = self.item(candidate), int(query != 0)
        w_r = self.interest("rec_interest", encoded.rec.fused, target)
        w_s = self.interest("search_interest", encoded.search.fused, target)
        intent = self.query(query) if query else self.weights["no_query"]
        values = torch.cat([w_r, w_s, target, encoded.user, intent])
        experts = [
            expert.clamp(min=0)
            for name in ("experts.shared", f"experts.own.{task}")
            for expert in self.linear(name, values).split(self.width)
        ]
        gates = softmax(list(self.linear(f"experts.gates.{task}", values)))
        hidden = total([gate * expert for gate, expert in zip(gates, experts)])
        hidden = self.linear(f"towers.{task}.0", hidden).clamp(min=0)
        hidden = self.linear(f"towers.{task}.3", hidden).clamp(min=0)
        for number in range(len(self.config["mlp_hidden_size"])):
            hidden = self.linear(f"towers.{task}.{6 + 3 * number}", hidden).clamp(min=0)
        return self.linear(f"towers.{task}.{6 + 3 * len(self.config['mlp_hidden_size'])}", hidden)[0]

    # --- (3), (4) and (8) -------------------------------------------------------------------------------------------

    def losses(
        self, rows: list[Row], searched: list[Row], negative_items: list[int], negative_queries: list[int]
    ) -> dict[str, Tensor]:
        losses = {}
        for prefix, main, weight, some in (
            ("", "rec", 1.0, rows),
            ("search_", "search", self.config["search_weight"], searched),
        ):
            if not some:
                continue
            encoded = [self.encode(row) for row in some]
            losses[main] = weight * self.cross_entropy(some, encoded)
            if self.config["alignment_weight"]:
                alignment = self.alignment(some, negative_items, negative_queries)
                losses[f"{prefix}alignment"] = weight * self.config["alignment_weight"] * alignment
            if self.config["transition_weight"]:
                both = [state for state, row in zip(encoded, some) if row.items and row.searches]
                transition = self.contrast("to_rec", [state.rec for state in both])
                transition = transition + self.contrast("to_search", [state.search for state in both])
                losses[f"{prefix}transition"] = weight * self.config["transition_weight"] * transition
        return losses

    def cross_entropy(self, rows: list[Row], encoded: list[Encoded]) -> Tensor:
        pairs = []
        for row, state in zip(rows, encoded):
            for number, candidate in enumerate(row.candidates):
                score = self.score(state, candidate, row.query)
                pairs.append(torch.log1p(torch.exp(-score if number == 0 else score)))
        return mean(pairs)

    def temperature(self, name: str) -> Tensor:
        return 0.01 + torch.log1p(torch.exp(100 * self.weights[f"{name}.temperature.raw"])) / 100

    def alignment(self, rows: list[Row], negative_items: list[int], negative_queries: list[int]) -> Tensor:
        items, queries = [self.item(i) for i in negative_items], [self.query(q) for q in negative_queries]
        temperature = self.temperature("alignment")

        def similarity(left: Tensor, right: Tensor) -> Tensor:
            """From left to right: from a query to an item, or from an item to a query, with one matrix for both."""
            return torch.exp(torch.tanh(left @ self.weights["alignment.weight"] @ right) / temperature)

        losses = []
        for row in rows:
            for search in row.searches:
                for click in search.clicks:
                    query, item = self.query(search.query), self.item(click)
                    forth, back = similarity(query, item), similarity(item, query)
                    q2i = -torch.log(forth / (forth + total([similarity(query, n) for n in items])))
                    i2q = -torch.log(back / (back + total([similarity(item, n) for n in queries])))
                    losses.append((q2i + i2q) / 2)
        return mean(losses)

    def contrast(self, name: str, sides: list[Side]) -> Tensor:
        views = [(mean(side.other), mean(side.own)) for side in sides]
        losses = []
        for anchor in range(len(views)):
            for which in (0, 1):
                powers = {
                    (row, view): torch.exp(
                        torch.tanh(views[anchor][which] @ self.weights[f"{name}.weight"] @ views[row][view])
                        / self.temperature(name)
                    )
                    for row in range(len(views))
                    for view in (0, 1)
                    if (row, view) != (anchor, which)
                }
                losses.append(-torch.log(powers[anchor, 1 - which] / total(list(powers.values()))))
        return mean(losses)


def softmax(scores: list[Tensor]) -> list[Tensor]:
    powers = [torch.exp(score) for score in scores]
    return [power / total(powers) for power in powers]


def total(values: list[Tensor], nothing: Tensor | None = None) -> Tensor:
    return sum(values[1:], values[0]) if values else nothing


def mean(values: list[Tensor], nothing: Tensor | None = None) -> Tensor:
    return total(values) / len(values) if values else nothing
