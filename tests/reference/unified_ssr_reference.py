"""UnifiedSSR one sequence, one position, one pair at a time: slow, and plain enough to be checked by eye.

It reads the weights of a model by name and nothing else of it.  There is no padding and no mask: what a position may
see is a shorter list.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from reference.sesrec_reference import Reference, Row, Search, softmax, total
from torch import Tensor


class UnifiedSSRReference(Reference):
    def inputs(self, row: Row, vectors: list[Tensor]) -> list[Tensor]:
        """(1)"""
        user = self.entity("users", row.user, list(self.dataset.user_attributes.values()))
        user = self.linear("user_projection", user)
        return [math.sqrt(self.width) * (vector + user) + self.position(place) for place, vector in enumerate(vectors)]

    def position(self, place: int) -> Tensor:
        values = []
        for pair in range(self.width // 2):
            angle = place / 10000 ** (2 * pair / self.width)
            values += [math.sin(angle), math.cos(angle)]
        return torch.tensor(values).to(self.dtype)  # single precision first, as the model keeps them

    def encoded(self, states: list[Tensor], memory: list[Tensor]) -> list[Tensor]:
        """(2)"""
        for number in range(self.config["n_layers"]):
            name = f"encoder.layers.{number}"
            normed = [self.norm(f"{name}.attention_norm", state) for state in states]
            states = [
                state + self.attended(f"{name}.attention", normed[place], normed[: place + 1])
                for place, state in enumerate(states)
            ]
            states = [
                state + self.attended(f"{name}.cross", self.norm(f"{name}.cross_norm", state), memory[: place + 1])
                for place, state in enumerate(states)
            ]
            inner = [self.linear(f"{name}.network.0", self.norm(f"{name}.network_norm", state)) for state in states]
            states = [state + self.linear(f"{name}.network.2", x.clamp(min=0)) for state, x in zip(states, inner)]
        return [self.norm("encoder.norm", state) for state in states]

    def attended(self, name: str, state: Tensor, seen: list[Tensor]) -> Tensor:
        width, size = self.width, self.width // self.config["n_heads"]
        query = self.linear(f"{name}.input", state)[:width]
        keys = [self.linear(f"{name}.input", other)[width : 2 * width] for other in seen]
        values = [self.linear(f"{name}.input", other)[2 * width :] for other in seen]
        heads = []
        for first in range(0, width, size):
            part = slice(first, first + size)
            weights = softmax([query[part] @ key[part] / math.sqrt(size) for key in keys])
            heads.append(total([weight * value[part] for weight, value in zip(weights, values)]))
        return self.linear(f"{name}.output", torch.cat(heads))

    def products(self, row: Row) -> list[Tensor]:
        nothing = torch.zeros(self.width, dtype=self.dtype)
        inputs = self.inputs(row, [nothing, *(self.item(item) for item in row.items)])
        return self.encoded(inputs, inputs)

    def sides(self, row: Row, query: int) -> tuple[list[Tensor], list[Tensor]]:
        nothing = torch.zeros(self.width, dtype=self.dtype)
        clicked = [self.item(search.clicks[0]) if search.clicks else nothing for search in row.searches]
        of_products = self.inputs(row, [nothing, *clicked])
        searches: list[Search] = [*row.searches, Search(query, [], 1)]
        of_queries = self.inputs(row, [self.query(search.query) for search in searches])
        return self.encoded(of_products, of_queries), self.encoded(of_queries, of_products)

    def score(self, state: Any, candidate: int) -> Tensor:
        """(3)"""
        return math.sqrt(self.width) * self.item(candidate) @ state

    def product_weight(self) -> Tensor:
        return 0.1 + 0.8 / (1 + torch.exp(-self.weights["balance"]))

    def segments(self, states: list[Tensor]) -> list[Tensor]:
        """(5)"""
        count, found = len(states), []
        places = [(number + 0.5) / count for number in range(count)]
        for centre, half in ((0.25, [p < 0.5 for p in places]), (0.75, [p >= 0.5 for p in places])):
            mean = total([state for state, belongs in zip(states, half) if belongs]) / sum(half)
            shift, size = self.linear("window", mean)
            centre, radius = centre + torch.tanh(shift) / 4, 1 / (1 + torch.exp(-size)) / 4
            inside = [1 / (1 + torch.exp(-32 * (radius - (place - centre).abs()))) for place in places]
            found.append(total([(h + m) * state for h, m, state in zip(half, inside, states)]))
        return found

    def losses(self, rows: list[Row], queries: list[int]) -> dict[str, Tensor]:
        """Those of pre-training; without ``queries`` those of recommendation."""
        encoded = [self.products(row) for row in rows]
        losses = {"rec": self.cross_entropy(rows, [states[-1] for states in encoded])}
        apart = [cosine(*self.segments(states[1:])).abs() for states in encoded if len(states) > 2]
        losses["session"] = self.config["session_weight"] * total(apart) / len(apart)
        if queries:
            sides = [self.sides(row, query) for row, query in zip(rows, queries)]
            weight = self.product_weight()
            of_products, of_queries = (self.cross_entropy(rows, [side[k][-1] for side in sides]) for k in (0, 1))
            losses["search"] = self.config["search_weight"] * (weight * of_products + (1 - weight) * of_queries)
            terms = [self.search_session(*side) for side in sides if len(side[0]) > 1]
            weight = self.config["search_weight"] * self.config["session_weight"]
            losses["search_session"] = weight * total(terms) / len(terms)
        return losses

    def search_session(self, products: list[Tensor], queries: list[Tensor]) -> Tensor:
        """(6)"""
        first, second = self.segments(products), self.segments(queries)
        between = (cosine(first[0], second[0]) + cosine(first[1], second[1])) / 2
        return cosine(*first).abs() + cosine(*second).abs() - between

    def cross_entropy(self, rows: list[Row], states: list[Tensor]) -> Tensor:
        pairs = []
        for row, state in zip(rows, states):
            for number, candidate in enumerate(row.candidates):
                score = self.score(state, candidate)
                pairs.append(torch.log1p(torch.exp(-score if number == 0 else score)))
        return total(pairs) / len(pairs)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    return first @ second / (first.norm() * second.norm())
