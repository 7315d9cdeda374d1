"""Weights & Biases: RecBole logs losses and validation metrics; the run's settings and test metrics are ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def start_tracking(config: Any, folder: Path) -> Callable[[Mapping[str, float]], None]:
    """Begin a run of Weights & Biases with the name of ``folder``, or go on in the one that the caller has begun.

    Returns:
        What is to be called with the test metrics; it ends the run that was begun here.
    """
    if not config["log_wandb"]:
        return lambda metrics: None
    import wandb

    begun_here = wandb.run is None
    if begun_here:
        wandb.init(project=config["wandb_project"], name=folder.name, dir=str(folder), config=config.resolved())

    def finish(metrics: Mapping[str, float]) -> None:
        wandb.run.summary.update({f"test/{name}": value for name, value in metrics.items()})
        if begun_here:
            wandb.finish()

    return finish
