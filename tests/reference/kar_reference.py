"""KAR one expert, one user, one candidate at a time, written from the equations in the model's docstring."""

from __future__ import annotations

import torch
from reference.din_reference import DINReference
from reference.sesrec_reference import Row, softmax
from torch import Tensor


class KARReference(DINReference):
    """Args: weights and buffers by name; the fake data set; the configuration; whether Dice uses batch statistics."""

    def scores(self, rows: list[Row]) -> list[list[Tensor]]:
        """(5) and (6), of every candidate of every row."""
        targets = [[self.item(candidate) for candidate in row.candidates] for row in rows]
        interests = self.pools("unit", [[self.item(i) for i in row.items] for row in rows], targets)
        inputs = [
            torch.cat([self.user_knowledge(row.user), target, interest, self.item_knowledge(candidate)])
            for row, of_row, of_interests in zip(rows, targets, interests)
            for candidate, target, interest in zip(row.candidates, of_row, of_interests)
        ]
        logits = iter(self.network("mlp", inputs))
        return [[next(logits)[0] for _ in of_row] for of_row in targets]

    def user_knowledge(self, user: int) -> Tensor:
        """(3)."""
        return self.knowledge("of_users", self.dataset.user_texts.vectors[user].to(self.dtype))

    def item_knowledge(self, item: int) -> Tensor:
        """(4)."""
        return self.knowledge("of_items", self.dataset.item_texts.vectors[item].to(self.dtype))

    def knowledge(self, name: str, text: Tensor) -> Tensor:
        if not any(text.tolist()):
            return self.weights[f"{name}.fallback"]
        experts = [self.expert("shared", number, text) for number in range(self.config["shared_experts"])]
        experts += [self.expert(f"{name}.experts", number, text) for number in range(self.config["own_experts"])]
        gate = softmax([row @ text for row in self.weights[f"{name}.gate.weight"]])
        assert len(gate) == len(experts)
        return sum(weight * expert for weight, expert in zip(gate, experts))

    def expert(self, name: str, number: int, text: Tensor) -> Tensor:
        """(1)."""
        for layer in ("first", "second"):
            weight, bias = self.weights[f"{name}.{layer}_weight"][number], self.weights[f"{name}.{layer}_bias"][number]
            text = (weight @ text + bias).clamp(min=0)
        return text
