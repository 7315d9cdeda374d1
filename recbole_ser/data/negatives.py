"""Negative items for training, drawn anew in every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_ser.data.histories import EventLog
from recbole_ser.data.instances import Split
from recbole_ser.errors import DataError


class NegativeSampler:
    """Draws items that a user has no training interaction with.

    The user's validation and test items may be drawn: never drawing them would tell a model which they are.

    Items are drawn at random, and those that the user knows are drawn again until none is left.  A known pair is
    found by binary search among all (user, item) pairs of training, each held as one number.

    Args:
        log, split: the events, and which of them are training events.
        target_num: items ``1 .. target_num - 1`` may be drawn, or those of them in ``split.known_items``.
        distribution: ``uniform`` over those items, or ``popularity``: in proportion to a power of the number of their
            training targets.
        alpha: that power.
        clicks: pairs (users, items) that are not drawn either, for the search task.

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
        training = split.training_interactions
        seen = self._key(log.users[training], log.items[training])
        if clicks is not None:
            users, items = clicks
            can_be_drawn = items < target_num
            seen = torch.cat([seen, self._key(users[can_be_drawn], items[can_be_drawn])])
        self.seen = torch.unique(seen)  # sorted (user, item) pairs
        drawable = torch.zeros(target_num, dtype=torch.bool)
        drawable[1:] = True if self.pool is None else torch.bincount(self.pool, minlength=target_num)[1:] > 0
        # Drawing for a user who knows every drawable item would never end.
        known = torch.bincount((self.seen // target_num)[drawable[self.seen % target_num]])  # per user
        if len(known) and known.max() >= drawable.sum():
            raise DataError("training data", f"a user knows every item that a {distribution} negative could be")

    def draw(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """``[B, count]`` negatives for ``users [B]``, int64; within a row they may repeat."""
        users = users.unsqueeze(1).expand(-1, count)  # [B, count]
        items = self._draw(users.shape, generator)
        while (seen := self._is_seen(users, items)).any():
            items[seen] = self._draw((int(seen.sum()),), generator)
        return items

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
        return users.long() * self.target_num + items
