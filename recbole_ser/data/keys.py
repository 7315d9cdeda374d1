"""Large sets of numbers."""

from __future__ import annotations

import numpy as np


def distinct(keys: np.ndarray) -> np.ndarray:
    """The distinct values of ``keys [n]``, rising.

    It is what ``np.unique`` gives, which takes 100 times as long for millions of keys in NumPy 2.4.
    """
    ordered = np.sort(keys)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered
