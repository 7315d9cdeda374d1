"""The RQ-VAE one row, one code at a time, from the equations; gradients of the quantiser written out by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def nearest(row: Tensor, codebook: Tensor) -> int:
    distances = [sum((a - b) ** 2 for a, b in zip(row.tolist(), code.tolist())) for code in codebook]
    return distances.index(min(distances))


def plain_sinkhorn(distances: Tensor, epsilon: float, iterations: int) -> list[list[float]]:
    """Centre, scale, exponentiate; then rows, then columns to equal sums, on the whole table every time."""
    table = distances.tolist()
    values = [value for row in table for value in row]
    middle, half = (max(values) + min(values)) / 2, (max(values) - min(values)) / 2
    plan = [[math.exp(-(value - middle) / half / epsilon) for value in row] for row in table]
    for _ in range(iterations):
        plan = [[value / sum(row) / len(plan) for value in row] for row in plan]
        sums = [sum(column) for column in zip(*plan)]
        plan = [[value / total / len(sums) for value, total in zip(row, sums)] for row in plan]
    return plan


def spread(rows: Tensor, codebook: Tensor, epsilon: float, iterations: int) -> list[int]:
    """The code of each row that Sinkhorn gives most of it."""
    distances = torch.stack([(row - codebook).square().sum(dim=1) for row in rows])
    return [row.index(max(row)) for row in plain_sinkhorn(distances, epsilon, iterations)]


def repaired(codes: list[tuple[int, ...]], residuals: Tensor, codebook: Tensor) -> tuple[list[tuple[int, ...]], int]:
    """Rounds in which all but the nearest row of a shared code move to the nearest one that was free before."""
    rounds = 0
    while True:
        before, moved = list(codes), False
        for row, code in enumerate(before):
            sharing = [other for other in range(len(before)) if before[other] == code]
            keeps = min(sharing, key=lambda other: (residuals[other] - codebook[code[-1]]).square().sum().item())
            free = [last for last in range(len(codebook)) if (*code[:-1], last) not in before]
            if row != keeps and free:
                nearest_free = free[nearest(residuals[row], codebook[free])]
                codes[row], moved = (*code[:-1], nearest_free), True
        if not moved:
            return codes, rounds
        rounds += 1


def training_codes(rows: Tensor, codebooks: Tensor, epsilon: float, iterations: int) -> list[list[int]]:
    """For each row its codes: the nearest ones, but those of Sinkhorn on the last level."""
    residuals = [row.detach() for row in rows]
    codes: list[list[int]] = [[] for _ in rows]
    for level, codebook in enumerate(codebooks.detach()):
        if level < len(codebooks) - 1:
            chosen = [nearest(residual, codebook) for residual in residuals]
        else:
            chosen = spread(torch.stack(residuals), codebook, epsilon, iterations)
        for row, code in enumerate(chosen):
            codes[row].append(code)
            residuals[row] = residuals[row] - codebook[code]
    return codes


def quantisation(
    rows: Tensor, codebooks: Tensor, codes: list[list[int]], commitment: float
) -> tuple[float, Tensor, Tensor, Tensor]:
    """Eq. 5 as a mean, its gradients with respect to rows and codebooks, and the sums of the codes."""
    rows, codebooks = rows.detach(), codebooks.detach()
    terms = rows.numel() * len(codebooks)
    loss = 0.0
    by_row, by_code, sums = torch.zeros_like(rows), torch.zeros_like(codebooks), torch.zeros_like(rows)
    for number, row in enumerate(rows):
        residual = row
        for level, code in enumerate(codes[number]):
            error = residual - codebooks[level, code]
            loss += (1 + commitment) * error.square().sum().item() / terms
            by_code[level, code] -= 2 * error / terms
            by_row[number] += 2 * commitment * error / terms
            sums[number] += codebooks[level, code]
            residual = error
    return loss, by_row, by_code, sums


def contrast(search: Tensor, rec: Tensor, temperature: Tensor) -> Tensor:
    """Eq. 1 as a mean over the rows of both sides, the positive among the terms of the denominator."""
    users = range(len(search))

    def similarity(left: Tensor, right: Tensor) -> Tensor:
        return (left @ right) / (left @ left).sqrt() / (right @ right).sqrt() / temperature

    total = torch.zeros(())
    for user in users:
        positive = similarity(search[user], rec[user]).exp()
        total = total - (positive / sum(similarity(search[user], rec[other]).exp() for other in users)).log()
        total = total - (positive / sum(similarity(search[other], rec[user]).exp() for other in users)).log()
    return total / (len(search) + len(rec))


def network(layers: nn.Sequential, row: Tensor) -> Tensor:
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(linear):
        row = layer.weight @ row + layer.bias
        row = row.clamp(min=0) if number < len(linear) - 1 else row
    return row


def adamw_step(value: Tensor, gradient: Tensor, rate: float, decay: float) -> Tensor:
    """The first step of AdamW: both moments, freed of their bias, are those of the one gradient."""
    return value * (1 - rate * decay) - rate * gradient / (gradient.abs() + 1e-8)
