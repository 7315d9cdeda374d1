"""DIEN one row, one candidate, one step at a time, written from the equations in the model's docstring.

It reads the weights of a model by name and nothing else of it.  There is no padding anywhere: a history is a list.
"""

from __future__ import annotations

import torch
from reference.sesrec_reference import Reference, Row, softmax
from torch import Tensor


class DIENReference(Reference):
    """Args: weights by name; the fake data set; the values of the configuration."""

    def interests(self, row: Row) -> list[Tensor]:
        """(1), with the gates in PyTorch's order: reset, keep (1 - update), candidate."""
        state, states = torch.zeros(self.width, dtype=self.dtype), []
        input_weights, state_weights = (self.weights[f"extraction.weight_{side}_l0"].chunk(3) for side in ("ih", "hh"))
        input_biases, state_biases = (self.weights[f"extraction.bias_{side}_l0"].chunk(3) for side in ("ih", "hh"))
        for number in row.items:
            from_input = [w @ self.item(number) + b for w, b in zip(input_weights, input_biases)]
            from_state = [w @ state + b for w, b in zip(state_weights, state_biases)]
            reset, keep = sigmoid(from_input[0] + from_state[0]), sigmoid(from_input[1] + from_state[1])
            candidate = torch.tanh(from_input[2] + reset * from_state[2])
            state = keep * state + (1 - keep) * candidate
            states.append(state)
        return states

    def evolved(self, interests: list[Tensor], target: Tensor) -> Tensor:
        """(3) to (5)."""
        transposed = self.weights["attention.weight"]
        weights = softmax([(transposed @ interest) @ target for interest in interests])
        w_u, w_r, w_c = self.weights["evolution.input.weight"].chunk(3)
        b_u, b_r, b_c = self.weights["evolution.input.bias"].chunk(3)
        u_u, u_r, u_c = self.weights["evolution.recurrent.weight"].chunk(3)
        state = torch.zeros(self.width, dtype=self.dtype)
        for weight, interest in zip(weights, interests):
            update = sigmoid(w_u @ interest + u_u @ state + b_u)
            reset = sigmoid(w_r @ interest + u_r @ state + b_r)
            candidate = torch.tanh(w_c @ interest + reset * (u_c @ state) + b_c)
            state = (1 - weight * update) * state + weight * update * candidate
        return state

    def scores(self, row: Row, candidates: list[int] | None = None) -> list[Tensor]:
        """(6), of the row's candidates or of others."""
        interests, logits = self.interests(row), []
        for candidate in candidates or row.candidates:
            target = self.item(candidate)
            logits.append(self.network("mlp", torch.cat([self.evolved(interests, target), target])))
        return logits

    def network(self, name: str, values: Tensor) -> Tensor:
        """Linear layers ``first`` and ``others`` with ReLU between them: one number."""
        hidden, layer = self.linear(f"{name}.first", values), 0
        while f"{name}.others.{layer}.weight" in self.weights:
            hidden = self.linear(f"{name}.others.{layer}", hidden.clamp(min=0))
            layer += 1
        return hidden[0]

    def auxiliary(self, rows: list[Row], negatives: list[list[int]]) -> Tensor:
        """(2); ``negatives`` are aligned with each row's items from the second one on."""
        losses = []
        for row, drawn in zip(rows, negatives):
            for interest, following, negative in zip(self.interests(row), row.items[1:], drawn):
                positive = sigmoid(self.network("auxiliary", torch.cat([interest, self.item(following)])))
                other = sigmoid(self.network("auxiliary", torch.cat([interest, self.item(negative)])))
                losses.append(-torch.log(positive) - torch.log(1 - other))
        return sum(losses) / len(losses)

    def main_loss(self, rows: list[Row], loss_type: str) -> Tensor:
        """BCE and BPR are means over all pairs or negatives, CE is a mean over the rows."""
        losses = []
        for row in rows:
            if loss_type == "CE":
                everything = torch.stack(self.scores(row, list(range(1, self.dataset.target_num))))
                losses.append(everything.exp().sum().log() - everything[row.candidates[0] - 1])
                continue
            positive, *negatives = self.scores(row)
            if loss_type == "BCE":
                losses += [-torch.log(sigmoid(positive)), *(-torch.log(1 - sigmoid(each)) for each in negatives)]
            else:
                losses += [-torch.log(sigmoid(positive - each)) for each in negatives]
        return sum(losses) / len(losses)


def sigmoid(values: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-values))
