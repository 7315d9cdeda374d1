"""The RQ-VAE of two sides (GSERec, section 4.1.2, Eq. 1 to 6).

Shapes: B rows, L levels, K codes on each level, w width of a code, d_s and d_r widths of the users' search and
recommendation vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_ser.codes.quantiser import ResidualQuantiser, collision_rate, repair_collisions
from recbole_ser.model.losses import Temperature
from recbole_ser.settings.codes import RQVAESpec

_ROWS = 16384  # how many rows are encoded at once


@dataclass(frozen=True)
class Losses:
    """The terms of Eq. 6 for a batch, and the users' codes.

    Attributes:
        reconstruction: ``[2]``, Eq. 4 of the search and of the recommendation side.
        contrast: scalar, Eq. 1.
        total: scalar, Eq. 6.
        nearest: int64 ``[2, B, L]``, the nearest codes of both sides.
    """

    reconstruction: Tensor
    contrast: Tensor
    total: Tensor
    nearest: Tensor


class Side(nn.Module):
    """The encoder, the codebooks and the decoder of one side.

    Args:
        inputs: width of the side's vectors.
        size: K, number of codes on each level of this side.
        spec: the other settings.
    """

    def __init__(self, inputs: int, size: int, spec: RQVAESpec) -> None:
        super().__init__()
        hidden = [width for width in spec.hidden if width <= 2 * inputs] or list(spec.hidden[-1:])
        widths = [inputs, *hidden, spec.width]
        self.encoder, self.decoder = mlp(widths), mlp(widths[::-1])
        self.quantiser = ResidualQuantiser(
            spec.levels, size, spec.width,
            commitment=spec.commitment, epsilon=spec.sinkhorn_epsilon, iterations=spec.sinkhorn_iterations,
        )  # fmt: skip

    @torch.no_grad()
    def assign(self, vectors: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The codes of the rows ``rows [m]`` of ``vectors [n, d]``, all of them distinct, with collisions repaired.

        Returns:
            The codes, int64 ``[m, L]``, and a report: ``collision_rate``, ``before`` and ``after`` the repair, and the
            number of ``repair_rounds``.
        """
        latents = torch.cat([self.encoder(vectors[part]) for part in rows.split(_ROWS)])  # [m, w]
        nearest, residuals = self.quantiser.codes(latents)
        codes, rounds = repair_collisions(nearest, residuals, self.quantiser.codebooks[-1])
        rate = {"before": collision_rate(nearest), "after": collision_rate(codes)}
        return codes, {"collision_rate": rate, "repair_rounds": rounds}


class RQVAE(nn.Module):
    """Two sides, which are coupled only by the contrastive loss between their latent vectors.

    The losses are means, to which the published weights belong: over rows and directions in Eq. 1; over rows and widths
    where Eq. 4 and 5 have squared norms; and over both sides and all levels in Eq. 5.  As in the paper tau_1 is learnt;
    in the published code it stays 0.1.

    Args:
        inputs: d_s and d_r.
        sizes: K of each side.
        spec: the other settings.
    """

    def __init__(self, inputs: Sequence[int], sizes: Sequence[int], spec: RQVAESpec) -> None:
        super().__init__()
        self.spec = spec
        self.search, self.rec = (Side(width, size, spec) for width, size in zip(inputs, sizes))
        self.temperature = Temperature(spec.temperature)  # tau_1

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.search, self.rec

    def no_weight_decay(self) -> set[str]:
        return {"temperature.raw"}

    def forward(self, search: Tensor, rec: Tensor) -> Losses:
        """The losses of ``search [B, d_s]`` and ``rec [B, d_r]``."""
        vectors = (search, rec)
        latents = [side.encoder(v) for side, v in zip(self.sides, vectors)]  # z_s, z_r [B, w]
        quantised = [side.quantiser(z) for side, z in zip(self.sides, latents)]
        decoded = [side.decoder(q.values) for side, q in zip(self.sides, quantised)]
        reconstruction = torch.stack([F.mse_loss(*pair) for pair in zip(decoded, vectors)])  # Eq. 4
        quantisation = (quantised[0].loss + quantised[1].loss) / 2  # Eq. 5
        total = reconstruction.sum() + self.spec.lambda_rq * quantisation  # Eq. 6
        contrast = total.new_zeros(())
        if self.spec.lambda_rq_cl:
            is_pair = search.any(dim=1) & rec.any(dim=1)  # zeros stand for an empty text, with which nothing can agree
            contrast = alignment_loss(latents[0][is_pair], latents[1][is_pair], self.temperature())
            total = total + self.spec.lambda_rq_cl * contrast
        return Losses(reconstruction, contrast, total, torch.stack([q.nearest for q in quantised]))

    @torch.no_grad()
    def start(self, vectors: Sequence[Tensor]) -> None:
        """Start all codebooks from the k-means centres of a batch, ``vectors [B, d_s]`` and ``[B, d_r]``."""
        for side, v in zip(self.sides, vectors):
            side.quantiser.start(side.encoder(v), self.spec.seed)

    @torch.no_grad()
    def revive(self, nearest: Tensor, vectors: Sequence[Tensor]) -> None:
        """Move the codes that are not among ``nearest [2, n, L]`` onto the latent vectors of some users in ``vectors``.

        This is not in the published code.  Without it, a third to two thirds of the first level's codes fall out of use
        in the first epochs, while the latent vectors are still close together, and stay out of use.
        """
        for side, codes, v in zip(self.sides, nearest, vectors):
            size = side.quantiser.codebooks.shape[1]
            used = torch.stack([torch.bincount(level, minlength=size) > 0 for level in codes.t()])  # [L, K]
            side.quantiser.revive(used, side.encoder(v))


def alignment_loss(search: Tensor, rec: Tensor, temperature: Tensor) -> Tensor:
    """InfoNCE between the sides (GSERec, Eq. 1): the mean over all rows of both sides as anchors (published code).

    The similarity is the cosine, and the negatives of a row are the other rows on the other side (published code: on
    both sides).  The positive is part of the denominator: without it the loss would have no lower bound, since the
    temperature is learnt.

    Args:
        search, rec: ``[B, w]``, the latent vectors of the same users on both sides.
        temperature: scalar.

    Returns:
        A scalar; 0 if there are no rows.
    """
    if not len(search):
        return temperature * 0.0
    logits = (F.normalize(search) / temperature) @ F.normalize(rec).t()  # [B, B]
    same_user = torch.arange(len(logits))
    return (F.cross_entropy(logits, same_user) + F.cross_entropy(logits.t(), same_user)) / 2


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers from each of ``widths`` to the next with ReLU between them; weights Xavier-normal, biases zero."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        linear = nn.Linear(before, after)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
