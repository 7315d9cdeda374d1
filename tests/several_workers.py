"""What one worker of several, or a process alone, computes: the losses and gradients of whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recbole_ser.config import SERConfig
from recbole_ser.data.dataset import SERDataset
from recbole_ser.data.loader import TrainLoader
from recbole_ser.model.base import SearchRecommender
from recbole_ser.model.building import build_model
from recbole_ser.model.foreign import with_history
from recbole_ser.model.layers import Dropout
from recbole_ser.runner import run
from recbole_ser.train.synchrony import share_of_batch, sum_gradients, summed_losses
from recbole_ser.workers.rows import draws_seeded

Step = tuple[dict[str, Tensor], dict[str, Tensor]]  # losses, and gradients by the names of parameters


def built(name: str, folder: Path, values: dict[str, Any]) -> tuple[Any, SERDataset]:
    """A model without dropout, and its data set, which is in ``folder``."""
    places = {"codes_file": str(folder / "contract.codes"), "texts_folder": str(folder / "contract.texts")}
    config = SERConfig(name, "contract", None, {"data_path": str(folder), **places, **values})
    dataset = SERDataset(config)
    model = build_model(config, dataset).train()
    for module in model.modules():
        if isinstance(module, Dropout):
            module.cut = 0
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model, dataset


def steps(name: str, folder: Path, values: dict[str, Any], numbers: Sequence[int]) -> list[Step]:
    """The losses and gradients of the batches ``numbers`` of the first epoch (-1: the last), all with first weights."""
    model, dataset = built(name, folder, values)
    loader = TrainLoader(dataset.config, dataset)
    chosen = {number % len(loader) for number in numbers}
    with draws_seeded(5):
        if isinstance(model, SearchRecommender):
            model.begin_epoch(0)
        return [step(model, loader, number, batch) for number, batch in enumerate(loader) if number in chosen]


def step(model: Any, loader: TrainLoader, number: int, batch: Any) -> Step:
    model.zero_grad()
    with share_of_batch(loader, number) as share:
        if isinstance(model, SearchRecommender):
            losses = model.losses(batch)
        else:
            losses = {"loss": model.calculate_loss(with_history(model, batch))}
    losses = {name: share * loss for name, loss in losses.items()}
    torch.stack(list(losses.values())).sum().backward()
    sum_gradients(model.parameters())
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return summed_losses(losses), gradients


def work(rank: int, workers: int, folder: Path, jobs: dict[str, tuple[str, dict[str, Any], Sequence[int]]]) -> None:
    """One of ``workers`` processes; the first writes what all jobs gave to ``folder``/<workers>.pt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{workers}", rank=rank, world_size=workers)
    try:
        found = {name: steps(model, folder, values, numbers) for name, (model, values, numbers) in jobs.items()}
        if rank == 0:
            torch.save(found, folder / f"{workers}.pt")
    finally:
        dist.destroy_process_group()


def train(rank: int, workers: int, folder: Path, values: dict[str, Any]) -> None:
    """A whole run in double precision, as one of ``workers``, in ``folder``/<workers>."""
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo", init_method=f"file://{folder}/run-{workers}", rank=rank, world_size=workers)
    try:
        run(
            "SESRec",
            "contract",
            config_dict={**values, "data_path": str(folder), "run_dir": str(folder / str(workers))},
        )
    finally:
        dist.destroy_process_group()
