"""Running means of the named losses of one epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recbole_ser.errors import UserError
from recbole_ser.runs.result import shown_losses


class LossMeans:
    """Means over the batches so far.  Losses are read from the device once per ``read_every`` batches, not at each.

    Args:
        epoch: the epoch, which the error names.
        read_every: number of batches between two readings; each reading waits for a GPU to catch up.
        weight_of: what the loss of a name has been multiplied by.
    """

    def __init__(self, epoch: int, read_every: int, weight_of: Callable[[str], float] = lambda name: 1.0) -> None:
        self.epoch = epoch
        self.read_every = read_every
        self._weight_of = weight_of
        self._unread: list[dict[str, Tensor]] = []
        self._sums: dict[str, float] = {}
        self._batches = 0

    def add(self, losses: dict[str, Tensor]) -> bool:
        """Add the scalar losses of one batch.

        Returns:
            Whether the losses were read, so that the means are up to date.

        Raises:
            UserError: a loss is NaN or infinite (in this batch or an unread one before it).
        """
        self._unread.append(losses)
        if len(self._unread) < self.read_every:
            return False
        self.read()
        return True

    def read(self) -> dict[str, float]:
        """The mean of each loss over all batches added, by name.

        Raises:
            UserError: a loss is NaN or infinite.
        """
        rows = [torch.stack(list(losses.values())).float() for losses in self._unread]
        values = torch.stack(rows).tolist() if rows else []
        for losses, row in zip(self._unread, values):
            for name, value in zip(losses, row):
                if not math.isfinite(value):
                    raise self._diverged(name, value)
                self._sums[name] = self._sums.get(name, 0.0) + value
            self._batches += 1
        self._unread.clear()
        return {name: total / self._batches for name, total in self._sums.items()}

    def weights(self) -> dict[str, float]:
        """The weights, by name, of the losses read that have another one than 1."""
        return {name: weight for name in self._sums if (weight := self._weight_of(name)) != 1}

    def __str__(self) -> str:
        return shown_losses({name: total / self._batches for name, total in self._sums.items()}, self.weights())

    def _diverged(self, name: str, value: float) -> UserError:
        return UserError(
            f"loss '{name}' is {value} in epoch {self.epoch}, batch {self._batches}: "
            "training diverged; lower learning_rate, set clip_grad_norm, or turn enable_amp off"
        )
