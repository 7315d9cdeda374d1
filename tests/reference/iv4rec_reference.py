"""IV4REC one item, one query, one pair at a time, with pseudo-inverses: slow, and plain enough to be checked by eye.

It reads the weights of a model by name and nothing else of it.  There is no padding anywhere: a history is a list.
"""

from __future__ import annotations

from typing import Any

import torch
from reference.din_reference import DINReference, cross_entropy
from reference.sesrec_reference import Row, softmax, total
from torch import Tensor

Item = tuple[Tensor, Tensor | None]  # its reconstructed vector and the squared error of its regression


class IV4RECReference(DINReference):
    """Args: as of ``DINReference``; ``queries_of`` are the queries that led to each item."""

    def __init__(
        self,
        weights: dict[str, Tensor],
        dataset: Any,
        config: dict[str, Any],
        training: bool,
        queries_of: dict[int, list[int]],
    ) -> None:
        super().__init__(weights, dataset, config, training)
        self.queries_of = queries_of

    # --- (1) to (4), (6), (7) ---------------------------------------------------------------------------------------

    def tanh_layers(self, name: str, vector: Tensor, last: bool) -> Tensor:
        places = [place for place in range(0, 30, 3) if f"{name}.{place}.weight" in self.weights]
        for place in places:
            vector = self.linear(f"{name}.{place}", vector)
            if last or place != places[-1]:
                vector = torch.tanh(vector)
        return vector

    def decomposed(self, number: int) -> Item:
        queries = [self.query(query) for query in self.queries_of.get(number, [])]
        nothing = torch.zeros(self.width, dtype=self.dtype)
        mean = total(queries, nothing) / max(len(queries), 1)
        if self.config["variant"] != "projection":
            return self.regressed("item_regression", self.item(number), mean if queries else None)
        treatment = self.tanh_layers("projection.treatment", self.item(number), last=True)
        fitted = nothing
        if queries:
            spanning = torch.stack(queries, dim=1)  # [d, N]
            fitted = spanning @ (torch.linalg.pinv(spanning) @ treatment)
        first, second = (
            torch.sigmoid(self.tanh_layers(f"projection.gates.{k}", torch.cat([treatment, mean]), last=True))
            for k in range(2)
        )
        return first * (treatment - fitted) + second * fitted, None

    def regressed(self, name: str, treatment: Tensor, instrument: Tensor | None) -> Item:
        fitted = torch.zeros(self.width, dtype=self.dtype)
        if instrument is not None:
            fitted = self.tanh_layers(f"{name}.regression", instrument, last=False)
        gate = torch.sigmoid(self.tanh_layers(f"{name}.gate", torch.cat([fitted, treatment]), last=False))
        error = None if instrument is None else (fitted - treatment.detach()).square().sum() / self.width
        return gate * fitted + (1 - gate) * treatment, error

    # --- (8), (9) ---------------------------------------------------------------------------------------------------

    def attended(self, queries: list[Tensor]) -> list[Tensor]:
        """Multi-head self-attention, without a residual connection."""
        heads, size = self.config["n_heads"], self.width // self.config["n_heads"]
        projected = [self.linear("searches.attention.input", query) for query in queries]
        outputs = []
        for own in projected:
            mixed = []
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                keys = [other[self.width : 2 * self.width][part] for other in projected]
                values = [other[2 * self.width :][part] for other in projected]
                weights = softmax([own[: self.width][part] @ key / size**0.5 for key in keys])
                mixed.append(total([weight * value for weight, value in zip(weights, values)]))
            outputs.append(self.linear("searches.attention.output", torch.cat(mixed)))
        return outputs

    def instrument(self, searches: list[Tensor], target: Tensor) -> Tensor | None:
        if not searches:
            return None
        of_target = self.weights["searches.of_target.weight"] @ target.detach()
        hidden = [torch.tanh(of_target + self.linear("searches.of_search", search)) for search in searches]
        weights = softmax([self.weights["searches.vote.weight"][0] @ values for values in hidden])
        return total([weight * search for weight, search in zip(weights, searches)])

    # --- all of it --------------------------------------------------------------------------------------------------

    def results(self, rows: list[Row]) -> tuple[list[list[Tensor]], dict[str, Tensor]]:
        """Logits of every candidate of every row, and the losses."""
        targets = [[self.decomposed(candidate) for candidate in row.candidates] for row in rows]
        item_errors = [error for of_row in targets for _, error in of_row]
        if self.config["variant"] == "regression_user_item":
            interests, user_errors = self.user_side(rows)
        else:
            histories = [[self.decomposed(item) for item in row.items] for row in rows]
            item_errors += [error for of_row in histories for _, error in of_row]
            vectors = [[vector for vector, _ in of_row] for of_row in histories]
            interests = self.pools("unit", vectors, [[vector for vector, _ in of_row] for of_row in targets])
            user_errors = []
        pairs = [
            torch.cat([target, interest])
            for of_row, interests_of_row in zip(targets, interests)
            for (target, _), interest in zip(of_row, interests_of_row)
        ]
        logits = iter(self.network("mlp", pairs))
        scores = [[next(logits)[0] for _ in row.candidates] for row in rows]
        losses = {"rec": cross_entropy(scores)}
        for name, weight, errors in (("item", "lambda_i", item_errors), ("user", "lambda_u", user_errors)):
            errors = [error for error in errors if error is not None]
            if errors:
                losses[f"{name}_regression"] = self.config[weight] * total(errors) / len(errors)
        return scores, losses

    def user_side(self, rows: list[Row]) -> tuple[list[list[Tensor]], list[Tensor | None]]:
        plain = [[self.item(candidate) for candidate in row.candidates] for row in rows]
        pools = self.pools("unit", [[self.item(item) for item in row.items] for row in rows], plain)
        interests, errors = [], []
        for row, of_row, pools_of_row in zip(rows, plain, pools):
            searches = self.attended([self.query(search.query) for search in row.searches])
            results = [
                self.regressed("user_regression", pool, self.instrument(searches, target))
                for target, pool in zip(of_row, pools_of_row)
            ]
            interests.append([vector for vector, _ in results])
            errors += [error for _, error in results if row.items]
        return interests, errors
