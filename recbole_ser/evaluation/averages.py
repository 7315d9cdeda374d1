"""Averages of values that belong to targets, of which a user may have several."""

from __future__ import annotations

import numpy as np


def means_of_users(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    """The mean of ``values [n, ...]`` over the targets of each of the different ``users [n]``: ``[users, ...]``.

    The users come in rising order; the value of a user with one target is that target's, bit for bit.
    """
    distinct, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    sums = np.zeros((len(distinct), *values.shape[1:]))
    np.add.at(sums, places, values)
    return sums / counts.reshape(-1, *[1] * (values.ndim - 1))
