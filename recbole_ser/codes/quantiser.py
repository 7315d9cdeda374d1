"""Residual quantisation (GSERec, Eq. 2, 3 and 5), Sinkhorn assignment and the repair of collisions.

Shapes: B rows, L levels, K codes on each level, w width of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_KMEANS_ITERATIONS = 100  # published code
_ROWS = 16384  # rows whose distances to all codes are held at once


@dataclass(frozen=True)
class Quantised:
    """What the quantiser returns for B rows in training.

    Attributes:
        values: ``[B, w]``, the sum of each row's codes; its gradient is passed on to the row (straight-through).
        loss: scalar, GSERec, Eq. 5 of one side.
        nearest: ``[B, L]`` int64, s_1 to s_L of Eq. 2.  On the last level the values and the loss may use another
            code, the one that ``sinkhorn`` assigns.
    """

    values: Tensor
    loss: Tensor
    nearest: Tensor


class ResidualQuantiser(nn.Module):
    """L codebooks, each of which quantises the residual that the ones before it left.

    The loss is a mean over levels, rows and width where Eq. 5 has sums, and its second term is weighted: the published
    weights belong to means.  A level takes the codes of earlier levels as constants but not the row itself, so the
    second term of every level reaches the encoder (published code: only that of the first level).

    Args:
        levels, size, width: L, K and w.
        commitment: weight of the second term of Eq. 5, which draws the rows to their codes.
        epsilon, iterations: arguments of ``sinkhorn``, which assigns the codes of the last level in training
            (published code).
    """

    def __init__(
        self, levels: int, size: int, width: int, *, commitment: float, epsilon: float, iterations: int
    ) -> None:
        super().__init__()
        self.commitment, self.epsilon, self.iterations = commitment, epsilon, iterations
        self.codebooks = nn.Parameter(torch.zeros(levels, size, width))

    def forward(self, rows: Tensor) -> Quantised:
        """Quantise ``rows [B, w]`` in training."""
        residual, total = rows, torch.zeros_like(rows)  # r_0 = z
        loss, nearest = rows.new_zeros(()), []
        for level, codebook in enumerate(self.codebooks, start=1):
            distances = squared_distances(residual.detach(), codebook.detach())  # [B, K]
            used = distances.argmin(dim=1)  # Eq. 2
            nearest.append(used)
            if level == len(self.codebooks):
                used = sinkhorn(distances, self.epsilon, self.iterations).argmax(dim=1)
            code = F.embedding(used, codebook)  # [B, w]
            to_residual, to_code = F.mse_loss(code, residual.detach()), F.mse_loss(residual, code.detach())
            loss = loss + (to_residual + self.commitment * to_code) / len(self.codebooks)  # Eq. 5
            residual = residual - code.detach()
            total = total + code.detach()
        return Quantised(rows + (total - rows).detach(), loss, torch.stack(nearest, dim=1))

    @torch.no_grad()
    def codes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest codes of ``rows [B, w]`` (Eq. 2 and 3).

        Returns:
            The codes, int64 ``[B, L]``, and the residuals that the last level quantises, ``[B, w]``.
        """
        codes, residuals = [], [rows]
        for codebook in self.codebooks:
            codes.append(nearest_codes(residuals[-1], codebook))
            residuals.append(residuals[-1] - codebook[codes[-1]])
        return torch.stack(codes, dim=1), residuals[-2]

    @torch.no_grad()
    def start(self, rows: Tensor, seed: int) -> None:
        """Set each level's codes to the k-means centres of the residuals of ``rows [B, w]`` there (published code)."""
        for codebook in self.codebooks:
            codebook.copy_(kmeans(rows, len(codebook), seed))
            rows = rows - codebook[nearest_codes(rows, codebook)]

    @torch.no_grad()
    def revive(self, used: Tensor, rows: Tensor) -> None:
        """Move codes that are not ``used [L, K]`` onto the residuals of some of ``rows [B, w]``, drawn at random."""
        for idle, codebook in zip(~used, self.codebooks):
            drawn = rows[torch.randperm(len(rows))[: int(idle.sum())]]
            codebook[torch.nonzero(idle).squeeze(1)[: len(drawn)]] = drawn
            rows = rows - codebook[nearest_codes(rows, codebook)]


def squared_distances(rows: Tensor, codebook: Tensor) -> Tensor:
    """Squared Euclidean distances ``[B, K]`` of ``rows [B, w]`` from ``codebook [K, w]``."""
    products = torch.addmm(codebook.square().sum(dim=1), rows, codebook.t(), alpha=-2)
    return products.add_(rows.square().sum(dim=1, keepdim=True))


def nearest_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """The code in ``codebook [K, w]`` that is nearest to each of ``rows [B, w]``: int64 ``[B]``."""
    return torch.cat([squared_distances(part, codebook).argmin(dim=1) for part in rows.split(_ROWS)])


