"""Training steps and evaluation on a GPU: precision, compilation, batch size, and how long the GPU waits.

    python benchmarks/gpu.py                                        # ten minutes or less; Kindle's size, generated
    python benchmarks/gpu.py --models SESRec --batches 1024 --minutes=3
    python benchmarks/gpu.py --device=cpu --models SASRec --batches 64 --steps=2 --preset=ser-sample   # it runs

The contract tests of all models run on the GPU first.  Each row is one configuration: milliseconds per step, positives
per second, the share of the step in which no kernel runs (loading, Python, waiting), peak memory on the GPU, and
targets that are evaluated per second.  Several GPUs: start it under torchrun, and each row is of all of them together.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import machine, print_table

from recbole_ser import SERConfig, prepare
from recbole_ser.cli import main as recbole_ser
from recbole_ser.model.base import SearchRecommender
from recbole_ser.runner import Prepared, build_trainer
from recbole_ser.runs.folder import RunFolder
from recbole_ser.train.synchrony import share_of_batch
from recbole_ser.train.trainer import SERTrainer
from recbole_ser.workers import group
from recbole_ser.workers.rows import draws_seeded

HEADER = ("model", "batch", "precision", "ms per step", "positives/s", "no kernel", "peak MiB", "targets/s")
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["SESRec", "GSERec", "UniSAR", "SASRec"])
    parser.add_argument("--batches", nargs="+", type=int, default=[256, 1024, 4096, 16384])
    parser.add_argument("--precisions", nargs="+", choices=("float32", "amp", "compiled"), default=["float32", "amp"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10.0, help="no further row is begun after this time")
    parser.add_argument("--preset", default="kindle", help="of recbole-ser synthesize")
    parser.add_argument("--scale", type=float, default=1.0, help="of its numbers of users, items and events")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--no-contract", action="store_true", help="leave out the contract tests")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU; --device=cpu shows that the script runs")
    with group.joined(), tempfile.TemporaryDirectory() as own:
        folder = Path(group.from_first(lambda: own))  # one for all processes
        measured(arguments, folder, time.monotonic() + 60 * arguments.minutes)


def measured(arguments: argparse.Namespace, folder: Path, end: float) -> None:
    if group.is_first():
        name = torch.cuda.get_device_name() if arguments.device == "cuda" else "no GPU"
        print(f"{machine()}; {name}; {group.count()} processes")
        if not arguments.no_contract and group.count() == 1:
            contract()
    size = [f"--preset={arguments.preset}", f"--scale={arguments.scale}"]
    if group.from_first(lambda: recbole_ser(["synthesize", *size, f"--out={folder / 'generated'}"])):
        sys.exit(2)  # it has said why
    rows: list[tuple[Any, ...]] = []
    for model in arguments.models:
        prepared = None
        for batch, precision in itertools.product(arguments.batches, arguments.precisions):
            if time.monotonic() > end:
                print(f"time is up before {model}, {batch}, {precision}")
                break
            values = {"data_path": str(folder), "train_batch_size": batch, "enable_amp": precision == "amp",
                      "use_gpu": arguments.device == "cuda", "show_progress": False, "state": "WARNING"}  # fmt: skip
            config = SERConfig(model, "generated", None, values)
            prepared = prepare(config) if prepared is None else prepared.under(config)
            place = folder / f"{model}-{batch}-{precision}"
            rows.append((model, batch, precision, *row(config, prepared, place, precision, arguments.steps)))
    if group.is_first():
        print_table(HEADER, rows)


def contract() -> None:
    """Run the contract tests of all models where this script runs, and print what pytest says last."""
    tests = Path(__file__).parents[1] / "tests" / "test_model_contract.py"
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", str(tests)], capture_output=True, text=True)
    print(f"contract tests: {done.stdout.strip().splitlines()[-1]}")


def row(config: SERConfig, prepared: Prepared, place: Path, precision: str, steps: int) -> tuple[Any, ...]:
    trainer = build_trainer(config, RunFolder(place), prepared)
    on_gpu = trainer.device.type == "cuda"
    if precision == "compiled":
        name = "losses" if isinstance(trainer.model, SearchRecommender) else "calculate_loss"
        setattr(trainer.model, name, torch.compile(getattr(trainer.model, name)))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    loader = prepared.training()
    trainer.model.train()
    with draws_seeded(config["seed"], 0):
        take(trainer, loader, WARM_UP)
        seconds = timed(trainer, lambda: take(trainer, loader, steps))
        busy = kernels(lambda: take(trainer, loader, steps)) if on_gpu else None
    memory = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else "-"
    valid = prepared.targets("valid")
    ranking = timed(trainer, lambda: trainer.rank(valid, load_best_model=False))
    steps = min(steps, len(loader))
    idle = "-" if busy is None else f"{max(0.0, 1 - busy / seconds):.0%}"
    per_second = steps * config["train_batch_size"] / seconds
    return 1000 * seconds / steps, per_second, idle, memory, valid.rows / ranking


def take(trainer: SERTrainer, loader: Any, steps: int) -> None:
    """Do ``steps`` steps as an epoch does them, or all that the epoch has."""
    for number, interaction in enumerate(itertools.islice(loader, steps)):
        with share_of_batch(loader, number) as share:
            losses = trainer._losses(interaction.to(trainer.device))
        trainer._step({name: share * loss for name, loss in losses.items()})


def timed(trainer: SERTrainer, function: Any) -> float:
    """Seconds of one call, with all that it asks of the GPU."""
    wait = torch.cuda.synchronize if trainer.device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    function()
    wait()
    return time.perf_counter() - start


def kernels(function: Any) -> float:
    """Seconds in which kernels ran; overlapping ones count each."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        torch.cuda.synchronize()
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6


if __name__ == "__main__":
    main()
