"""LightGCN, SGL and SimGCL written slowly from their equations: a dense adjacency, and one row and node at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Edges = Iterable[tuple[int, int]]


def adjacency(edges: Edges, users: int, items: int) -> Tensor:
    """The normalised adjacency of all nodes, users first."""
    edges = set(edges)
    matrix = torch.zeros(users + items, users + items, dtype=torch.float64)
    for user, item in edges:
        of_user = sum(other == user for other, _ in edges)
        of_item = sum(other == item for _, other in edges)
        matrix[user, users + item] = matrix[users + item, user] = 1 / math.sqrt(of_user * of_item)
    return matrix


def layers(matrix: Tensor, start: Tensor, count: int, change: Callable[[Tensor], Tensor] = lambda x: x) -> list[Tensor]:
    result = [start]
    for _ in range(count):
        result.append(change(matrix @ result[-1]))
    return result


def mean(tables: list[Tensor]) -> Tensor:
    return sum(tables[1:], tables[0]) / len(tables)


def noisy(noise: Iterable[Tensor], length: float) -> Callable[[Tensor], Tensor]:
    """Adds the next of ``noise`` to a layer, for every node scaled to ``length`` and with the signs of its vector."""
    tables = iter(noise)

    def change(table: Tensor) -> Tensor:
        rows = []
        for vector, drawn in zip(table, next(tables)):
            direction = drawn / math.sqrt(sum(float(x) ** 2 for x in drawn))
            rows.append(torch.stack([x + length * step * torch.sign(x) for x, step in zip(vector, direction)]))
        return torch.stack(rows)

    return change


def bpr(scores: list[tuple[Tensor, list[Tensor]]]) -> Tensor:
    pairs = [-torch.log(torch.sigmoid(good - bad)) for good, others in scores for bad in others]
    return sum(pairs, torch.zeros(())) / len(pairs)


def softmax(scores: list[tuple[Tensor, list[Tensor]]]) -> Tensor:
    """``scores`` have the positive and all items, itself among them."""
    rows = [torch.log(sum(torch.exp(score) for score in every)) - good for good, every in scores]
    return sum(rows, torch.zeros(())) / len(rows)


def half_squares(vectors: list[Tensor], rows: int) -> Tensor:
    return sum((x**2 for vector in vectors for x in vector), torch.zeros(())) / 2 / rows


def contrast(left: Tensor, right: Tensor, nodes: Iterable[int], temperature: float) -> Tensor:
    nodes = sorted(set(nodes))

    def power(one: int, other: int) -> Tensor:
        a, b = left[one], right[other]
        return torch.exp(a @ b / (a.norm() * b.norm()) / temperature)

    losses = [-torch.log(power(node, node) / sum(power(node, other) for other in nodes)) for node in nodes]
    return sum(losses, torch.zeros(())) / len(losses)
