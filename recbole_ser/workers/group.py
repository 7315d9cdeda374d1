"""The processes that train one model together: who they are, and what the first of them does for all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

from recbole_ser.errors import UserError
from recbole_ser.workers.started import started_as_several

Value = TypeVar("Value")

# What PyTorch says when a process at the other end is gone or silent.
_LOST = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|timed out", re.IGNORECASE)


def count() -> int:
    """The number of workers; 1 if this process trains alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this worker, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this worker is the one that writes files and speaks to the user."""
    return rank() == 0


def backend() -> str:
    """What carries tensors between workers: gloo on the CPU and, beside it, NCCL between GPUs."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def local_rank() -> int:
    """The number of this worker among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def on_this_machine() -> int:
    """The number of workers of this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if count() > 1 else 1


@contextmanager
def joined() -> Iterator[None]:
    """Inside this block the workers that were started together know each other; alone, a process changes nothing.

    Raises:
        UserError: another worker ended or cannot be reached.
    """
    begun = started_as_several() and not dist.is_initialized()
    if begun:
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        dist.init_process_group(backend())
    several = count() > 1
    try:
        yield
    except RuntimeError as error:
        if not several or not _LOST.search(str(error)):
            raise
        raise UserError(
            "another worker ended or cannot be reached, so this one ends, too: if nothing else is said, it was killed; "
            "'recbole-ser run --resume=FOLDER' goes on after the last epoch"
        ) from error
    finally:
        if begun:
            dist.destroy_process_group()


def from_first(function: Callable[[], Value]) -> Value:
    """What ``function`` returns to the first worker, which alone calls it, for all of them.

    Raises:
        UserError: the first worker met it; all others do, too.
    """
    if count() == 1:
        return function()
    found: list[tuple[Value | None, str | None]] = [(None, None)]
    if is_first():
        try:
            found = [(function(), None)]
        except UserError as error:
            found = [(None, str(error))]
    dist.broadcast_object_list(found, src=0)
    value, problem = found[0]
    if problem is not None:
        raise UserError(problem)
    return value  # type: ignore[return-value]


@contextmanager
def first_before_others() -> Iterator[None]:
    """The first worker runs this block before the others do, which so find the files that it makes."""
    if not is_first():
        _wait()
    yield
    if is_first():
        _wait()


def _wait() -> None:
    if count() > 1:
        dist.all_reduce(torch.zeros(1))


def summed(values: torch.Tensor) -> torch.Tensor:
    """``values`` of any shape, added up over the workers, without a gradient."""
    if count() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total
