"""Lists of different lengths in flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, end to end: list i is ``values[starts[i]:starts[i + 1]]``."""

    values: np.ndarray
    starts: np.ndarray

    def padded(self, width: int) -> np.ndarray:
        """The first ``width`` values of each list, right-padded with 0: ``[len, width]``."""
        columns = np.arange(width)
        lengths = np.diff(self.starts)
        inside = columns < lengths[:, None]  # [len, width]
        table = np.zeros(inside.shape, dtype=self.values.dtype)
        table[inside] = self.values[(self.starts[:-1, None] + columns)[inside]]
        return table

    def table(self, rows: np.ndarray, size: int, max_width: int | None = None) -> np.ndarray:
        """int32 ``[size, W]`` with list i in row ``rows[i]`` and zeros elsewhere.

        W is the length of the longest list, or ``max_width`` if that is less; longer lists are cut.
        """
        width = int(np.diff(self.starts).max(initial=1))
        width = width if max_width is None else min(width, max_width)
        table = np.zeros((size, width), dtype=np.int32)
        table[rows] = self.padded(width)
        return table

    def take(self, rows: np.ndarray) -> Ragged:
        """The lists with the indices ``rows``, in that order."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        shift = np.repeat(self.starts[:-1][rows] - starts[:-1], lengths)
        return Ragged(self.values[np.arange(starts[-1]) + shift], starts)

    def truncated(self, width: int) -> Ragged:
        """The first ``width`` values of each list."""
        lengths = np.diff(self.starts)
        position = np.arange(len(self.values)) - np.repeat(self.starts[:-1], lengths)
        starts = np.concatenate([[0], np.cumsum(np.minimum(lengths, width))])
        return Ragged(self.values[position < width], starts)

    def contain(self, marked: np.ndarray) -> np.ndarray:
        """bool ``[len + 1]``: whether each list contains one of the ``marked`` values; the last entry, -1, is false."""
        owners = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        return np.append(np.bincount(owners[marked[self.values]], minlength=len(self.starts) - 1) > 0, False)
