"""Relations that training events establish: the queries that lead to an item, the neighbours in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recbole_ser.data.histories import EventLog
from recbole_ser.data.instances import Split


@dataclass(frozen=True)
class TrainingClicks:
    """One entry per item clicked under a search of the training period, in the log's order, all int64 ``[clicks]``."""

    users: Tensor
    searches: Tensor  # positions in the log
    queries: Tensor
    items: Tensor


def training_clicks(log: EventLog, split: Split) -> TrainingClicks:
    """The clicks at ``split.training_clicks``, whatever histories their searches have."""
    searches = log.searches_of_clicks(split.training_clicks)
    items = log.clicks[split.training_clicks].long()
    return TrainingClicks(log.search_users(searches), searches, log.queries[searches].long(), items)


class Relation(nn.Module):
    """For each of ``count`` ids the ids that it is related to, and an attribute of each relation, in flat arrays.

    It is a module so that its arrays move to the model's device with it; they are no part of its weights.

    Args:
        keys, values: int64 ``[E]``: ``keys[e]`` is related to ``values[e]``.
        count: number of key ids, the padding id 0 included; nothing is related to padding.
        attribute: int64 ``[E]``, a number that belongs to each relation; ``None``: 0 for all.
    """

    start: Tensor  # [count + 1] int64
    values: Tensor  # [E] int32
    attribute: Tensor  # [E] int32

    def __init__(self, keys: Tensor, values: Tensor, count: int, attribute: Tensor | None = None) -> None:
        super().__init__()
        order = torch.argsort(keys, stable=True)
        degree = torch.bincount(keys, minlength=count)
        start = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        attribute = torch.zeros_like(values) if attribute is None else attribute
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("values", values[order].int(), persistent=False)
        self.register_buffer("attribute", attribute[order].int(), persistent=False)

    def degree(self, ids: Tensor) -> Tensor:
        """The number of relations of each of ``ids [...]``, int64 ``[...]``."""
        return self.start[ids + 1] - self.start[ids]

    def sample(self, ids: Tensor, size: int, random: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Take ``size`` relations of each of ``ids [...]``, with replacement.

        Args:
            random: whether they are drawn uniformly; if not, they are evenly spaced among all relations of the id, and
                always the same ones.

        Returns:
            The values and attributes of the relations, int64 ``[..., size]`` (0 where an id has none), and a mask
            ``[..., size]`` that is true where the id has any.
        """
        degree = self.degree(ids).unsqueeze(-1)  # [..., 1]
        shape = (*ids.shape, size)
        if random:
            share = torch.rand(shape, device=ids.device)
        else:
            share = ((torch.arange(size, device=ids.device) + 0.5) / size).expand(shape)
        exists = (degree > 0).expand(shape)
        if not len(self.values):
            nothing = torch.zeros(shape, dtype=torch.int64, device=ids.device)
            return nothing, nothing, exists
        offset = torch.minimum((share * degree).long(), (degree - 1).clamp(min=0))
        place = (self.start[ids].unsqueeze(-1) + offset).clamp(max=len(self.values) - 1)
        return self.values[place].long() * exists, self.attribute[place].long() * exists, exists

    def most_frequent(self, width: int) -> Tensor:
        """``[count, width]`` int64: each id's related ids, most frequent first (of equals the lower), 0 behind them.

        Each distinct (key, value) pair is one number, and is counted.  Two stable sorts, first by frequency and then by
        key, order the pairs by (key, falling frequency, value).  A pair's rank within its key is its distance from the
        first pair of that key, and the pairs with a rank below ``width`` go to that row and column.
        """
        count = len(self.start) - 1
        high = int(self.values.max()) + 1 if len(self.values) else 1
        keys = torch.repeat_interleave(torch.arange(count, device=self.values.device), self.start.diff())
        pairs, frequency = torch.unique(keys * high + self.values, return_counts=True)  # rising
        order = torch.argsort(frequency, descending=True, stable=True)
        order = order[torch.argsort(pairs[order] // high, stable=True)]
        keys, values = pairs[order] // high, pairs[order] % high
        first = torch.searchsorted(keys, torch.arange(count, device=keys.device))
        rank = torch.arange(len(keys), device=keys.device) - first[keys]
        table = torch.zeros(count, width, dtype=torch.int64, device=keys.device)
        table[keys[rank < width], rank[rank < width]] = values[rank < width]
        return table
