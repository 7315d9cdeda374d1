"""Negative items for training, drawn anew in every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_ser.data.histories import EventLog
from recbole_ser.data.instances import Split
from recbole_ser.errors import DataError

_ROUNDS = 20  # of drawing again; one who knows half of all items keeps a known one with a probability of 1e-6
_CELLS = 1 << 22  # pairs of users and items that are looked at together


class NegativeSampler:
    """Draws items that a user has no training interaction with.

    The user's validation and test items may be drawn: never drawing them would tell a model which they are.

    Items are drawn at random, and those that the user knows are drawn again.  What is still known after some rounds
    belongs to users who know nearly everything, and is drawn from exactly those items that the user does not know.  A
    known pair is found by binary search among all (user, item) pairs of training, each held as one number.

    Args:
        log, split: the events, and which of them are training events.
        target_num: items ``1 .. target_num - 1`` may be drawn, or those of them in ``split.known_items``.
        distribution: ``uniform`` over those items, or ``popularity``: in proportion to a power of the number of their
            training targets.
        alpha: that power.
        clicks: pairs (users, items) that are not drawn either, for the search task.
        pairs: the pairs of training, see `training_pairs`, if they have been found already.

    Raises:
        DataError: a user has training interactions with every item that could be drawn.
    """

    def __init__(
        self,
        log: EventLog,
        split: Split,
        target_num: int,
        distribution: str,
        alpha: float = 1.0,
        clicks: tuple[Tensor, Tensor] | None = None,
        pairs: Tensor | None = None,
    ) -> None:
        self.target_num = target_num
        # An item is drawn from this list, where it may stand more than once; ``None``: from all items.
        self.pool = log.items[split.train] if distribution == "popularity" else split.known_items
        self.limits: Tensor | None = None  # with them, entry n is drawn by a number between limits n - 1 and n
        if distribution == "popularity" and alpha != 1:
            assert self.pool is not None
            targets = torch.bincount(self.pool)  # [items], of each item
            self.pool = targets.nonzero().squeeze(1)
            self.limits = targets[self.pool].double().pow(alpha).cumsum(0)
        self.seen = training_pairs(log, split, target_num) if pairs is None else pairs
        if clicks is not None:
            users, items = clicks
            can_be_drawn = items < target_num
            self.seen = torch.unique(torch.cat([self.seen, self._key(users[can_be_drawn], items[can_be_drawn])]))
        weights = self._weights()
        self.drawable = weights.nonzero().squeeze(1)
        self.drawable_weights = weights[self.drawable]
        self._refuse_who_knows_all(weights > 0, len(log.user_start), distribution)

    def _refuse_who_knows_all(self, can_be_drawn: Tensor, users: int, distribution: str) -> None:
        starts = torch.searchsorted(self.seen, torch.arange(users) * self.target_num)
        if len(self.seen) and starts.diff().max() >= len(self.drawable):  # else there is nobody to look for
            pairs = self.seen[can_be_drawn[self.seen % self.target_num]]
            known = torch.bincount(pairs // self.target_num)  # [users]
            if len(known) and known.max() >= len(self.drawable):
                raise DataError("training data", f"a user knows every item that a {distribution} negative could be")

    def draw(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """``[B, count]`` negatives for ``users [B]``, int64; within a row they may repeat."""
        users = users.unsqueeze(1).expand(-1, count)  # [B, count]
        items = self._draw(users.shape, generator)
        for _ in range(_ROUNDS):
            seen = self._is_seen(users, items)
            if not seen.any():
                return items
            items[seen] = self._draw((int(seen.sum()),), generator)
        seen = self._is_seen(users, items)
        items[seen] = self._draw_unseen(users[seen], generator)
        return items

    def _draw_unseen(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """A negative for each of ``users [n]``, drawn from all items that the user does not know."""
        distinct, place = users.unique(return_inverse=True)
        items = torch.empty_like(users)
        width = len(self.drawable)
        rows = max(_CELLS // width, 1)
        for start in range(0, len(distinct), rows):  # in parts, which bounds the memory
            part = distinct[start : start + rows]
            seen = self._is_seen(part.unsqueeze(1), self.drawable)  # [part, drawable]
            # One long line of all weights: a user's stretch of it begins where the one before ends.
            ends = self.drawable_weights.masked_fill(seen, 0.0).flatten().cumsum(0)
            stretches = torch.cat([ends.new_zeros(1), ends[width - 1 :: width]])
            own = (place >= start) & (place < start + rows)
            low, high = stretches[place[own] - start], stretches[place[own] - start + 1]
            drawn = low + (high - low) * torch.rand(len(low), generator=generator, dtype=torch.float64)
            cell = torch.searchsorted(ends, drawn.minimum(high.nextafter(low)), right=True)
            items[own] = self.drawable[cell % width]
        return items

    def _weights(self) -> Tensor:
        """How often each item would be drawn, in proportion, float64 ``[target_num]``; 0: never."""
        if self.pool is None:
            weights = torch.ones(self.target_num, dtype=torch.float64)
            weights[0] = 0.0
            return weights
        if self.limits is None:
            return torch.bincount(self.pool, minlength=self.target_num).double()
        weights = torch.zeros(self.target_num, dtype=torch.float64)
        weights[self.pool] = self.limits.diff(prepend=torch.zeros(1, dtype=torch.float64))
        return weights

    def _draw(self, shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
        if self.pool is None:
            return torch.randint(1, self.target_num, shape, generator=generator)
        if self.limits is not None:
            drawn = torch.rand(shape, generator=generator, dtype=torch.float64) * self.limits[-1]
            return self.pool[torch.searchsorted(self.limits, drawn, right=True).clamp(max=len(self.pool) - 1)]
        return self.pool[torch.randint(len(self.pool), shape, generator=generator)].long()

    def _is_seen(self, users: Tensor, items: Tensor) -> Tensor:
        key = self._key(users, items)
        place = torch.searchsorted(self.seen, key).clamp(max=len(self.seen) - 1)
        return self.seen[place] == key

    def _key(self, users: Tensor, items: Tensor) -> Tensor:
        return _keys(users, items, self.target_num)


def training_pairs(log: EventLog, split: Split, target_num: int) -> Tensor:
    """The (user, item) pairs of the training period, each as ``user * target_num + item``, int64, rising."""
    training = split.training_interactions
    return torch.unique(_keys(log.users[training], log.items[training], target_num))


def _keys(users: Tensor, items: Tensor, target_num: int) -> Tensor:
    return users.long() * target_num + items
