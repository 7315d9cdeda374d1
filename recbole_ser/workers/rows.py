"""The rows of a batch that a worker has, those of all workers where a loss has to see them, and random draws for both.

A batch is divided into stretches of rows, one for each worker in their order.  What a model computes row by row needs
nothing from here.  A loss that compares rows, or that is a mean over something else than rows, passes its vectors or
its values through ``gather_rows``: it is then the loss of the whole batch, and every worker computes it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from recbole_ser.workers import group

_divided = True  # whether batches are divided now; if not, every worker has all rows
_seed: tuple[int, ...] = ()  # of the draws that all workers make alike
_drawn = 0  # how many times they have drawn


def own_part(rows: int) -> slice:
    """This worker's rows of a batch of ``rows``, at least one if there are as many rows as workers."""
    return slice(rows * group.rank() // group.count(), rows * (group.rank() + 1) // group.count())


@contextmanager
def division(divided: bool) -> Iterator[None]:
    """Inside this block a batch is ``divided`` among the workers, or is too small for that and every worker's."""
    global _divided
    before, _divided = _divided, divided
    try:
        yield
    finally:
        _divided = before


def gather_rows(values: Tensor) -> Tensor:
    """The rows of all workers, ``[sum of n, ...]`` in their order, from each one's ``values [n, ...]``.

    Every worker has to call it, in the same order of calls; the numbers of rows may differ.  Its gradient is the sum
    of the workers' gradients.  In a process alone the values are returned as they are.
    """
    if group.count() == 1 or not _divided:
        return values
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()  # not every backend adds these up
    return _Gathered.apply(values, _counts(len(values)))


def _counts(rows: int) -> list[int]:
    """The number of rows of each worker, of which this one has ``rows``."""
    if group.count() == 1 or not _divided:
        return [rows]
    counts = torch.zeros(group.count(), dtype=torch.int64)
    counts[group.rank()] = rows
    dist.all_reduce(counts)
    return counts.tolist()


class _Gathered(torch.autograd.Function):
    """Rows are gathered by a sum, in which each row is zero for all workers but one: numbers of rows may so differ."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, counts: list[int]) -> Tensor:
        first = sum(counts[: group.rank()])
        ctx.own = slice(first, first + len(values))
        everything = values.new_zeros(sum(counts), *values.shape[1:])
        everything[ctx.own] = values
        dist.all_reduce(everything)
        return everything

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[ctx.own], None


@contextmanager
def draws_seeded(*seed: int) -> Iterator[None]:
    """Inside this block what is ``drawn_alike`` depends on ``seed`` alone, whatever else is drawn in between."""
    global _seed, _drawn
    _seed, _drawn = seed, 0
    try:
        yield
    finally:
        _seed = ()


@contextmanager
def drawn_alike() -> Iterator[None]:
    """Inside this block all workers draw the same random numbers, if they draw the same shapes.

    Outside of ``draws_seeded``, and so outside of training, it changes nothing.
    """
    global _drawn
    if not _seed:
        yield
        return
    state = np.random.SeedSequence([*_seed, _drawn]).generate_state(1)
    _drawn += 1
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(int(state[0]))
        yield


def drawn_for_rows(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """Random numbers ``[rows, ...]`` for this worker's rows, the same that a process alone would draw for them.

    Args:
        draw: draws ``[n, ...]`` for n rows, where nothing but n depends on the worker.
    """
    counts = _counts(rows)
    with drawn_alike():
        drawn = draw(sum(counts))
    return drawn.split(counts)[group.rank() if len(counts) > 1 else 0]
