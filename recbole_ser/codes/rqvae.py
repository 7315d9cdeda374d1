"""From two vectors of every user to discrete codes, by training an RQ-VAE on the vectors (GSERec, section 4.1.2).

Shapes: n users, L levels, K codes on each level, d_s and d_r widths of the users' search and recommendation vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from recbole_ser.codes.autoencoder import RQVAE
from recbole_ser.codes.quantiser import collision_rate, distinct_rows
from recbole_ser.errors import UserError
from recbole_ser.settings.codes import RQVAESpec
from recbole_ser.train.optimization import build_adam

_SIDES = ("search", "rec")


class Codes(NamedTuple):
    """The codes of every user on both sides, int64 ``[n, L]``, 0 to K - 1, and the report of ``fit_codes``."""

    search: np.ndarray
    rec: np.ndarray
    report: dict[str, Any]


def fit_codes(search: np.ndarray, rec: np.ndarray, spec: RQVAESpec, progress: bool = False) -> Codes:
    """Train an RQ-VAE on the users' vectors and give every user its codes.

    Users with the same vector on a side have the same codes there.  Other users that share all codes are told apart as
    far as ``repair_collisions`` can.  The same vectors, spec and number of threads give the same codes.

    Args:
        search, rec: ``[n, d_s]`` and ``[n, d_r]``; row u of both belongs to user u, and is zero if the text is empty.
        spec: settings of the RQ-VAE and of its training.
        progress: whether to show a progress bar.

    Returns:
        The codes and a report that JSON can hold: ``epochs``, ``steps`` and whether training ``stopped`` as
        ``converged`` or at the end of its ``budget``; ``contrast`` (Eq. 1, per epoch) and the ``temperature`` at the
        end; for ``search`` and ``rec`` how many vectors are ``distinct``, ``codebook_size``, ``reconstruction`` (Eq. 4
        of the side, per epoch), ``collisions`` (the collision rate per epoch, of the nearest codes that each user had
        when trained on), ``collision_rate`` ``before`` and ``after`` the repair and its ``repair_rounds``, and for each
        of ``levels`` the share of codes in ``use`` and the ``perplexity`` of the users' codes.  A collision rate is
        1 - distinct code tuples / distinct vectors.

    Raises:
        UserError: ``search`` or ``rec`` is no matrix of finite numbers with at least one row, or they have different
            numbers of rows.
    """
    inputs = [_matrix(search, "search"), _matrix(rec, "recommendation")]
    if len(inputs[0]) != len(inputs[1]):
        raise UserError(f"{len(inputs[0])} users have a search vector, {len(inputs[1])} a recommendation vector")
    distinct = [distinct_rows(vectors) for vectors in inputs]
    sizes = [max(1, min(spec.codebook_size, len(rows) // spec.users_per_code)) for rows, _ in distinct]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = RQVAE([vectors.shape[1] for vectors in inputs], sizes, spec)
        report = _train(model, inputs, [rows for rows, _ in distinct], progress)
    codes = []
    for name, size, side, vectors, (rows, kinds) in zip(_SIDES, sizes, model.sides, inputs, distinct):
        of_kinds, repair = side.assign(vectors, rows)
        codes.append(of_kinds[kinds].numpy())
        levels = [_level_report(level, size) for level in codes[-1].T]
        report[name] |= {"distinct": len(rows), "codebook_size": size, **repair, "levels": levels}
    return Codes(codes[0], codes[1], report)


def _matrix(vectors: np.ndarray, side: str) -> Tensor:
    if vectors.ndim != 2 or not vectors.size:
        raise UserError(f"{side} vectors: a row for each user is needed, not an array of shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        user = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise UserError(f"{side} vectors: row {user} is not finite")
    return torch.from_numpy(np.require(vectors, np.float32, ["C", "W"]))


def _level_report(codes: np.ndarray, size: int) -> dict[str, float]:
    share = np.bincount(codes, minlength=size) / len(codes)
    share = share[share > 0]
    return {"use": len(share) / size, "perplexity": float(np.exp(-(share * np.log(share)).sum()))}


class _Epoch(NamedTuple):
    reconstruction: list[float]  # the losses of both sides
    contrast: float
    collisions: list[float]  # the collision rates of both sides


def _train(model: RQVAE, inputs: Sequence[Tensor], distinct: Sequence[Tensor], progress: bool) -> dict[str, Any]:
    """Train on the vectors of both sides, and report on each epoch.

    ``distinct`` has the rows of each side that collisions are counted among.  Between two epochs, codes that no user
    has are moved onto some users' vectors, so that they get another chance; not after the last, whose codes stay.
    The weights are those of the last epoch (published code: those with the lowest collision rate).
    """
    spec, users = model.spec, len(inputs[0])
    batches = math.ceil(users / spec.batch_size)
    epochs = min(spec.epochs, math.ceil(spec.max_steps / batches))
    warm_up, window = max(1, epochs // 10), max(3, epochs // 5)  # epochs
    optimizer = build_adam(model, "adamw", spec.learning_rate, spec.weight_decay)
    schedule = LambdaLR(optimizer, partial(_learning_rate, warm_up=warm_up * batches, steps=epochs * batches))
    model.start([vectors[torch.randperm(users)[: spec.batch_size]] for vectors in inputs])
    curve: list[_Epoch] = []
    with tqdm(total=epochs, desc="RQ-VAE", dynamic_ncols=True, disable=None if progress else True) as bar:
        while True:
            losses, nearest = _train_epoch(model, inputs, batches, optimizer, schedule)
            rates = [collision_rate(codes[rows]) for codes, rows in zip(nearest, distinct)]
            curve.append(_Epoch(losses[:2], losses[2], rates))
            bar.set_postfix_str(f"reconstruction {sum(losses[:2]):.3g}, collisions {sum(rates) / 2:.2%}")
            bar.update()
            converged = _has_converged(curve, window, spec.tolerance)
            if converged or len(curve) == epochs:
                break
            model.revive(nearest, [vectors[torch.randperm(users)[: spec.batch_size]] for vectors in inputs])
    sides = {
        name: {
            "reconstruction": [epoch.reconstruction[side] for epoch in curve],
            "collisions": [epoch.collisions[side] for epoch in curve],
        }
        for side, name in enumerate(_SIDES)
    }
    return {
        "epochs": len(curve), "steps": len(curve) * batches, "stopped": "converged" if converged else "budget",
        "contrast": [epoch.contrast for epoch in curve], "temperature": model.temperature().item(), **sides,
    }  # fmt: skip


def _train_epoch(
    model: RQVAE, inputs: Sequence[Tensor], batches: int, optimizer: Optimizer, schedule: LambdaLR
) -> tuple[list[float], Tensor]:
    """Train on all users once.

    Returns:
        The mean losses (Eq. 4 of both sides, Eq. 1), and the users' nearest codes on both sides ``[2, n, L]``.
    """
    users = len(inputs[0])
    nearest = torch.empty(len(inputs), users, model.spec.levels, dtype=torch.int64)
    sums = torch.zeros(3)
    for rows in torch.randperm(users).tensor_split(batches):
        losses = model(*(vectors[rows] for vectors in inputs))
        optimizer.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), model.spec.gradient_norm)
        optimizer.step()
        schedule.step()
        nearest[:, rows] = losses.nearest
        sums += len(rows) * torch.cat([losses.reconstruction, losses.contrast.reshape(1)]).detach()
    return (sums / users).tolist(), nearest


def _learning_rate(step: int, warm_up: int, steps: int) -> float:
    """The share of the full learning rate in step 0, 1, ...: it rises to 1 in the warm-up and then falls towards 0."""
    return min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


def _has_converged(curve: Sequence[_Epoch], window: int, tolerance: float) -> bool:
    """Whether training has stopped improving.

    That is so when, in the last ``window`` epochs, neither the reconstruction loss nor the collision rate has fallen
    below its lowest value before by more than the share ``tolerance``.
    """
    if len(curve) <= 2 * window:
        return False
    figures = [(sum(epoch.reconstruction), sum(epoch.collisions)) for epoch in curve]
    return all(min(series[-window:]) >= (1 - tolerance) * min(series[:-window]) for series in zip(*figures))
