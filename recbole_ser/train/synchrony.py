"""What keeps the models of several workers the same: one start, and the sum of their gradients in every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recbole_ser.workers import group
from recbole_ser.workers.rows import division

ALONE_FROM = 1 << 18  # numbers in a gradient from which on it is not copied to be sent with others


@contextmanager
def share_of_batch(loader: Any, number: int) -> Iterator[float]:
    """Inside this block the losses of batch ``number`` of ``loader`` are computed.

    Yields:
        What this worker's losses are multiplied by, so that their sums over the workers are the losses of the batch.
        A mean over rows weighs as much as the worker's share of the rows; a loss that is computed from all rows is the
        same for every worker, and the shares add up to one.
    """
    if group.count() == 1:
        yield 1.0
        return
    with division(loader.is_divided(number)):
        yield loader.share(number)


def summed_losses(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses of the batch, by name and without gradients, from the worker's own."""
    if group.count() == 1:
        return {name: loss.detach() for name, loss in losses.items()}
    return dict(zip(losses, group.summed(torch.stack(list(losses.values()))).unbind()))


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all workers; a parameter has one if it has one for any of them.

    Large gradients, those of embedding tables, are summed where they are; the others are sent together.
    """
    if group.count() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    reached = group.summed(torch.tensor([parameter.grad is not None for parameter in trained]).int()).tolist()
    gradients = []
    for parameter, by_any in zip(trained, reached):
        if by_any:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = gradient
            gradients.append(gradient)
    large = [each for each in gradients if each.numel() >= ALONE_FROM and each.is_contiguous()]
    alone = {id(each) for each in large}
    small = [each for each in gradients if id(each) not in alone]
    pending = [dist.all_reduce(gradient, async_op=True) for gradient in large]
    if small:
        together = torch.cat([gradient.reshape(-1) for gradient in small])
        dist.all_reduce(together)
        for gradient, part in zip(small, together.split([gradient.numel() for gradient in small])):
            gradient.copy_(part.view_as(gradient))
    for work in pending:
        work.wait()


def start_alike(model: nn.Module) -> None:
    """Give all workers the weights of the first one."""
    if group.count() > 1:
        for value in model.state_dict().values():
            dist.broadcast(value, src=0)
