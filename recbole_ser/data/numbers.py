"""Numeric attributes of items and users: what models read of the ``float`` and ``float_seq`` columns.

Shapes: n entities, of which number 0 is padding, and W numbers each: one, or those of a vector.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor


def by_id(column: pd.Series, ids: np.ndarray, size: int) -> np.ndarray:
    """The numbers of the entities ``ids [rows]``, float64 ``[size, W]``; NaN where they are missing.

    Args:
        column: numbers, or vectors of one length (float64 arrays); one entry for each of ``ids``.
    """
    known = column.notna().to_numpy()
    entries = column[known].to_numpy()
    stacked = np.stack(list(entries)) if len(entries) and entries.dtype == object else entries.astype(np.float64)
    values: np.ndarray = stacked.reshape(len(entries), -1) if len(entries) else np.zeros((0, 1))
    table = np.full((size, values.shape[1]), np.nan)
    table[ids[known]] = values
    table[0] = np.nan
    return table


def standardised(values: np.ndarray, counts: np.ndarray) -> Tensor:
    """``values`` in units of their spread around their centre, float32 ``[n, W]``; missing ones are 0, the centre.

    Entity i counts ``counts[i]`` times.  The centre is the mean of the known values ``[W]``.  The spread is one number,
    the root mean square of the distances from it, so that the geometry of vectors is kept; it is 1 if all are equal.

    Args:
        values: float64 ``[n, W]``; NaN where a value is missing.
        counts: ``[n]``.
    """
    known = ~np.isnan(values[:, 0])
    weights = (counts * known).astype(np.float64)
    total = max(weights.sum(), 1.0)
    # Sums by einsum do not depend on the number of threads, as those of BLAS may.
    centre = np.einsum("i,iw->w", weights[known], values[known]) / total
    distances = np.where(known[:, None], values - centre, 0.0)
    square = np.einsum("i,iw,iw->", weights, distances, distances) / (total * values.shape[1])
    return _float32(distances / (np.sqrt(square) or 1.0))


def scaled(values: np.ndarray) -> np.ndarray:
    """``values`` from 0, the least of them, to 1, the greatest; all are 1 if they are equal.  NaN stays NaN."""
    least, greatest = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if not least < greatest:
        return np.where(np.isnan(values), values, 1.0)
    return (values - least) / (greatest - least)


def with_means(values: np.ndarray) -> Tensor:
    """``values [n, W]`` with the mean of its column in place of each NaN, float32; row 0, padding, is 0."""
    known = ~np.isnan(values[:, 0])
    means = values[known].mean(axis=0) if known.any() else 0.0
    table = np.where(known[:, None], values, means)
    table[0] = 0
    return _float32(table)


def with_zeros(values: np.ndarray) -> Tensor:
    """``values [n, W]`` with 0 in place of NaN, float32."""
    return _float32(np.where(np.isnan(values), 0.0, values))


def _float32(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
