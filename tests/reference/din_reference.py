"""DIN one history event, one candidate at a time, with every input of its networks written out.

It reads the weights of a model by name and nothing else of it.  There is no padding anywhere: a history is a list.
"""

from __future__ import annotations

from typing import Any

import torch
from reference.sesrec_reference import Reference, Row
from torch import Tensor

DICE_EPSILON = 1e-8


class DINReference(Reference):
    """Args: weights and buffers by name; the fake data set; the configuration; whether Dice uses batch statistics."""

    def __init__(self, weights: dict[str, Tensor], dataset: Any, config: dict[str, Any], training: bool) -> None:
        super().__init__(weights, dataset, config)
        self.training = training

    def scores(self, rows: list[Row]) -> list[list[Tensor]]:
        """The logit of every candidate of every row; Dice makes those of one batch depend on each other."""
        targets = [[self.item(candidate) for candidate in row.candidates] for row in rows]
        pools = [self.pools("units.0", [[self.item(i) for i in row.items] for row in rows], targets)]
        if self.config["search_pools"]:
            queries = [[self.query(search.query) for search in row.searches] for row in rows]
            clicks = [[self.item(i) for search in row.searches for i in search.clicks] for row in rows]
            pools += [self.pools("units.1", queries, targets), self.pools("units.2", clicks, targets)]
        pairs = [
            torch.cat([target, *(pool[row][place] for pool in pools)])
            for row, of_row in enumerate(targets)
            for place, target in enumerate(of_row)
        ]
        logits = iter(self.network("mlp", pairs))
        return [[next(logits)[0] for _ in of_row] for of_row in targets]

    def pools(self, name: str, histories: list[list[Tensor]], targets: list[list[Tensor]]) -> list[list[Tensor]]:
        """(1) and (2): what each row's history says about each of its candidates."""
        inputs = [
            torch.cat([target, event, target - event, target * event])
            for history, of_row in zip(histories, targets)
            for target in of_row
            for event in history
        ]
        weights = iter(self.network(name, inputs))
        pools = []
        for history, of_row in zip(histories, targets):
            pools.append([])
            for _ in of_row:
                pool = torch.zeros(self.width, dtype=self.dtype)
                for event in history:
                    pool = pool + next(weights)[0] * event
                pools[-1].append(pool)
        return pools

    def network(self, name: str, inputs: list[Tensor]) -> list[Tensor]:
        """Linear layers ``first`` and ``others`` with Dice between them."""
        hidden = [self.linear(f"{name}.first", values) for values in inputs]
        layer = 0
        while hidden and f"{name}.others.{layer}.weight" in self.weights:
            hidden = self.dice(f"{name}.activations.{layer}", hidden)
            hidden = [self.linear(f"{name}.others.{layer}", values) for values in hidden]
            layer += 1
        return hidden

    def dice(self, name: str, values: list[Tensor]) -> list[Tensor]:
        if self.training:
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / len(values)
        else:
            mean, variance = self.weights[f"{name}.norm.running_mean"], self.weights[f"{name}.norm.running_var"]
        slope = self.weights[f"{name}.slope"]
        outputs = []
        for value in values:
            p = 1 / (1 + torch.exp(-(value - mean) / (variance + DICE_EPSILON).sqrt()))
            outputs.append(p * value + (1 - p) * slope * value)
        return outputs


def cross_entropy(scores: list[list[Tensor]]) -> Tensor:
    """Mean over all pairs; the first candidate of each row is the positive."""
    pairs = [
        torch.log1p(torch.exp(-score if place == 0 else score)) for row in scores for place, score in enumerate(row)
    ]
    return sum(pairs[1:], pairs[0]) / len(pairs)