def kmeans(rows: Tensor, size: int, seed: int) -> Tensor:
    """``[size, w]`` k-means centres of ``rows [B, w]``; centres repeat where fewer than ``size`` rows are distinct."""
    from sklearn.cluster import KMeans

    points = rows.numpy()
    clusters = min(size, len(np.unique(points, axis=0)))
    model = KMeans(clusters, n_init=1, max_iter=_KMEANS_ITERATIONS, random_state=seed).fit(points)
    return torch.from_numpy(model.cluster_centers_)[torch.arange(size) % clusters]


def sinkhorn(distances: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Spread the rows evenly over the codes, each row over codes near to it (published code), in double precision.

    Args:
        distances: ``[B, K]``; they are scaled to differences of at most 2.
        epsilon: entropy weight, at least ``settings.codes.SMALLEST_EPSILON``; a row is the nearer to its code, the
            smaller it is.
        iterations: how often the rows, and then the columns, are scaled to equal sums.

    Returns:
        float64 ``[B, K]``, the share of each row that goes to each code: columns sum to 1 / K, rows roughly to 1 / B.
    """
    distances = distances.double()
    scale = ((distances.max() - distances.min()) / 2).clamp(min=1e-30)
    least = distances.amin(dim=1, keepdim=True)  # a factor of each row, which its first scaling takes out again
    kernel = torch.exp((least - distances) / (scale * epsilon))
    rows, codes = kernel.shape
    of_codes = kernel.new_ones(codes)
    for _ in range(iterations):
        of_rows = 1 / (rows * (kernel @ of_codes))  # [B]
        of_codes = 1 / (codes * (of_rows @ kernel))  # [K]
    return of_rows.unsqueeze(1) * kernel * of_codes


def repair_collisions(codes: Tensor, residuals: Tensor, codebook: Tensor) -> tuple[Tensor, int]:
    """Give rows that share all their codes different codes on the last level.

    Rows with the same codes before the last level form a branch; within a branch only the last code tells them apart.
    In each round the row nearest to a shared code keeps it, and each of the others moves to the nearest code that no
    row of its branch had before the round.  Several may move to the same one: the next round sorts them out.  Each
    round takes up at least one more code of every branch with a collision, so there are at most K rounds; they end when
    no code is shared, or only in branches that have no free code left.

    (Published code: 20 rounds of ``sinkhorn`` among the rows that share a code, without regard to which codes are
    taken; collisions remain, and the new codes are far from the nearest.)

    Args:
        codes: int64 ``[n, L]``, the nearest codes of n distinct rows.
        residuals: ``[n, w]``, what the last level quantises of each row.
        codebook: ``[K, w]``, the codes of the last level.

    Returns:
        The new codes ``[n, L]`` and the number of rounds.
    """
    earlier = codes.clone()
    earlier[:, -1] = 0
    kinds, branch = torch.unique(earlier, dim=0, return_inverse=True)  # branch [n]: the number of each row's branch
    last, rounds = codes[:, -1].clone(), 0  # [n]
    while True:
        # Sort the rows by (branch, last code, distance): all but the first of each place have to move.
        place = branch * len(codebook) + last
        order = torch.argsort((residuals - codebook[last]).square().sum(dim=1), stable=True)
        order = order[torch.argsort(place[order], stable=True)]
        moving = order[1:][place[order].diff() == 0]
        is_taken = torch.zeros(len(kinds), len(codebook), dtype=torch.bool)
        is_taken[branch, last] = True
        moving = moving[~is_taken[branch[moving]].all(dim=1)]  # only where the branch has a free code
        if not len(moving):
            return torch.cat([codes[:, :-1], last.unsqueeze(1)], dim=1), rounds
        for rows in moving.split(_ROWS):
            distances = squared_distances(residuals[rows], codebook)  # [rows, K]
            last[rows] = distances.masked_fill(is_taken[branch[rows]], torch.inf).argmin(dim=1)
        rounds += 1


def collision_rate(codes: Tensor) -> float:
    """The share of rows of ``codes [n, L]`` that are superfluous: 1 - distinct rows / rows."""
    return 1 - len(torch.unique(codes, dim=0)) / len(codes)


def distinct_rows(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Find the rows of ``vectors [n, d]`` that are the same, byte for byte.

    Returns:
        The first row of each of the m kinds of rows, int64 ``[m]``, and the kind of each row, int64 ``[n]``.
    """
    rows = vectors.numpy()
    keys = rows.view(np.dtype((np.void, rows.strides[0]))).ravel()
    order = np.argsort(keys, kind="stable")
    is_first = np.ones(len(order), dtype=bool)
    for start in range(1, len(order), _ROWS):  # in parts, as a sorted copy may be large
        part = order[start - 1 : start + _ROWS]
        is_first[start : start + _ROWS] = keys[part[1:]] != keys[part[:-1]]
    kinds = np.empty(len(order), dtype=np.int64)
    kinds[order] = np.cumsum(is_first) - 1
    return torch.from_numpy(order[is_first]), torch.from_numpy(kinds)
