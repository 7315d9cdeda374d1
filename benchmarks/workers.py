"""A training step of SESRec on one process and shared by several, part by part, on generated logs.

    python benchmarks/workers.py                       # Kindle's size; about five minutes and 5 GB of memory
    python benchmarks/workers.py --quick               # a tenth of the data set
    python benchmarks/workers.py --quick --items=1000000
    python benchmarks/workers.py --batch=1024          # positives in a step, of all processes together

Wall-clock times depend on what else runs on the machine, which is why the sides take turns, medians are shown, and CPU
seconds stand beside them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from measure import machine, print_table
from training_step import BATCH, CONFIG, Config, generated

from recbole_ser.data.loader import TrainLoader
from recbole_ser.model.search_aware.sesrec import SESRec
from recbole_ser.train.optimization import build_adam
from recbole_ser.train.synchrony import share_of_batch, sum_gradients
from recbole_ser.workers import group
from recbole_ser.workers.rows import draws_seeded

PARTS = ("load", "losses and gradients", "sum of gradients", "optimiser")
SIDES = {"1 process, 1 thread": (1, 1), "1 process, 2 threads": (1, 2), "2 workers, 1 thread each": (2, 1)}
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data set")
    parser.add_argument("--items", type=int, help="rows of the table of items, if more than the data set has")
    parser.add_argument("--batch", type=int, default=BATCH, help="positives in each step (%(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="steps in each turn")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    print(machine(), f"; load {os.getloadavg()[0]:.1f}", sep="")
    seconds: dict[str, list[list[float]]] = {name: [] for name in SIDES}
    for _ in range(arguments.turns):
        for name, (workers, threads) in SIDES.items():
            seconds[name] += in_processes(arguments, workers, threads)
            print(f"measured: {name}", file=sys.stderr)
    report(data(arguments), seconds, arguments.batch)


def in_processes(arguments: argparse.Namespace, workers: int, threads: int) -> list[list[float]]:
    """Seconds of each part and CPU seconds of all workers, for each step, as the first of ``workers`` measures them."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (arguments, workers, threads, folder), nprocs=workers)
        return torch.load(Path(folder) / "seconds.pt")


def data(arguments: argparse.Namespace) -> SimpleNamespace:
    dataset = generated(arguments.quick)
    dataset.item_num = max(dataset.item_num, arguments.items or 0)
    return dataset


def work(rank: int, arguments: argparse.Namespace, workers: int, threads: int, folder: str) -> None:
    torch.set_num_threads(threads)
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=workers)
    dataset = data(arguments)
    torch.manual_seed(0)
    model = SESRec(CONFIG, dataset).train()
    optimizer = build_adam(model, "adam", CONFIG["learning_rate"], CONFIG["weight_decay"])
    loader = TrainLoader(Config({**CONFIG, "train_batch_size": arguments.batch}), dataset)
    with draws_seeded(0):
        found = measured(model, optimizer, loader, arguments.steps)
    if rank == 0:
        torch.save(found, Path(folder) / "seconds.pt")
    if workers > 1:
        dist.destroy_process_group()


def measured(model: SESRec, optimizer: Any, loader: TrainLoader, steps: int) -> list[list[float]]:
    batches, found = iter(loader), []
    for number in range(WARM_UP + steps):
        cpu, times = time.process_time(), [time.perf_counter()]
        batch = next(batches)
        times.append(time.perf_counter())
        with share_of_batch(loader, number) as share:
            loss = share * model.calculate_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        times.append(time.perf_counter())
        sum_gradients(model.parameters())
        times.append(time.perf_counter())
        optimizer.step()
        times.append(time.perf_counter())
        cpu = float(group.summed(torch.tensor(time.process_time() - cpu)))
        found.append([*(after - before for before, after in zip(times, times[1:])), cpu])
    return found[WARM_UP:]


def report(dataset: SimpleNamespace, seconds: dict[str, list[list[float]]], batch: int) -> None:
    model = SESRec(CONFIG, dataset)
    numbers = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    mib = 4 * numbers / 2**20
    print(f"{dataset.item_num - 1:,} items; {mib:.1f} MiB of gradients in each step of {batch:,} positives")
    rows, alone = [], 0.0
    for name, steps in seconds.items():
        *parts, cpu = (statistics.median(values) for values in zip(*steps))
        whole = statistics.median(sum(values[:-1]) for values in steps)
        alone = alone or whole
        milliseconds = [f"{1000 * value:.1f}" for value in (*parts, whole, cpu)]
        rows.append([name, *milliseconds, f"{batch / whole:,.0f}", f"{alone / whole:.2f}"])
    print_table(["ms per step (median)", *PARTS, "whole", "CPU of all", "positives/s", "speed"], rows)


if __name__ == "__main__":
    main()
