"""What two workers gather, draw and add up, without a model: imports little, so that the processes start fast."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from recbole_ser.workers.group import from_first
from recbole_ser.workers.rows import division, drawn_alike, drawn_for_rows, draws_seeded, gather_rows

ROWS = torch.arange(15.0).view(5, 3)  # of which the first worker has two, and the second one three


def weighted(rows: torch.Tensor) -> torch.Tensor:
    """A loss in which every row meets all others."""
    return (rows @ rows.t()).tanh().mean()


def draw() -> torch.Tensor:
    return drawn_for_rows(lambda count: torch.rand(count, 2), 5)


def work(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    own = (ROWS[:2] if rank == 0 else ROWS[2:]).clone().mul_(0.1).requires_grad_()
    share = len(own) / 5
    (share * weighted(gather_rows(own))).backward()
    with draws_seeded(3, 4):
        torch.rand(rank + 1)  # what a worker draws for itself changes nothing
        first = drawn_for_rows(lambda count: torch.rand(count, 2), len(own))
        with drawn_alike():
            alike = torch.rand(2)
        with division(False):  # too small a batch: everybody has it
            assert len(gather_rows(own)) == len(own)
            everybody = draw()
    seen = from_first(lambda: f"from {rank}")
    torch.save([own.grad, first, alike, everybody, seen], folder / f"{rank}.pt")
    dist.destroy_process_group()
