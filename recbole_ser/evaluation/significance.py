"""Whether two models differ, given the values of one metric for the same users."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

_FLIPS = 9999  # random choices of signs
_BLOCK = 1 << 22  # how many numbers are drawn together: 32 MiB
_ROUNDING = 1e-9  # sums that differ by less than this share are the same
_DECIMALS = 12  # of differences that are ranked


def paired_p_value(base: np.ndarray, other: np.ndarray) -> float | None:
    """The p-value of a two-sided paired t-test: 1 if nothing differs, ``None`` if all differences are the same."""
    differences = other - base
    if len(differences) and not differences.any():
        return 1.0
    if len(differences) < 2 or np.ptp(differences) == 0.0:
        return None
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def sign_flip_p_value(base: np.ndarray, other: np.ndarray, seed: int = 0) -> float | None:
    """The p-value of a two-sided sign-flip test: how often users' differences with random signs are as far from zero.

    It is that of SciPy's ``permutation_test`` with ``permutation_type="samples"``.  A metric has few different values,
    so here it is drawn how many of the users with equal differences keep their sign, and not each one's sign.
    ``None`` if there are no users.
    """
    sizes, counts = np.unique(np.abs(other - base), return_counts=True)  # [K]
    if not len(sizes):
        return None
    generator = np.random.default_rng(seed)
    observed = abs(float((other - base).sum()))
    rows, extreme = max(1, _BLOCK // len(sizes)), 1
    for start in range(0, _FLIPS, rows):
        kept = generator.binomial(counts, 0.5, (min(rows, _FLIPS - start), len(sizes)))
        sums = (2 * kept - counts) @ sizes
        extreme += int((np.abs(sums) >= observed * (1.0 - _ROUNDING)).sum())
    return extreme / (1 + _FLIPS)


def wilcoxon_p_value(base: np.ndarray, other: np.ndarray) -> float | None:
    """The p-value of Wilcoxon's two-sided signed-rank test, SciPy's, over the users who differ: 1 if there are none.

    ``None`` if there are no users.
    """
    differences = np.round(other - base, _DECIMALS)  # means over seeds that are equal may differ in the last bits
    if not len(differences):
        return None
    differences = differences[differences != 0.0]
    return float(stats.wilcoxon(differences).pvalue) if len(differences) else 1.0


TESTS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], float | None]]] = {
    "t": ("paired t-test", paired_p_value),
    "sign-flip": ("sign-flip test", sign_flip_p_value),
    "wilcoxon": ("Wilcoxon signed-rank test", wilcoxon_p_value),
}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p-values of several comparisons, corrected as Holm does; ``None`` is no comparison and stays.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none gets smaller than one before it.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for number, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - number)))
        corrected[place] = largest
    return corrected
